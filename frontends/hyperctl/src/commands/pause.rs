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
    let hint = format!("`hyperctl unpause {}` lets it go on", pod.state.name);
    container.pause().await.map_err(|err| refused(&err, hint))
}

/// The wrong state in the guest's own words, without the id that the user has not given.
pub fn refused(err: &hyperstart::Error, hint: String) -> Error {
    match err.code() {
        Code::FailedPrecondition => {
            Error::new(err.message().rsplit(": ").next().unwrap_or_default()).hint(hint)
        }
        _ => client::guest_error(err), // hyperstart::Code is non-exhaustive
    }
}
