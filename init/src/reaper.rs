//! Who has exited, and how: the only caller of waitid(2).
//!
//! SIGCHLD is read in a later turn of the loop than the one that cloned the child, so a pid that is watched in the
//! turn of its clone is known before it can be reaped. Whatever nobody watches is an orphan that the kernel gave to
//! PID 1: it is reaped and forgotten.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clock::now_ns;
use crate::error::{Context, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

impl ExitStatus {
    /// The one number of the wire: the exit code, or 128 + the signal, as shells say it.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// For an error.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Signaled(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// An end, and when PID 1 learned of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    status: ExitStatus,
    /// CLOCK_REALTIME.
    at_ns: u64,
}

/// A process's exit: a promise that any number of waiters can hold, during its life and after it.
#[derive(Debug, Clone)]
pub struct Exit(watch::Receiver<Option<Ended>>);

impl Exit {
    pub fn status(&self) -> Option<ExitStatus> {
        self.0.borrow().map(|ended| ended.status)
    }

    /// When it exited, by CLOCK_REALTIME; none: not yet.
    pub fn at_ns(&self) -> Option<u64> {
        self.0.borrow().map(|ended| ended.at_ns)
    }

    pub async fn wait(&self) -> ExitStatus {
        let mut receiver = self.0.clone();
        // The sender leaves the table only after it has sent a status, so a closed channel holds one.
        match receiver.wait_for(Option::is_some).await.map(|ended| *ended) {
            Ok(Some(ended)) => ended.status,
            Ok(None) | Err(_) => ExitStatus::Signaled(nix::libc::SIGKILL),
        }
    }
}

/// Reaps one child of the caller's that has ended, if there is one.
pub fn reap_next() -> Option<(Pid, ExitStatus)> {
    loop {
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Err(Errno::EINTR) => {}
            Ok(status) => return ended(status), // or nobody has: StillAlive
            Err(_) => return None,              // ECHILD
        }
    }
}

/// Waits for a child of a child of PID 1's: what that made itself, it reaps itself.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<ExitStatus> {
    loop {
        match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
            Ok(status) => {
                if let Some((_, status)) = ended(status) {
                    return Ok(status);
                } // it was asked for ends alone
            }
            Err(errno) => return Err(errno).context(|| "wait for a child".to_owned()),
        }
    }
}

fn ended(status: WaitStatus) -> Option<(Pid, ExitStatus)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, ExitStatus::Exited(code))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, ExitStatus::Signaled(signal as i32))),
        _ => None,
    }
}

#[derive(Default)]
pub struct Reaper {
    watched: RefCell<BTreeMap<i32, watch::Sender<Option<Ended>>>>,
}

impl Reaper {
    /// Takes note of a child; call it in the same turn as the clone.
    pub fn watch(&self, pid: Pid) -> Exit {
        let (sender, receiver) = watch::channel(None);
        self.watched.borrow_mut().insert(pid.as_raw(), sender);
        Exit(receiver)
    }

    /// Reaps for as long as the guest lives.
    pub async fn run(&self) -> Result<()> {
        let mut sigchld = signal(SignalKind::child()).context(|| "watch SIGCHLD".to_owned())?;
        loop {
            self.reap();
            if sigchld.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn reap(&self) {
        while let Some((pid, status)) = reap_next() {
            self.exited(pid, status);
        }
    }

    fn exited(&self, pid: Pid, status: ExitStatus) {
        match self.watched.borrow_mut().remove(&pid.as_raw()) {
            Some(sender) => {
                sender.send_replace(Some(Ended { status, at_ns: now_ns() }));
            }
            None => log::debug!("reaped orphan {pid}: {status:?}"),
        }
    }
}
