//! Files in and out of a container as a tar stream: an exec whose program is ours.
//!
//! It is a child of PID 1's in the container's cgroup, mount namespace and root, and user namespace if it has one: what it
//! reads and writes is what the container would, and its time and memory are the container's. It is not in the
//! container's pid namespace, where somebody could look into it. It is root there, with no more rights than to files: of
//! root's capabilities those that pass over the owner and mode of files, whether or not the container's processes have
//! them, and the one to make devices if they have it. The container's seccomp filter is not on it, which is for its programs.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use hyperstart_archive::{Links as ArchiveLinks, Options, Owner, Source, pack, unpack};
use nix::sched::CloneFlags;
use rustix::fs::OFlags;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::child::leave_pid_1;
use super::process::{self, SET_UP_DEADLINE, Unfinished};
use super::spec::{Capabilities, CapabilitySet};
use super::tree::{Links, Tree};
use super::user::{self, Credentials};
use super::user_namespace::UserNamespace;
use super::{Container, ExecId, Process, State};
use crate::error::{Context, Result};
use crate::reaper::Reaper;
use crate::report::{self, Reporter};
use crate::stdio::ChildStdio;
use crate::sys::process::{CloneArgs, clone_child, exit_now};

/// What root may do to files of whomever.
const FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Absolute, in the container.
    pub path: String,
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To stdout; with `follow` what a symbolic link leads to.
    Export { follow: bool },
    /// From stdin, into a directory; with `reset_owner` all of it is root's.
    Import { reset_owner: bool },
}

/// What the child is made from.
struct Spec {
    archive: Archive,
    first: OwnedFd, // a pidfd
    in_user_namespace: bool,
    may_mknod: bool,
    stdio: Option<ChildStdio>,
    report: Reporter,
}

impl Container {
    /// Begins it, as soon as there is a first process, be it started or not. That the path is there is known then.
    pub async fn archive(&self, exec_id: ExecId, archive: Archive, reaper: &Reaper) -> Result<()> {
        match self.state() {
            State::Created | State::Running => {}
            State::Paused | State::Stopped(_) => return Err(self.wrong_state()), // it would stand still too
        }
        self.add_exec(exec_id, self.spawn_archive(archive, reaper)).await
    }

    async fn spawn_archive(&self, archive: Archive, reaper: &Reaper) -> Result<Process> {
        let (ours, stdio) = process::streams(false, self.sizes)?;
        let (listener, report) = report::channel()?;
        let first = self.first.pidfd().try_clone_to_owned()?;
        let in_user_namespace = self.traits.in_user_namespace;
        let may_mknod = self.traits.may_mknod;
        let mut spec = Some(Spec { archive, first, in_user_namespace, may_mknod, stdio, report });
        let clone = |cgroup: std::os::fd::BorrowedFd<'_>| {
            let args = CloneArgs { namespaces: CloneFlags::empty(), cgroup: Some(cgroup) };
            clone_child(args, run, &mut spec)
        };
        let child = self.in_cgroup(clone).context(|| "clone".to_owned())?;
        drop(spec); // the child's ends of the streams
        let process =
            Unfinished::new(child, reaper).ready(&listener, ours, Some(SET_UP_DEADLINE)).await?;
        process.mark_started();
        Ok(process)
    }
}

/// What is opened, and needs nothing but its streams.
enum Work {
    Export { source: Source, name: Vec<u8> },
    Import { directory: OwnedFd, options: Options },
}

/// The entry of the child.
fn run(spec: &mut Option<Spec>) -> ! {
    let Some(spec) = spec.take() else { exit_now(126) };
    let Spec { archive, first, in_user_namespace, may_mknod, stdio, report } = spec;
    let begin = || -> Result<Work> {
        leave_pid_1(stdio, &[report.as_fd(), first.as_fd()])?;
        enter(&first, in_user_namespace, may_mknod)?;
        let work = open(&archive)?;
        report.ready(None)?;
        Ok(work)
    };
    match begin() {
        Ok(work) => exit_now(carry_out(&work)),
        Err(err) => {
            report.failed(&err);
            exit_now(126)
        }
    }
}

fn enter(first: &OwnedFd, in_user_namespace: bool, may_mknod: bool) -> Result<()> {
    let user_namespace =
        in_user_namespace.then(|| UserNamespace::of_process(first.as_fd())).transpose()?;
    move_into_thread_name_spaces(first.as_fd(), ThreadNameSpaceType::MOUNT)
        .context(|| "join the mount namespace".to_owned())?;
    if let Some(user_namespace) = user_namespace {
        user_namespace.enter()?;
    }
    let permitted = if may_mknod { FILES | CapabilitySet::MKNOD } else { FILES };
    let none = CapabilitySet::empty();
    let capabilities = Capabilities {
        bounding: permitted,
        effective: permitted,
        permitted,
        inheritable: none,
        ambient: none,
    };
    let root = Credentials { uid: 0, gid: 0, groups: Vec::new(), home: String::new() };
    user::assume(&root, &capabilities, none, true)
}

/// Links on the way are followed as the container would, but no magic one.
fn open(Archive { path, direction }: &Archive) -> Result<Work> {
    let tree = Tree::of_root()?;
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    match *direction {
        Direction::Import { reset_owner } => {
            let owner = if reset_owner { Owner::Caller } else { Owner::Archive };
            let options = Options {
                owner,
                links: ArchiveLinks::Below,
                devices: true,
                set_id: true,
                rename: None,
            };
            Ok(Work::Import { directory: tree.open(path, directory, Links::Follow)?, options })
        }
        Direction::Export { follow } => {
            let (parent, name) = split(path);
            let must_be_directory = path.ends_with('/');
            let (from, leaf) = if name == "." || must_be_directory {
                (path.as_str(), ".")
            } else {
                (parent, name)
            };
            let from = tree.open(from, directory, Links::Follow)?;
            let source = Source::open(from, leaf.as_bytes(), follow)?;
            Ok(Work::Export { source, name: name.as_bytes().to_owned() })
        }
    }
}

/// The path above, and the name that the archive's top gets: `.` for the root, and where the path says that the content is
/// meant, not the directory.
fn split(path: &str) -> (&str, &str) {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some((_, "" | "." | "..")) | None => (path, "."),
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
    }
}

fn carry_out(work: &Work) -> i32 {
    let done = match work {
        Work::Export { source, name } => {
            pack(source, name, &mut Streams, &mut say).map_err(|err| err.to_string())
        }
        Work::Import { directory, options } => unpack(&mut Streams, directory.as_fd(), options)
            .map_err(|err| format!("{err}; what came before it stays")),
    };
    match done {
        Ok(()) => 0,
        Err(err) => {
            say(&err);
            1
        }
    }
}

/// A line on stderr; nobody may be listening any more.
fn say(line: &str) {
    rustix::io::write(stderr(), format!("{line}\n").as_bytes()).unwrap_or_default();
}

/// Standard input and output, as they are.
struct Streams;

impl Read for Streams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(stdin(), buffer)?)
    }
}

impl Write for Streams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_an_archive_is_named_after_the_path() {
        for (path, parent, name) in [
            ("/a", "/", "a"),
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/", "/", "."),
            ("/a/.", "/a/.", "."),
            ("/a/..", "/a/..", "."),
            ("/a/./", "/a/./", "."),
        ] {
            assert_eq!(split(path), (parent, name), "{path}");
        }
    }
}
