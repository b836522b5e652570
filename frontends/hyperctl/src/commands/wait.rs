//! `hyperctl wait`: exit codes, once there are some.
//!
//! A pod's record has its exit code for as long as there is a record; with `--rm` there is none, so the guest is asked
//! too while it can be. The pod is over when both have spoken: `wait` and then `rm` work one after the other.

use tokio::time::sleep;

use crate::commands::POLL;
use crate::error::{Context as _, Error, OUR_FAILURE, Result};
use crate::output;
use crate::pod::client;
use crate::pod::state::Status;
use crate::pod::store::{Pod, Store};

/// Wait until pods have ended, and print their exit codes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    // All at once: one may end, and be forgotten, while another is waited for.
    let wait = |name: &String| (name.clone(), store.find(name).map(|pod| tokio::spawn(ended(pod))));
    let waits: Vec<_> = args.pods.iter().map(wait).collect();
    let mut code = 0;
    for (name, wait) in waits {
        let ended = match wait {
            Ok(task) => task.await.unwrap_or_else(|err| Err(Error::new(err.to_string()))),
            Err(err) => Err(err),
        };
        match ended.context(|| format!("wait for pod {name:?}")) {
            Ok(exit_code) => output::print(format!("{exit_code}\n"))?,
            Err(err) => {
                output::say(err);
                code = OUR_FAILURE;
            }
        }
    }
    Ok(code)
}

/// The exit code of a pod, or of a further container, that has ended and is no longer hosted.
async fn ended(pod: Pod) -> Result<u8> {
    let store = Store::open()?;
    let mut told = None;
    let mut pod = Some(pod);
    while let Some(found) = pod {
        match &found.state.status {
            Status::Exited { exit_code, .. } => return Ok(*exit_code),
            Status::Running { .. } if told.is_none() => told = ask(&found).await,
            Status::Running { .. } | Status::Booting => {}
        }
        sleep(POLL).await;
        pod = again(&store, found)?;
    }
    told.ok_or_else(|| {
        Error::new("it is gone, and its exit code with it")
            .hint("its hyperctl was killed, or it was removed; without --rm the record stays")
    })
}

/// The pod as it is now; `None` when nothing is left of it.
fn again(store: &Store, pod: Pod) -> Result<Option<Pod>> {
    if pod.is_hosted()? && matches!(pod.state.status, Status::Running { .. }) {
        return Ok(Some(pod)); // what it will come to is written at its end
    }
    Ok(store.list()?.into_iter().find(|other| other.state.id == pod.state.id))
}

/// The guest's word, if it lives to give it.
async fn ask(pod: &Pod) -> Option<u8> {
    let (_sandbox, container) = client::connect(pod).await.ok()?;
    let status = container.wait().await.ok()?;
    Some(status.code())
}
