//! `hyperctl kill`: a signal for a container's own process, and nothing more.

use crate::error::{Context as _, Result};
use crate::output;
use crate::pod::client;
use crate::pod::store::Store;
use crate::signals::{self, SIGKILL};

/// Send a signal to a pod's container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// By name or number
    #[arg(short, long, value_name = "SIGNAL", value_parser = signals::parse, default_value_t = SIGKILL)]
    signal: u32,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    for name in &args.pods {
        let pod = store.find(name)?;
        client::signal(&pod, args.signal).await.context(|| format!("kill pod {name:?}"))?;
        output::print(format!("{name}\n"))?;
    }
    Ok(0)
}
