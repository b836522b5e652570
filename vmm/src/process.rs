//! Children that never outlive their owner, unless a machine says so: QEMU and the helper daemons.
//!
//! A child that is tied (see `program`) must be gone when its owner is, however the owner ends. `Drop` sees to it when
//! the owner lives long enough; for SIGKILL the kernel must: PR_SET_PDEATHSIG, see prctl(2). Setting it between fork and
//! exec takes `unsafe`, which this workspace keeps out of host crates, so util-linux's `setpriv` sets it and becomes the
//! program; it costs about 2 ms and keeps the pid. Two traps of that signal are closed:
//!
//! - the owner may die before the signal is set: a shell compares its parent with the owner's pid after it is set;
//! - the signal is sent when the *thread* that forked ends: all children are forked by one thread that never ends.
//!
//! Children are process groups of their own (a Ctrl-C in the owner's terminal is the owner's business). The exit is
//! known by pidfd, and only this file reaps.
//!
//! A child that is loose lives on for an heir, which finds it by its `mark` and knows of its end by pidfd too, though not
//! how it ended.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::mark::has_mark;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended itself, with this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
    /// It has ended; how, only a parent is told, and it was taken over from another owner.
    Unknown,
}

impl Exit {
    /// Whether it ended itself, content.
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Status(code),
            (None, Some(signal)) => Self::Signal(signal),
            // waitid(2) reports an exit as one of the two; the raw value keeps what it said.
            (None, None) => Self::Status(status.into_raw()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "ended with status {code}"),
            Self::Signal(9) => {
                f.write_str("was killed by SIGKILL (by hand, or by the host's OOM killer)")
            }
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Unknown => f.write_str("has ended"),
        }
    }
}

/// How long a killed child is waited for: longer only if the kernel holds it in an uninterruptible sleep.
pub(crate) const REAP_DEADLINE: Duration = Duration::from_secs(5);

/// A running child, killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(Child),
    /// Another owner's child.
    Adopted,
    Ended(Exit),
}

impl Process {
    /// Starts `command` from the lasting thread. Its own process group; stdin, stdout and stderr are the caller's
    /// choice.
    ///
    /// # Errors
    /// [`Error::Io`] if the program cannot be started or watched.
    pub fn spawn(name: &'static str, mut command: Command) -> Result<Self> {
        command.process_group(0);
        let operation = format!("start {name} by {:?}", command.get_program());
        let child = spawn_from_lasting_thread(command).map_err(Error::io(operation))?;
        let mut child = KillOnError(Some(child));
        let pid = child.0.as_ref().map_or(0, Child::id);
        let pidfd = watch(pid).map_err(Error::io(format!("watch {name}")))?;
        let state = match child.0.take() {
            Some(child) => State::Running(child),
            None => State::Ended(Exit::Status(0)),
        };
        Ok(Self { name, pid, pidfd, state: Mutex::new(state) })
    }

    /// Takes over a loose child of an owner that is gone. `None`: it has ended.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be watched.
    pub fn adopt(name: &'static str, pid: u32, mark: &Path) -> Result<Option<Self>> {
        let pidfd = match watch(pid) {
            Ok(pidfd) => pidfd,
            Err(err) if is_gone(&err) => return Ok(None),
            Err(err) => return Err(Error::io(format!("watch {name}"))(err)),
        };
        // Asked after the pidfd was taken: what it stands for has the mark, whoever had that pid before.
        let ours = has_mark(pid, mark);
        Ok(ours.then_some(Self { name, pid, pidfd, state: Mutex::new(State::Adopted) }))
    }

    /// The process id: the kernel's, valid until the process was waited for.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The writing end of its stdin, if piped and not taken before.
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        match &mut *self.state() {
            State::Running(child) => child.stdin.take(),
            State::Adopted | State::Ended(_) => None,
        }
    }

    /// The reading end of its stdout, if piped and not taken before.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        match &mut *self.state() {
            State::Running(child) => child.stdout.take(),
            State::Adopted | State::Ended(_) => None,
        }
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        let mut state = self.state();
        match &mut *state {
            State::Ended(exit) => Some(*exit),
            State::Adopted => {
                let ended = ends_within(self.pidfd.get_ref(), Duration::ZERO);
                ended.unwrap_or(false).then(|| {
                    *state = State::Ended(Exit::Unknown);
                    Exit::Unknown
                })
            }
            State::Running(child) => {
                let exit = match child.try_wait() {
                    Ok(status) => status?.into(),
                    // Cannot be: nobody else reaps our child. What is lost is the status alone.
                    Err(err) => {
                        log::warn!("wait for {}: {err}", self.name);
                        Exit::Status(-1)
                    }
                };
                *state = State::Ended(exit);
                Some(exit)
            }
        }
    }

    /// Waits until it has ended. Any number of tasks may wait.
    pub async fn wait(&self) -> Exit {
        loop {
            if let Some(exit) = self.exit() {
                return exit;
            }
            match self.pidfd.readable().await {
                // A pidfd stays readable from the exit on: `exit` above has the answer.
                Ok(mut guard) => guard.retain_ready(),
                // Only when the runtime is going away: this task will not be polled again.
                Err(err) => {
                    log::debug!("watch {}: {err}", self.name);
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Sends SIGKILL, if it still runs. The exit is a fact only when [`Process::wait`] says so.
    pub fn kill(&self) {
        let killed = match &mut *self.state() {
            State::Running(child) => child.kill(),
            State::Adopted => match pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(err) => Err(err.into()),
            },
            State::Ended(_) => Ok(()),
        };
        if let Err(err) = killed {
            log::warn!("kill {}: {err}", self.name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock, and the state is whole at any point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit().is_some() {
            return;
        }
        self.kill();
        let polled = ends_within(self.pidfd.get_ref(), REAP_DEADLINE);
        if polled.is_err() || self.exit().is_none() {
            log::error!("kill {}: pid {} has not ended", self.name, self.pid);
        }
    }
}

/// Holds a child between its start and the moment when a [`Process`] owns it.
struct KillOnError(Option<Child>);

impl Drop for KillOnError {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take()
            && let Err(err) = child.kill().and_then(|()| child.wait().map(drop))
        {
            log::error!("kill a child that cannot be watched: {err}");
        }
    }
}

/// An `OwnedFd` names the same descriptor until it is dropped, which is what the deprecation is about; the other
/// constructor is unsafe.
#[expect(deprecated, reason = "sound for OwnedFd, and safe")]
fn watch(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(open_pidfd(pid)?)
}

pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// No process has that pid.
pub(crate) fn is_gone(err: &io::Error) -> bool {
    Errno::from_io_error(err) == Some(Errno::SRCH)
}

/// Whether the process has ended, or does so in time.
pub(crate) fn ends_within(pidfd: &OwnedFd, time: Duration) -> io::Result<bool> {
    let time = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&time))? > 0)
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Forks on a thread that ends only with the process, because the death signal is bound to it.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("spawner".into()).stack_size(256 << 10);
        if let Err(err) = thread.spawn(move || serve_spawns(queue)) {
            log::error!("start the spawner thread: {err}"); // the queue is dropped: every job says so
        }
        jobs
    });
    let (reply, result) = mpsc::channel();
    let gone = || io::Error::other("the spawner thread did not start");
    spawner.send((command, reply)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

fn serve_spawns(queue: mpsc::Receiver<Job>) {
    for (mut command, reply) in queue {
        // The asker waits for the reply, so it is there; if it is not, the child is dropped and left to init.
        if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn())
            && let Err(err) = child.kill()
        {
            log::error!("kill a child that nobody waits for: {err}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::program::tied;

    #[tokio::test]
    async fn an_exit_is_known_with_its_status() {
        let mut command = tied(Path::new("sh"));
        command.args(["-c", "exit 7"]);
        let process = Process::spawn("sh", command).unwrap();
        assert_eq!(process.wait().await, Exit::Status(7));
        assert_eq!(process.wait().await, Exit::Status(7), "it is held");
    }

    #[tokio::test]
    async fn a_killed_child_says_so() {
        let mut command = tied(Path::new("sleep"));
        command.arg("1000");
        let process = Process::spawn("sleep", command).unwrap();
        process.kill();
        assert_eq!(process.wait().await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn a_dropped_child_is_gone_and_reaped() {
        let mut command = tied(Path::new("sleep"));
        command.arg("1000");
        let process = Process::spawn("sleep", command).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    /// The thread that asked may end; the child lives on, since another thread forked it.
    #[tokio::test]
    async fn a_child_outlives_the_thread_that_asked_for_it() {
        let runtime = tokio::runtime::Handle::current();
        let process = std::thread::spawn(move || {
            let _entered = runtime.enter();
            let mut command = tied(Path::new("sleep"));
            command.arg("1000");
            Process::spawn("sleep", command).unwrap()
        })
        .join()
        .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(process.exit(), None);
    }
}
