//! Children that never outlive their owner, unless a machine says so: QEMU and the helper daemons.
//!
//! A child that is [`tied`] must be gone when its owner is, however the owner ends. `Drop` sees to it when the owner lives long
//! enough; for SIGKILL the kernel must: PR_SET_PDEATHSIG, see prctl(2). Setting it between fork and exec takes
//! `unsafe`, which this workspace keeps out of host crates, so util-linux's `setpriv` sets it and becomes the
//! program; it costs about 2 ms and keeps the pid. Two traps of that signal are closed here:
//!
//! - the owner may die before the signal is set: a shell compares its parent with the owner's pid after it is set;
//! - the signal is sent when the *thread* that forked ends: all children are forked by one thread that never ends.
//!
//! Children are process groups of their own (a Ctrl-C in the owner's terminal is the owner's business). The exit is
//! known by pidfd, and only this file reaps.
//!
//! A child that is [`loose`] lives on for an heir, which finds it by the mark in its environment and knows of its end by
//! pidfd too, though not how it ended.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};

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

/// How long `Drop` waits for a killed child: longer only if the kernel holds it in an uninterruptible sleep.
const REAP_DEADLINE: Duration = Duration::from_secs(5);

/// How often [`end_marked`] looks, and how long after each look: a child that is between fork and exec has no mark yet.
const LOOKS: u32 = 2;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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

    /// Takes over a [`loose`] child of an owner that is gone. `None`: it has ended.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be watched.
    pub fn adopt(name: &'static str, pid: u32, mark: &Path) -> Result<Option<Self>> {
        let pidfd = match watch(pid) {
            Ok(pidfd) => pidfd,
            Err(err) if err.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
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
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                let mut pidfd = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
                let ended = poll(&mut pidfd, Some(&now)).is_ok_and(|ready| ready > 0);
                ended.then(|| {
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
        let timeout = Timespec { tv_sec: REAP_DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
        let polled = poll(&mut [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)], Some(&timeout));
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
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    AsyncFd::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Checks, once the death signal is set, that the owner has not died before; then becomes the program.
const RUN_IF_OWNER_LIVES: &str = r#"test "$PPID" = "$1" || exit 1; shift; exec "$@""#;

/// What root's children keep of its capabilities: to open files whoever owns them, and to give files in a share the
/// owners, modes and attributes that the guest says. Not mknod: no guest makes a device on the host.
const KEPT: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+setfcap";

/// A command for `program` that the kernel kills when this process dies, and that can get no privilege any more.
pub fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--no-new-privs"]);
    if may_drop_capabilities() {
        command.args(["--bounding-set", KEPT]);
    }
    command.args(["--", "/bin/sh", "-c", RUN_IF_OWNER_LIVES, "sh"]);
    command.arg(std::process::id().to_string()).arg(program);
    command
}

/// In the environment of each [`loose`] child: whose it is.
const MARK: &str = "HYPERSTART_VM";

/// A command for `program` that lives on when this process dies, and that can get no privilege any more. It is found by
/// its `mark`, the directory that its owner has for it.
pub fn loose(program: &Path, mark: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs");
    if may_drop_capabilities() {
        command.args(["--bounding-set", KEPT]);
    }
    command.arg("--").arg(program).env(MARK, mark);
    command
}

/// Whether the process has the mark. One that is gone has none.
fn has_mark(pid: u32, mark: &Path) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = [MARK.as_bytes(), b"=", mark.as_os_str().as_bytes()].concat();
    environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
}

/// Kills all that has the mark, and waits until it is gone. What is being started in this moment is met by the next look.
///
/// # Errors
/// [`Error::Io`] if /proc cannot be read, or one of them does not end within 5 s.
pub fn end_marked(mark: &Path) -> Result<()> {
    let operation = || format!("end what is left of {mark:?}");
    for _ in 0..LOOKS {
        let processes = std::fs::read_dir("/proc").map_err(Error::io(operation()))?;
        for entry in processes.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if has_mark(pid, mark) {
                end(pid, mark).map_err(Error::io(operation()))?;
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn end(pid: u32, mark: &Path) -> io::Result<()> {
    let pid_raw =
        i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = match pidfd_open(pid_raw, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        pidfd => pidfd?,
    };
    if !has_mark(pid, mark) {
        return Ok(()); // another has the pid by now
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        sent => sent?,
    }
    let deadline = Timespec { tv_sec: REAP_DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&deadline))? {
        0 => Err(io::Error::other(format!("pid {pid} does not end"))),
        _ => Ok(()),
    }
}

/// Whether we have capabilities that a child would inherit, as root does, and the one to take some away.
fn may_drop_capabilities() -> bool {
    const SETPCAP: u64 = 1 << 8;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default(); // without it none are dropped
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    rustix::process::geteuid().is_root() && effective.is_some_and(|set| set & SETPCAP != 0)
}

/// Where `name` is: itself if it holds a slash, else the first executable of that name in `directories`.
pub fn find_program(
    name: &Path,
    directories: impl IntoIterator<Item = PathBuf>,
) -> Option<PathBuf> {
    let is_executable = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if name.components().count() > 1 {
        return is_executable(name).then(|| name.to_owned());
    }
    directories.into_iter().map(|directory| directory.join(name)).find(|path| is_executable(path))
}

/// The directories of `PATH`.
pub fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
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
    use super::*;

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

    /// The shell in between refuses to become the program when its parent is not the owner.
    #[tokio::test]
    async fn a_child_whose_owner_died_first_does_not_start() {
        let mut command = Command::new("sh");
        command.args(["-c", RUN_IF_OWNER_LIVES, "sh", "1", "sleep", "1000"]);
        assert_eq!(Process::spawn("sh", command).unwrap().wait().await, Exit::Status(1));
    }

    #[test]
    fn programs_are_found_by_path_or_name() {
        assert_eq!(find_program(Path::new("/bin/sh"), []), Some("/bin/sh".into()));
        assert_eq!(find_program(Path::new("/etc/passwd"), []), None, "not executable");
        assert_eq!(
            find_program(Path::new("sh"), ["/nowhere".into(), "/bin".into()]),
            Some("/bin/sh".into())
        );
        assert_eq!(find_program(Path::new("no-such-program"), search_path()), None);
    }
}
