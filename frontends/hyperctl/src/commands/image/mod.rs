//! `hyperctl image`: the store of container images, a command a file.

mod import;
mod inspect;
pub mod ls;
mod prune;
pub mod pull;
mod rm;

use clap::Subcommand;
use image_builder::store::{Store, Stored};

use crate::error::Result;
use crate::pod::state::Status;
use crate::pod::store::{Pod, Store as Pods};

/// Import, pull, list and remove container images
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Args),
    Pull(pull::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Rm(rm::Args),
    Prune(prune::Args),
}

pub async fn run(args: Args) -> Result<u8> {
    match args.command {
        Command::Import(args) => import::run(&args),
        Command::Pull(args) => pull::run(args).await,
        Command::Ls(args) => ls::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Prune(args) => prune::run(&args),
    }
}

fn open() -> Result<Store> {
    Ok(Store::open(&Store::default_directory()?)?)
}

/// Who uses images: pods that have not exited, and further containers of theirs.
struct Users(Vec<Pod>);

impl Users {
    fn now() -> Result<Users> {
        let mut pods = Pods::open()?.list()?;
        pods.retain(|pod| !matches!(pod.state.status, Status::Exited { .. }));
        Ok(Users(pods))
    }

    /// The first that uses this one, in the words of a message.
    fn of(&self, image: &Stored) -> Option<String> {
        let digest = image.digest.to_string();
        let user = self.0.iter().find(|pod| pod.state.images.contains(&digest))?;
        Some(format!("pod {:?}", user.state.name))
    }
}

/// Bytes as a list shows them.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The first digits of a digest, enough to tell images apart.
fn short_digest(digest: &image_builder::Digest) -> String {
    digest.as_hex().chars().take(12).collect()
}
