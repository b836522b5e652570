//! `hyperctl host`: the background half of `run -d`, started by it and by nobody else.

use crate::error::Result;
use crate::pod::detach;

/// Host a detached pod (internal: `run -d` starts it)
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {}

pub async fn run(_args: Args) -> Result<u8> {
    detach::serve().await
}
