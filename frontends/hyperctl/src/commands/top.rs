//! `hyperctl top`: the processes in a container, as docker lists them.

use std::time::Duration;

use hyperstart::{ProcessEntry, ProcessList};

use crate::error::{Context as _, Result};
use crate::output;
use crate::pod::client;
use crate::pod::state::{State, Status};
use crate::pod::store::Store;
use crate::{time, units};

const HEADER: [&str; 8] = ["UID", "PID", "PPID", "STAT", "RSS", "STARTED", "TIME", "CMD"];

const NOTES: &str = "\
PID and PPID are those that the container sees itself, for `hyperctl exec POD kill PID`; PPID 0 is outside of it.
STARTED is how long ago, TIME the processor time.";

/// List the processes in a pod's container
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// A further container of the pod, by its name [default: the first one]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Name, id, or beginning of an id
    pod: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let pod = Store::open()?.find_container(&args.pod, args.container.as_deref())?;
    let operation = || format!("list processes of pod {:?}", pod.state.name);
    let (_sandbox, container) = client::connect(&pod).await.context(operation)?;
    let list = container.processes().await;
    let list = list.map_err(|err| client::guest_error(&err)).context(operation)?;
    output::print(table(&list, age(&pod.state)))?;
    if list.truncated {
        output::warn(format_args!("{}: there are more than these", operation()));
    }
    Ok(0)
}

/// How long the container has been running.
fn age(state: &State) -> Duration {
    match state.status {
        Status::Running { since } => time::since(since),
        Status::Booting | Status::Exited { .. } => Duration::ZERO,
    }
}

fn table(list: &ProcessList, age: Duration) -> String {
    let entries = &list.processes;
    // The first of them is as old as the container; the guest's clock need not be ours.
    let first = entries.iter().map(|entry| entry.started).min().unwrap_or_default();
    let row = |entry: &ProcessEntry| {
        let parent = entries.iter().find(|other| other.pid == entry.parent_pid);
        let started = age.saturating_sub(entry.started.saturating_sub(first));
        [
            entry.uid.to_string(),
            entry.container_pid.to_string(),
            parent.map_or(0, |parent| parent.container_pid).to_string(),
            entry.state.to_string(),
            units::memory(entry.resident_bytes),
            time::short(started),
            units::cpu_time(entry.cpu),
            entry.command.clone(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    output::right_aligned(HEADER, &rows, &[1, 2, 4, 5, 6])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, container_pid: u32, parent_pid: u32, started: u64) -> ProcessEntry {
        ProcessEntry {
            pid,
            container_pid,
            parent_pid,
            uid: 0,
            state: 'S',
            resident_bytes: 1 << 20,
            cpu: Duration::from_millis(50),
            started: Duration::from_secs(started),
            command: "sh -c true".into(),
        }
    }

    #[test]
    fn pids_are_the_containers_and_ages_the_hosts() {
        let processes = vec![entry(70, 1, 1, 10), entry(90, 7, 70, 40)];
        let text = table(&ProcessList { processes, truncated: false }, Duration::from_secs(95));
        assert_eq!(
            text,
            "UID  PID  PPID  STAT   RSS  STARTED  TIME  CMD\n\
             0      1     0  S     1MiB      95s  0.05  sh -c true\n\
             0      7     1  S     1MiB      65s  0.05  sh -c true\n"
        );
    }
}
