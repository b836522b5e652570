//! `hyperctl pause`: all processes of a container are held where they are.

use hyperstart::Code;

use crate::error::{Error, Result};
use crate::pod::client;
use crate::pod::store::Pod;
use crate::several;

/// Hold all processes of pods' containers, until `unpause`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    several::each(&args.pods, "pause", pause).await
}

async fn pause(pod: Pod) -> Result<()> {
    let (_sandbox, container) = client::connect(&pod).await?;
    container.pause().await.map_err(|err| explain(&pod, &err))
}

fn explain(pod: &Pod, err: &hyperstart::Error) -> Error {
    match err.code() {
        Code::FailedPrecondition => Error::new(err.message())
            .hint(format!("`hyperctl unpause {}` lets it go on", pod.state.name)),
        _ => client::guest_error(err), // hyperstart::Code is non-exhaustive
    }
}
