//! `hyperctl volume`: the named volumes of this user.

use clap::Subcommand;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output;
use crate::volume::{Volume, Volumes};

/// Make, list and remove named volumes
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make volumes; `run -v NAME:DIR` does so too
    Create {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// List them
    Ls {
        /// Only the names
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove volumes with all that is in them; one in use is refused
    Rm {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print what is known of volumes, as a JSON array
    Inspect {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub fn run(args: &Args) -> Result<u8> {
    let volumes = Volumes::open()?;
    match &args.command {
        Command::Create { names } => {
            for name in names {
                volumes.find_or_create(name)?;
                output::print(format!("{name}\n"))?;
            }
        }
        Command::Ls { quiet } => list(&volumes.list()?, *quiet)?,
        Command::Rm { names } => return remove(&volumes, names),
        Command::Inspect { names } => {
            let found: Result<Vec<Volume>> = names.iter().map(|name| volumes.find(name)).collect();
            let describe = |volume: &Volume| json!({"name": volume.name, "path": volume.path, "used_by": volume.users});
            let described: Vec<_> = found?.iter().map(describe).collect();
            output::print(format!("{}\n", serde_json::to_string_pretty(&described)?))?;
        }
    }
    Ok(0)
}

fn list(volumes: &[Volume], quiet: bool) -> Result<()> {
    if quiet {
        let names = volumes.iter().map(|volume| format!("{}\n", volume.name));
        return output::print(names.collect::<String>());
    }
    let row = |volume: &Volume| {
        [volume.name.clone(), volume.users.join(", "), volume.path.display().to_string()]
    };
    let rows: Vec<_> = volumes.iter().map(row).collect();
    output::print(output::table(["NAME", "USED BY", "PATH"], &rows))
}

/// One that cannot be removed does not keep the others.
fn remove(volumes: &Volumes, names: &[String]) -> Result<u8> {
    let mut failed: Option<Error> = None;
    for name in names {
        match volumes.remove(name) {
            Ok(()) => output::print(format!("{name}\n"))?,
            Err(err) => {
                if let Some(earlier) = failed.replace(err) {
                    output::warn(earlier.message());
                }
            }
        }
    }
    failed.map_or(Ok(0), Err)
}
