//! `hyperctl image prune`: removes what nobody uses.

use crate::error::Result;
use crate::output;

use super::rm::said;
use super::{Users, megabytes, open};

/// Remove images without a name, and layers that no image has
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images with a name too, if no pod uses them
    #[arg(short, long)]
    all: bool,
}

pub fn run(args: &Args) -> Result<u8> {
    let users = Users::now()?;
    let removed = open()?.prune(args.all, &|image| users.of(image))?;
    let freed = megabytes(removed.bytes);
    output::print(format!("{}Freed: {freed}\n", said(&removed)))?;
    Ok(0)
}
