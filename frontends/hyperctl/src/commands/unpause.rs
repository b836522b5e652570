//! `hyperctl unpause`: what was paused goes on.

use crate::commands::pause::refused;
use crate::error::Result;
use crate::pod::client;
use crate::pod::store::Pod;
use crate::several;

/// Let paused pods go on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    several::each(&args.pods, "unpause", unpause).await
}

async fn unpause(pod: Pod) -> Result<()> {
    let (_sandbox, container) = client::connect(&pod).await?;
    container.resume().await.map_err(|err| refused(&pod, &err))
}
