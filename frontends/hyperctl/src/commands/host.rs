//! `hyperctl host`: the background half of `run`, started by it, or by the guardian of a pod whose host was killed.

use std::path::PathBuf;

use crate::error::Result;
use crate::pod::detach;

/// Host a pod (internal: `run` starts it)
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// Take over the pod in this directory, whose host was killed
    #[arg(long, value_name = "DIR")]
    adopt: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<u8> {
    match args.adopt {
        Some(dir) => detach::adopt(&dir).await,
        None => detach::serve().await,
    }
}
