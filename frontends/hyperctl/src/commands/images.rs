//! `hyperctl images`: the container images that `run` knows by name.

use crate::error::Result;
use crate::guest::GuestDir;
use crate::image::{self, Image};
use crate::output;

/// List the container images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<u8> {
    let images = image::list(&GuestDir::locate()?)?;
    if args.quiet {
        let name = |image: &Image| format!("{}\n", image.description.name);
        output::print(images.iter().map(name).collect::<String>())?;
        return Ok(0);
    }
    let rows: Vec<[String; 4]> = images.iter().map(row).collect();
    output::print(output::table(["NAME", "SHA256", "SIZE", "COMMAND"], &rows))?;
    Ok(0)
}

fn row(image: &Image) -> [String; 4] {
    let size = format!("{:.1} MB", image.description.size as f64 / 1e6);
    let command = image.description.config.command(&[]).join(" ");
    [image.description.name.clone(), image.short_digest(), size, command]
}
