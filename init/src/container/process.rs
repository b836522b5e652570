//! One process of a container: its streams, its exit, a way to signal it.
//!
//! A process is cloned, watched in the same turn, and waited for until it says that it is set up. What goes wrong until
//! then kills it (`Unfinished`), so that no half-made process is left.

use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use tokio::time::timeout;

use super::cgroup;
use crate::clock::now_ns;
use crate::error::{Code, Context, Error, Result};
use crate::reaper::{Exit, ExitStatus, Reaper};
use crate::report::{Listener, Report};
use crate::stdio::{ChildStdio, Sizes, Stdio};
use crate::sys::process::{Child, pidfd_send_signal};

/// Mounts of a host that does not answer are what could hang a set-up.
pub const SET_UP_DEADLINE: Duration = Duration::from_secs(30);

pub struct Process {
    pub stdio: Stdio,
    exit: Exit,
    /// The host has been told the exit.
    pub waited: Cell<bool>,
    /// It has a terminal, not pipes.
    pub terminal: bool,
    /// When its program was let go, by CLOCK_REALTIME; none: not yet.
    started_ns: Cell<Option<u64>>,
    pid: Pid, // as PID 1 sees it
    pidfd: OwnedFd,
}

impl Process {
    /// Waits until it has exited; all that it wrote can then be read.
    pub async fn ended(&self) -> ExitStatus {
        let status = self.exit.wait().await;
        self.stdio.drain();
        status
    }

    /// How it has exited, if it has; all that it wrote can then be read.
    pub fn status(&self) -> Option<ExitStatus> {
        self.exit.status().inspect(|_| self.stdio.drain())
    }

    pub fn exited_ns(&self) -> Option<u64> {
        self.exit.at_ns()
    }

    /// As PID 1 sees it; none once it was reaped, since another process may have the number by then.
    pub fn pid(&self) -> Option<i32> {
        self.exit.status().is_none().then_some(self.pid.as_raw())
    }

    pub fn started_ns(&self) -> Option<u64> {
        self.started_ns.get()
    }

    pub fn mark_started(&self) {
        self.started_ns.set(Some(now_ns()));
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// NOT_FOUND once it has exited.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if !(0..=64).contains(&signal) {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("signal {signal}: no such signal"),
            ));
        }
        pidfd_send_signal(self.pidfd(), signal).context(|| format!("signal {signal}"))
    }

    /// Whether it has ended, be it that nobody has reaped it yet.
    pub fn has_ended(&self) -> bool {
        let mut pidfd = [PollFd::new(self.pidfd(), PollFlags::POLLIN)];
        self.status().is_some() || poll(&mut pidfd, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// The cgroup that it is in.
    pub fn cgroup(&self) -> Result<OwnedFd> {
        // Not reaped, as nobody has seen its exit in this turn; so the pid is still its own.
        cgroup::of_process(self.pid).context(|| "find the first process's cgroup".to_owned())
    }

    /// Whether the signal would do anything to it: caught, blocked to be fetched later, or ignored by its own choice.
    pub fn takes(&self, signal: i32) -> Result<bool> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).context(|| format!("read {path:?}"))?;
        Ok(takes_signal(&status, signal))
    }
}

/// The masks of proc_pid_status(5).
fn takes_signal(status: &str, signal: i32) -> bool {
    let masks = status.lines().filter_map(|line| {
        let (name, mask) = line.split_once(':')?;
        matches!(name, "SigBlk" | "SigIgn" | "SigCgt")
            .then(|| u64::from_str_radix(mask.trim(), 16).ok())
            .flatten()
    });
    let all = masks.fold(0, |all, mask| all | mask);
    signal > 0 && all.checked_shr(signal.cast_unsigned() - 1).is_some_and(|rest| rest & 1 == 1)
}

/// PID 1's ends of the streams, as far as they are there before the child.
pub enum Streams {
    Pipes(Stdio),
    /// The child makes it.
    Terminal(Sizes),
}

/// PID 1's and the child's ends of the streams.
pub fn streams(terminal: bool, sizes: Sizes) -> Result<(Streams, Option<ChildStdio>)> {
    if terminal {
        return Ok((Streams::Terminal(sizes), None));
    }
    let (ours, childs) = Stdio::pipes(sizes)?;
    Ok((Streams::Pipes(ours), Some(childs)))
}

/// A child that is not a process of the container yet.
pub struct Unfinished {
    child: Option<Child>,
    exit: Exit,
}

impl Unfinished {
    /// Call it in the turn of the clone.
    pub fn new(child: Child, reaper: &Reaper) -> Self {
        let exit = reaper.watch(child.pid);
        Self { child: Some(child), exit }
    }

    /// Waits until it is set up, at most until the deadline, if there is one. Gives the terminal that it has made.
    pub async fn set_up(
        &self,
        listener: &Listener,
        deadline: Option<Duration>,
    ) -> Result<Option<OwnedFd>> {
        match deadline {
            Some(deadline) => timeout(deadline, self.wait_ready(listener)).await.map_err(|_| {
                let seconds = deadline.as_secs();
                let message = format!("set-up: not done after {seconds} s");
                Error::new(Code::DeadlineExceeded, message)
            })?,
            None => self.wait_ready(listener).await,
        }
    }

    /// It is to live on.
    pub fn finish(mut self) -> Result<Child> {
        self.child.take().ok_or_else(|| Error::new(Code::Internal, "set-up: no child"))
    }

    /// Waits as `set_up` does; it is then a process of the container.
    pub async fn ready(
        self,
        listener: &Listener,
        streams: Streams,
        deadline: Option<Duration>,
    ) -> Result<Process> {
        let master = self.set_up(listener, deadline).await?;
        let terminal = master.is_some();
        let stdio = match (streams, master) {
            (Streams::Pipes(pipes), None) => pipes,
            (Streams::Terminal(sizes), Some(master)) => Stdio::tty(master, sizes)?,
            (Streams::Pipes(_), Some(_)) | (Streams::Terminal(_), None) => {
                return Err(Error::new(
                    Code::Internal,
                    "set-up: pipes or a terminal, and not both",
                ));
            }
        };
        let exit = self.exit.clone();
        let Child { pid, pidfd } = self.finish()?;
        let (waited, started_ns) = (Cell::new(false), Cell::new(None));
        Ok(Process { stdio, exit, waited, terminal, started_ns, pid, pidfd })
    }

    async fn wait_ready(&self, listener: &Listener) -> Result<Option<OwnedFd>> {
        match listener.next().await? {
            Some(Report::Ready(master)) => Ok(master),
            Some(Report::Failed(err)) => Err(err),
            None => Err(died(self.exit.wait().await)),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(child) = &self.child else { return };
        if let Err(err) = child.kill() {
            log::debug!("kill unfinished process {}: {err}", child.pid); // most likely it has ended itself
        }
    }
}

/// Waits until a process that was let go runs its program.
pub async fn executed(listener: &Listener) -> Result<()> {
    match listener.next().await? {
        None => Ok(()), // execve has closed the socket
        Some(Report::Failed(err)) => Err(err),
        Some(Report::Ready(_)) => Err(Error::new(Code::Internal, "set-up: ready a second time")),
    }
}

fn died(status: ExitStatus) -> Error {
    Error::new(Code::Internal, format!("set-up: {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_when_caught_blocked_or_ignored() {
        let status = "Name:\tsh\nSigPnd:\tffffffffffffffff\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000001000\n\
                      SigCgt:\t0000000000004002\n";
        for signal in [2, 13, 15, 17] {
            assert!(takes_signal(status, signal), "{signal}");
        }
        for signal in [1, 9, 64, 65, 0, -1] {
            assert!(!takes_signal(status, signal), "{signal}");
        }
        assert!(!takes_signal("", 15));
    }
}
