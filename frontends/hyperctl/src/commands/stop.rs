//! `hyperctl stop`: the container's stop signal, a grace period, SIGKILL; its host then turns the VM off.

use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::output;
use crate::pod::client;
use crate::pod::store::Store;
use crate::progress;

/// Stop pods: SIGTERM (or the image's stop signal), SIGKILL after a grace period, power off
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The grace period
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u64,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    for name in &args.pods {
        let pod = store.find(name)?;
        let stopped = client::stop(&pod, Duration::from_secs(args.time));
        progress::during("stopping the pod", stopped)
            .await
            .context(|| format!("stop pod {name:?}"))?;
        output::print(format!("{name}\n"))?;
    }
    Ok(0)
}
