//! Process 1 of a pid namespace where that is no program of a container's: a copy of PID 1's that reaps orphans.
//!
//! Two use it: the namespace that the containers of a sandbox share, and a container that is given an init, which also
//! passes signals on to the container's program and ends as it does. Nobody inside can end it by a signal: it blocks
//! them all, and the kernel spares process 1 the others (pid_namespaces(7)). That it is not dumpable keeps its memory
//! and its descriptors to itself (proc_pid_mem(5)).

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc::SIGCHLD;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, getpid, pivot_root, set_child_subreaper, setpgid};
use rustix::termios::{isatty, tcsetpgrp};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::child::{end, leave_pid_1};
use super::detached::{attach_mount, empty_read_only_directory};
use super::process::{SET_UP_DEADLINE, Unfinished};
use super::program::Program;
use super::seccomp::Filter;
use crate::error::{Context, Result};
use crate::reaper::{Reaper, reap_next};
use crate::report::{self, Reporter};
use crate::sys::process::{
    Child, CloneArgs, clone_child, clone_in_child, close_all_but, exit_now, pidfd_send_signal,
    wait_for_signal,
};

/// The pid namespace that containers of a sandbox share. It ends with this, and all in it.
pub struct SharedPids(Child);

impl SharedPids {
    pub async fn start(reaper: &Reaper) -> Result<Self> {
        let start = async {
            let (listener, reporter) = report::channel()?;
            let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
            let child = clone_child(CloneArgs { namespaces, cgroup: None }, shared, reporter)?;
            let unfinished = Unfinished::new(child, reaper);
            unfinished.set_up(&listener, Some(SET_UP_DEADLINE)).await?;
            unfinished.finish().map(Self)
        };
        start.await.context(|| "share a pid namespace".to_owned())
    }
}

impl Drop for SharedPids {
    fn drop(&mut self) {
        if let Err(err) = self.0.kill() {
            log::debug!("end the shared pid namespace: {err}"); // it has ended
        }
    }
}

/// A pidfd.
impl AsFd for SharedPids {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }
}

fn shared(reporter: Reporter) -> ! {
    if let Err(err) = keep_nothing(&reporter).and_then(|()| reporter.ready(None)) {
        reporter.failed(&err);
        exit_now(1);
    }
    drop(reporter);
    tend(None)
}

/// Neither files nor rights: who gets hold of it has gained nothing.
fn keep_nothing(reporter: &Reporter) -> Result<()> {
    leave_pid_1(None, &[reporter.as_fd()])?;
    block_signals()?;
    let empty_root = || -> Result<()> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let root = empty_read_only_directory()?;
        let place = super::tree::Tree::of_root()?.locate("/run")?; // any directory
        attach_mount(root.as_fd(), place.as_fd())?;
        fchdir(root.as_fd())?;
        pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        Ok(chdir("/")?)
    };
    empty_root().context(|| "leave the guest's mounts".to_owned())?;
    keep_capabilities(CapabilitySet::empty())
}

/// Of those that the caller has.
fn keep_capabilities(keep: CapabilitySet) -> Result<()> {
    let keep_of = || -> rustix::io::Result<()> {
        let kept = capabilities(None)?.permitted.intersection(keep);
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
    };
    keep_of().context(|| "drop capabilities".to_owned())
}

/// In a container's first process: stays as its init and has a child run the program.
pub fn run_beneath(
    program: Program,
    ourselves: &(u64, u64),
    filter: Option<&Filter>,
    report: &Reporter,
) -> Result<Infallible> {
    block_signals()?;
    // In a pid namespace of others it is not process 1, and would not be given orphans.
    set_child_subreaper(Some(getpid())).context(|| "become a subreaper".to_owned())?;
    let child = clone_in_child(run, (program, ourselves, filter, report))
        .context(|| "clone the program's process".to_owned())?;
    // The report's end is what tells PID 1 that the program runs, so none may be held here.
    close_all_but(&[child.pidfd.as_fd()]).context(|| "close descriptors".to_owned())?;
    keep_capabilities(CapabilitySet::KILL)?; // the program may become another user
    tend(Some(child))
}

type Run<'a> = (Program, &'a (u64, u64), Option<&'a Filter>, &'a Reporter);

fn run((program, ourselves, filter, report): Run<'_>) -> ! {
    let run = || -> Result<Infallible> {
        lead_terminal().context(|| "lead the terminal".to_owned())?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
            .context(|| "reset signals".to_owned())?;
        program.run(ourselves, filter)
    };
    end(report, run())
}

/// What is typed is for the program: its group is the foreground one, and a signal of the terminal's reaches it once.
fn lead_terminal() -> rustix::io::Result<()> {
    setpgid(None, None)?;
    let stdin = rustix::stdio::stdin();
    if isatty(stdin) { tcsetpgrp(stdin, getpid()) } else { Ok(()) }
}

fn block_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .context(|| "block signals".to_owned())
}

/// Reaps for ever, or until the program has ended.
fn tend(program: Option<Child>) -> ! {
    loop {
        while let Some((pid, status)) = reap_next() {
            if program.as_ref().is_some_and(|program| program.pid == pid) {
                exit_now(status.code());
            }
        }
        let Ok(signal) = wait_for_signal() else { continue };
        if let Some(program) = program.as_ref().filter(|_| signal != SIGCHLD) {
            // It may have ended a moment ago, or be another user's by its own doing.
            pidfd_send_signal(program.pidfd.as_fd(), signal).unwrap_or_default();
        }
    }
}
