//! `hyperctl ps`: the pods, as docker lists containers.
//!
//! The records say all but which containers are paused: that only their guests know, whoever has paused them.

use std::collections::BTreeSet;
use std::time::Duration;

use hyperstart::State as GuestState;
use tokio::time::timeout;

use crate::error::Result;
use crate::output;
use crate::pod::client;
use crate::pod::state::{State, Status};
use crate::pod::store::{Pod, Store};
use crate::time;

/// For a guest to say which of its containers are paused; one that does not is listed without.
const PATIENCE: Duration = Duration::from_secs(3);

/// The widest COMMAND that is shown whole.
const COMMAND_WIDTH: usize = 30;

/// List the pods and their further containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exited pods too, not only the living
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
}

pub async fn run(args: &Args) -> Result<u8> {
    let mut pods = Store::open()?.list()?;
    pods.retain(|pod| args.all || !matches!(pod.state.status, Status::Exited { .. }));
    pods.reverse(); // the newest first
    if args.quiet {
        output::print(pods.iter().map(|pod| format!("{}\n", pod.state.id)).collect::<String>())?;
        return Ok(0);
    }
    let paused = paused(&pods).await;
    let rows: Vec<[String; 6]> =
        pods.iter().map(|pod| row(&pod.state, paused.contains(&pod.state.id))).collect();
    output::print(output::table(["POD ID", "NAME", "IMAGE", "COMMAND", "STATUS", "VM"], &rows))?;
    Ok(0)
}

/// The ids of containers that are paused. All guests are asked at once.
async fn paused(pods: &[Pod]) -> BTreeSet<String> {
    let runs =
        |pod: &&Pod| pod.state.pod.is_none() && matches!(pod.state.status, Status::Running { .. });
    let ask = |pod: &Pod| tokio::spawn(timeout(PATIENCE, paused_in(pod.clone())));
    let asked: Vec<_> = pods.iter().filter(runs).map(ask).collect();
    let mut paused = BTreeSet::new();
    for task in asked {
        match task.await {
            Ok(Ok(Ok(ids))) => paused.extend(ids),
            Ok(Ok(Err(err))) => log::debug!("list containers: {}", err.message()),
            Ok(Err(_)) | Err(_) => log::debug!("list containers: the guest does not answer"),
        }
    }
    paused
}

async fn paused_in(pod: Pod) -> Result<Vec<String>> {
    let (sandbox, _container) = client::connect(&pod).await?;
    let list = sandbox.list().await.map_err(|err| client::guest_error(&err))?;
    let paused = list.containers.into_iter().filter(|each| each.state == GuestState::Paused);
    Ok(paused.map(|container| container.id.as_str().to_string()).collect())
}

fn row(state: &State, paused: bool) -> [String; 6] {
    [
        state.id.clone(),
        state.name.clone(),
        printable(&state.image),
        format!("\"{}\"", shorten(&printable(&state.command()), COMMAND_WIDTH)),
        status(&state.status, paused),
        match &state.pod {
            Some(pod) => format!("in {pod}"),
            None => {
                format!("{} {} CPU {} MiB", state.vm.machine, state.vm.cpus, state.vm.memory_mib)
            }
        },
    ]
}

fn status(status: &Status, paused: bool) -> String {
    match status {
        Status::Booting => "Booting".into(),
        Status::Running { since } => {
            let paused = if paused { " (Paused)" } else { "" };
            format!("Up {}{paused}", time::rough(time::since(*since)))
        }
        Status::Exited { at, exit_code, .. } => {
            format!("Exited ({exit_code}) {} ago", time::rough(time::since(*at)))
        }
    }
}

/// A command's words can hold anything; a table's cell is one line without escapes.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let head: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_dockers() {
        let now = time::unix_millis();
        let running = Status::Running { since: now - 5_400 };
        assert_eq!(status(&running, false), "Up 5 seconds");
        assert_eq!(status(&running, true), "Up 5 seconds (Paused)");
        let exited = Status::Exited { at: now - 61_000, exit_code: 7, error: None };
        assert_eq!(status(&exited, false), "Exited (7) 1 minute ago");
    }

    #[test]
    fn cells_are_one_short_line() {
        assert_eq!(printable("a\n\x1b[2J"), "a??[2J");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }
}
