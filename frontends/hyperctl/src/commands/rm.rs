//! `hyperctl rm`: forgets exited pods; with -f running ones too, which ends them first.

use std::time::Duration;

use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::client;
use crate::pod::state::Status;
use crate::pod::store::{Pod, Store};

/// Remove exited pods, with their output and console
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kill a pod that runs
    #[arg(short, long)]
    force: bool,
    /// All that have exited
    #[arg(long, conflicts_with = "pods")]
    exited: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required_unless_present = "exited", value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    for pod in chosen(&store, &args)? {
        let name = pod.state.name.clone();
        remove(&store, &pod, args.force).await.context(|| format!("remove pod {name:?}"))?;
        output::print(format!("{name}\n"))?;
    }
    Ok(0)
}

fn chosen(store: &Store, args: &Args) -> Result<Vec<Pod>> {
    if args.exited {
        let mut pods = store.list()?;
        pods.retain(|pod| matches!(pod.state.status, Status::Exited { .. }));
        return Ok(pods);
    }
    args.pods.iter().map(|name| store.find(name)).collect()
}

async fn remove(store: &Store, pod: &Pod, force: bool) -> Result<()> {
    if pod.is_hosted()? {
        if !force {
            return Err(Error::new("it is running")
                .hint("`hyperctl stop` it first, or `hyperctl rm -f` kills it"));
        }
        client::stop(pod, Duration::ZERO).await?;
    }
    store.remove(pod)
}
