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
    container.pause().await.map_err(|err| refused(&pod, &err))
}

/// The wrong state in the guest's own words, without the id that the user has not given.
pub fn refused(pod: &Pod, err: &hyperstart::Error) -> Error {
    if err.code() != Code::FailedPrecondition {
        return client::guest_error(err);
    }
    let state = err.message().rsplit(": ").next().unwrap_or_default();
    Error::new(state).hint(match state {
        "it is paused" => format!("`hyperctl unpause {}` lets it go on", pod.state.name),
        _ => "`hyperctl ps -a` shows how the pods stand".to_string(),
    })
}
