//! `hyperctl image ls`, also `hyperctl images`: the container images that `run` knows by name, those of the store before
//! those that came with the guest.

use crate::error::Result;
use crate::guest::GuestDir;
use crate::image;
use crate::output;

use super::{megabytes, open, short_digest};

/// List the container images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the names, of an image without one its digest
    #[arg(short, long)]
    quiet: bool,
}

/// What a line says.
struct Line {
    name: String,
    digest: String,
    layers: String,
    size: u64,
    command: String,
}

pub fn run(args: &Args) -> Result<u8> {
    let lines = lines()?;
    if args.quiet {
        let name = |line: &Line| match line.name.is_empty() {
            true => format!("{}\n", line.digest),
            false => format!("{}\n", line.name),
        };
        output::print(lines.iter().map(name).collect::<String>())?;
        return Ok(0);
    }
    let rows: Vec<[String; 5]> = lines
        .into_iter()
        .map(|line| {
            let name = if line.name.is_empty() { "-".into() } else { line.name };
            [name, line.digest, line.layers, megabytes(line.size), line.command]
        })
        .collect();
    output::print(output::table(["NAME", "DIGEST", "LAYERS", "SIZE", "COMMAND"], &rows))?;
    Ok(0)
}

fn lines() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for stored in open()?.list()? {
        let line = |name: &str| Line {
            name: name.into(),
            digest: short_digest(&stored.digest),
            layers: stored.layers.len().to_string(),
            size: stored.size,
            command: stored.config.command(&[]).join(" "),
        };
        match stored.names.is_empty() {
            true => lines.push(line("")),
            false => lines.extend(stored.names.iter().map(|name| line(name))),
        }
    }
    let guest = match GuestDir::locate() {
        Ok(guest) => image::list(&guest)?,
        Err(err) if lines.is_empty() => return Err(err),
        Err(_) => Vec::new(), // the store's are all that there is
    };
    lines.extend(guest.into_iter().map(|image| Line {
        digest: image.short_digest(),
        layers: "1".into(),
        size: image.description.size,
        command: image.description.config.command(&[]).join(" "),
        name: image.description.name,
    }));
    Ok(lines)
}
