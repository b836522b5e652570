//! All that a guest holds, seen through its `/proc`: what must be the same before a thing that failed and after it.
//!
//! Each line is a fact without what changes by itself: no pids, no inode numbers, no sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::Outcome;

/// No tree of a guest's own is deeper.
const DEPTH_MAX: usize = 12;

/// `process=NAME`, `zombie=NAME`, `namespaces=KIND COUNT`, `mount=TARGET`, `cgroup=PATH`, `run=PATH`, `dev=NAME`,
/// `fd=TARGET` and `watches=COUNT` (inotify(7)) of PID 1, `init=` its umask and CPUs.
pub fn print(proc: &str) -> Outcome {
    let mut facts = Vec::new();
    processes(proc, &mut facts)?;
    for line in fs::read_to_string(format!("{proc}/1/mountinfo"))?.lines() {
        facts.push(format!("mount={}", line.split(' ').nth(4).unwrap_or_default()));
    }
    let root = format!("{proc}/1/root");
    for (name, path) in [("cgroup", "sys/fs/cgroup"), ("run", "run"), ("dev", "dev")] {
        let top = format!("{root}/{path}");
        walk(Path::new(&top), name != "cgroup", 0, &mut |path| {
            let below = path.strip_prefix(&top).unwrap_or(path);
            facts.push(format!("{name}=/{}", below.display()));
        })?;
    }
    for entry in fs::read_dir(format!("{proc}/1/fd"))? {
        let target = fs::read_link(entry?.path())?.display().to_string();
        // socket:[123]
        facts.push(format!("fd={}", target.split('[').next().unwrap_or_default()));
    }
    facts.push(format!("watches={}", watches(proc)?));
    let status = fs::read_to_string(format!("{proc}/1/status"))?;
    for line in status.lines().filter(|line| {
        ["Umask:", "Cpus_allowed_list:", "Threads:"].iter().any(|field| line.starts_with(field))
    }) {
        facts.push(format!("init={}", line.replace('\t', " ")));
    }
    facts.sort();
    crate::act::print(&(facts.join("\n") + "\n"))
}

/// The processes by name, and how many namespaces of each kind they are in.
fn processes(proc: &str, facts: &mut Vec<String>) -> io::Result<()> {
    let mut namespaces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(proc)? {
        let path = entry?.path();
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(is_process) {
            continue;
        }
        // A process may be gone since it was listed; a kernel thread has no program.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "))
        else {
            continue;
        };
        if rest.starts_with('Z') {
            facts.push(format!("zombie={name}"));
        } else if fs::read_link(path.join("exe")).is_ok() {
            facts.push(format!("process={name}"));
        }
        for link in fs::read_dir(path.join("ns")).into_iter().flatten().flatten() {
            let kind = link.file_name().display().to_string();
            if let Ok(target) = fs::read_link(link.path()) {
                namespaces.entry(kind).or_default().insert(target.display().to_string());
            }
        }
    }
    for (kind, each) in namespaces {
        facts.push(format!("namespaces={kind} {}", each.len()));
    }
    Ok(())
}

/// A line each in fdinfo (proc_pid_fdinfo(5)).
fn watches(proc: &str) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("{proc}/1/fdinfo"))? {
        let info = fs::read_to_string(entry?.path())?;
        count += info.lines().filter(|line| line.starts_with("inotify wd:")).count();
    }
    Ok(count)
}

/// Directories, and with `files` all else too. What is mounted below is another tree, but for cgroups it is one.
fn walk(
    directory: &Path,
    files: bool,
    depth: usize,
    see: &mut impl FnMut(&Path),
) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if depth > DEPTH_MAX {
        return Ok(());
    }
    let device = fs::metadata(directory)?.dev();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() || files {
            see(&path);
        }
        if meta.is_dir() && meta.dev() == device {
            walk(&path, files, depth + 1, see)?;
        }
    }
    Ok(())
}
