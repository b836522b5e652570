//! `hyperctl console`: what the guest's kernel and init said on the serial console.

use crate::commands::POLL;
use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::output_log::Tail;
use crate::pod::store::Store;

/// Print the guest's console: kernel messages and init's boot steps
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as more comes, until the pod ends
    #[arg(short, long)]
    follow: bool,
    /// Name, id, or beginning of an id
    pod: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let pod = Store::open()?.find(&args.pod)?;
    let operation = || format!("read console of pod {:?}", pod.state.name);
    let log = pod.state.console.as_ref();
    let log = log.ok_or_else(|| Error::new("it has not said anything yet")).context(operation)?;
    let mut console = Tail::open(log).context(operation)?;
    loop {
        let may_grow = args.follow && pod.is_hosted()?;
        loop {
            let bytes = console.next().context(operation)?;
            if bytes.is_empty() {
                break;
            }
            output::print(bytes)?;
        }
        if !may_grow {
            return Ok(0);
        }
        tokio::time::sleep(POLL).await;
    }
}
