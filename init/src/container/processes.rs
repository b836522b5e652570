//! The processes in a container, as ps(1) shows them.
//!
//! A command line is read from the process's own memory, which may be a file of a server that does not answer: so a child
//! reads, and what hangs is that child.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Container;
use crate::error::Result;
use crate::offload;
use crate::reaper::Reaper;
use crate::textfile::{self, PAGE_BYTES, ProcessStat, TICK_NS};

/// Told of at the most.
const MOST: usize = 4096;
/// The answer must fit into a frame.
const BYTES_MOST: u64 = 2 << 20;
const COMMAND_MOST: u64 = 4096;
/// cgroups that a container has made below its own, looked into at the most.
const CGROUPS_MOST: usize = 1024;
const DEADLINE: Duration = Duration::from_secs(10);

/// One process, as the guest sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub pid: u32,
    pub container_pid: u32,
    pub parent_pid: u32,
    pub uid: u32,
    pub state: String,
    pub resident_bytes: u64,
    pub cpu_ns: u64,
    pub started_ns: u64,
    pub command: String,
}

impl Container {
    /// Those in its cgroup and below, by their pids; and whether there are more.
    pub async fn list_processes(&self, reaper: &Reaper) -> Result<(Vec<Entry>, bool)> {
        let cgroup = self.cgroup.path();
        let output = offload::collect(reaper, DEADLINE, BYTES_MOST, || Ok(records(cgroup))).await?;
        let text = String::from_utf8_lossy(&output);
        let mut records = text.split('\0');
        let truncated = records.next() == Some("more");
        Ok((records.filter_map(parse_record).collect(), truncated))
    }
}

/// `more` or nothing, then a record a process: each begins with a NUL.
fn records(cgroup: &Path) -> Vec<u8> {
    let (mut pids, mut truncated) = pids(cgroup);
    pids.sort_unstable();
    pids.truncate(MOST);
    let mut records = Vec::new();
    for pid in pids {
        // Nothing to say: it has just ended.
        let Some(record) = record(pid) else { continue };
        if (records.len() + record.len() + 8) as u64 > BYTES_MOST {
            truncated = true;
            break;
        }
        records.push(0);
        records.extend_from_slice(record.as_bytes());
    }
    if truncated {
        records.splice(0..0, *b"more");
    }
    records
}

fn pids(cgroup: &Path) -> (Vec<u32>, bool) {
    let (mut pids, mut looked) = (Vec::new(), 0);
    let mut directories = vec![cgroup.to_owned()];
    while let Some(directory) = directories.pop() {
        looked += 1;
        if looked > CGROUPS_MOST || pids.len() > MOST {
            return (pids, true);
        }
        // A threaded cgroup (cgroup-v2, "Threads") has none of its own.
        let text = textfile::read_optional(&directory.join("cgroup.procs"));
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        directories.extend(below(&directory));
    }
    let more = pids.len() > MOST;
    (pids, more)
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() }; // it was removed
    let is_directory =
        |entry: &fs::DirEntry| entry.file_type().is_ok_and(|file_type| file_type.is_dir());
    entries.flatten().filter(is_directory).map(|entry| entry.path()).take(CGROUPS_MOST).collect()
}

/// Eight words and the command line.
fn record(pid: u32) -> Option<String> {
    let directory = Path::new("/proc").join(pid.to_string());
    let stat = textfile::read(&directory.join("stat")).ok()?;
    let status = textfile::read(&directory.join("status")).ok()?;
    let (name, numbers) = parse_stat(&stat)?;
    let (uid, container_pid) = parse_status(&status, pid);
    let mut command = Vec::new();
    if let Ok(file) = File::open(directory.join("cmdline")) {
        file.take(COMMAND_MOST).read_to_end(&mut command).ok()?;
    }
    while command.last() == Some(&0) {
        command.pop();
    }
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command = if command.is_empty() { name } else { &command };
    Some(format!("{pid} {container_pid} {uid} {numbers} {command}"))
}

/// The name, and `STATE PARENT RESIDENT CPU STARTED`.
fn parse_stat(stat: &str) -> Option<(&str, String)> {
    let stat = ProcessStat::parse(stat)?;
    let (state, parent) = (stat.field(3)?, stat.field(4)?);
    let resident = stat.number(24)?.saturating_mul(PAGE_BYTES);
    let cpu = stat.number(14)?.saturating_add(stat.number(15)?).saturating_mul(TICK_NS);
    let started = stat.number(22)?.saturating_mul(TICK_NS);
    Some((stat.name, format!("{state} {parent} {resident} {cpu} {started}")))
}

/// proc_pid_status(5): its real user, and its pid one namespace further down than the guest's own.
fn parse_status(status: &str, pid: u32) -> (u32, u32) {
    let word = |name: &str, at: usize| -> Option<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(at)?.parse().ok()
    };
    (word("Uid:", 0).unwrap_or_default(), word("NSpid:", 1).unwrap_or(pid))
}

fn parse_record(record: &str) -> Option<Entry> {
    let mut words = record.splitn(9, ' ');
    let mut next = || words.next();
    Some(Entry {
        pid: next()?.parse().ok()?,
        container_pid: next()?.parse().ok()?,
        uid: next()?.parse().ok()?,
        state: next()?.to_owned(),
        parent_pid: next()?.parse().ok()?,
        resident_bytes: next()?.parse().ok()?,
        cpu_ns: next()?.parse().ok()?,
        started_ns: next()?.parse().ok()?,
        command: next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a) (b c) S 41 77 77 0 -1 4194560 96 0 1 0 12 30 0 0 20 0 1 0 4711 1654784 270 \
                        18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n";
    const STATUS: &str =
        "Name:\ta) (b c\nUmask:\t0022\nPid:\t77\nUid:\t1000\t0\t0\t0\nNSpid:\t77\t5\t1\n";

    #[test]
    fn a_name_may_hold_anything() {
        let (name, numbers) = parse_stat(STAT).unwrap();
        assert_eq!(name, "a) (b c");
        assert_eq!(numbers, "S 41 1105920 420000000 47110000000");
        assert_eq!(parse_stat("77 (short) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_pid_is_the_containers_own() {
        assert_eq!(parse_status(STATUS, 77), (1000, 5));
        assert_eq!(parse_status("", 77), (0, 77));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let entry = parse_record("77 5 1000 S 41 4096 10 20 /bin/sh -c  echo  x").unwrap();
        assert_eq!(
            (entry.pid, entry.container_pid, entry.parent_pid, entry.uid),
            (77, 5, 41, 1000)
        );
        assert_eq!((entry.state.as_str(), entry.command.as_str()), ("S", "/bin/sh -c  echo  x"));
        assert_eq!((entry.resident_bytes, entry.cpu_ns, entry.started_ns), (4096, 10, 20));
        assert_eq!(parse_record("77 5"), None);
    }
}
