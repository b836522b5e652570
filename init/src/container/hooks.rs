//! A container's hooks that run in the guest (OCI "POSIX-platform Hooks"): each is told the container's state on its
//! standard input, in JSON, and must end well, in time.
//!
//! They are children of the container's first process, which waits for them; PID 1 goes on. `createContainer` runs in
//! the container's namespaces before pivot_root(2), so its paths are the guest's; `startContainer` runs in the container,
//! as who its program will be.

mod state;

use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{ioctl_fionbio, read};
use rustix::process::{Signal, chdir, kill_process_group, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::id::ContainerId;
use super::process::SET_UP_DEADLINE;
use super::program::Program;
use super::spec::{Hook, Hooks};
use crate::error::{Code, Context, Error, Result};
use crate::offload::filled_file;
use crate::reaper::{ExitStatus, reap};
use crate::sys::process::{Child, clone_in_child, close_all_but, exit_now};
use state::State;

/// How much an error says of what a hook wrote to its standard error: the end.
const STDERR_MAX: usize = 1024;

/// What a pipe holds (pipe(7)).
const PIPE_MAX: usize = 64 << 10;

/// How long a container's set-up may take with these hooks; none: one of them may take as long as it likes.
pub fn deadline(hooks: Option<&Hooks>) -> Option<Duration> {
    let times = hooks.iter().flat_map(|hooks| &hooks.create_container).map(|hook| hook.timeout);
    times.sum::<Option<Duration>>().map(|time| time.saturating_add(SET_UP_DEADLINE))
}

/// Runs the hooks of one container. Made while the guest's paths are there.
pub struct HookRunner<'a> {
    hooks: &'a Hooks,
    state: State<'a>,
    null: OwnedFd,
    ourselves: (u64, u64),
}

impl<'a> HookRunner<'a> {
    pub fn new(
        hooks: Option<&'a Hooks>,
        id: &'a ContainerId,
        root: &'a str,
        ourselves: (u64, u64),
    ) -> Result<Option<Self>> {
        let Some(hooks) = hooks else { return Ok(None) };
        let pid = fs::read_link("/proc/self").context(|| "read \"/proc/self\"".to_owned())?;
        let state = State {
            oci_version: &hooks.oci_version,
            id: id.as_str(),
            pid: pid.to_string_lossy().into_owned(), // as the guest has it
            bundle: bundle(root),
            annotations: &hooks.annotations,
        };
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .context(|| "open \"/dev/null\"".to_owned())?;
        Ok(Some(Self { hooks, state, null, ourselves }))
    }

    pub fn create_container(&self) -> Result<()> {
        self.run_all("createContainer", "creating", &self.hooks.create_container)
    }

    pub fn start_container(&self) -> Result<()> {
        self.run_all("startContainer", "created", &self.hooks.start_container)
    }

    /// In their order; the first that fails is the last that runs.
    fn run_all(&self, kind: &str, status: &str, hooks: &[Hook]) -> Result<()> {
        for (at, hook) in hooks.iter().enumerate() {
            self.run(status, hook).context(|| format!("hooks.{kind}[{at}] {:?}", hook.path))?;
        }
        Ok(())
    }

    fn run(&self, status: &str, hook: &Hook) -> Result<()> {
        let stdin = filled_file("state", self.state.json(status).as_bytes())?.into();
        let (ours, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        ioctl_fionbio(&ours, true)?;
        let null = self.null.try_clone()?;
        let spec = Spec { hook: hook.clone(), stdin, null, stderr, ourselves: self.ourselves };
        let mut spec = Some(spec);
        let child = clone_in_child(become_hook, &mut spec).context(|| "clone".to_owned())?;
        drop(spec); // the child's end of the pipe
        let mut said = Tail::default();
        let ended = wait(&child, &ours, hook.timeout, &mut said)?;
        let how = match ended {
            Some(ExitStatus::Exited(0)) => return Ok(()),
            Some(status) => status,
            None => {
                let seconds = hook.timeout.unwrap_or_default().as_secs();
                let message = format!("not done after {seconds} s{}", said.text());
                return Err(Error::new(Code::DeadlineExceeded, message));
            }
        };
        Err(Error::new(Code::FailedPrecondition, format!("{how}{}", said.text())))
    }
}

/// The directory that the root is in, as a bundle has it.
fn bundle(root: &str) -> &str {
    match root.trim_end_matches('/').rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => parent,
        _ => "/",
    }
}

/// Waits for a hook's end, reading what it says; none: it took too long, and was killed with its group.
fn wait(
    child: &Child,
    stderr: &OwnedFd,
    timeout: Option<Duration>,
    said: &mut Tail,
) -> Result<Option<ExitStatus>> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut is_open = true;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let has_ended = poll_both(child.pidfd.as_fd(), is_open.then_some(stderr.as_fd()), left)?;
        is_open = is_open && said.read(stderr)?;
        if has_ended {
            return reap(child.pidfd.as_fd()).map(Some);
        }
        if left == Some(Duration::ZERO) {
            kill(child)?;
            reap(child.pidfd.as_fd())?;
            return Ok(None);
        }
    }
}

/// Waits until the process has ended, which is said, or there is something to read, or the time is over.
fn poll_both(
    pidfd: BorrowedFd<'_>,
    stderr: Option<BorrowedFd<'_>>,
    left: Option<Duration>,
) -> Result<bool> {
    let mut fds = vec![PollFd::new(pidfd, PollFlags::POLLIN)];
    fds.extend(stderr.map(|stderr| PollFd::new(stderr, PollFlags::POLLIN)));
    // A longer time than poll(2) takes is polled in pieces.
    let left = left.map(|left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    match poll(&mut fds, left.unwrap_or(PollTimeout::NONE)) {
        Err(Errno::EINTR) => Ok(false),
        polled => {
            polled?;
            let first = fds.first().and_then(PollFd::any);
            Ok(first.unwrap_or(false))
        }
    }
}

/// The hook leads a session, and so a process group, from its first moment on; should that not have come, it dies alone.
fn kill(child: &Child) -> Result<()> {
    let kill_group = || match rustix::process::Pid::from_raw(child.pid.as_raw()) {
        Some(group) => kill_process_group(group, Signal::KILL),
        None => Ok(()),
    };
    match kill_group() {
        Ok(()) => Ok(()),
        Err(_) => Ok(child.kill()?),
    }
}

/// The end of what a hook has written.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads what is there, as much as a pipe holds: who writes for ever is not listened to for ever. False at the end
    /// of the file.
    fn read(&mut self, from: &OwnedFd) -> Result<bool> {
        let mut buffer = [0; 1024];
        for _ in 0..PIPE_MAX / buffer.len() {
            match read(from, &mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.0.extend(buffer.iter().take(length));
                    let too_many = self.0.len().saturating_sub(STDERR_MAX);
                    self.0.drain(..too_many);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// For the end of an error.
    fn text(&self) -> String {
        match String::from_utf8_lossy(&self.0).trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }
}

/// What a hook's process is made from.
struct Spec {
    hook: Hook,
    stdin: OwnedFd,
    null: OwnedFd,
    stderr: OwnedFd,
    ourselves: (u64, u64),
}

/// The entry of a hook's process. Why it could not run is said where the hook would have said it.
fn become_hook(spec: &mut Option<Spec>) -> ! {
    let Some(spec) = spec.take() else { exit_now(126) };
    match try_become_hook(spec) {
        Ok(never) => match never {},
        Err(err) => {
            let written = rustix::io::write(rustix::stdio::stderr(), err.message().as_bytes());
            exit_now(if written.is_ok() { 127 } else { 126 })
        }
    }
}

fn try_become_hook(spec: Spec) -> Result<Infallible> {
    let Spec { hook, stdin, null, stderr, ourselves } = spec;
    dup2_stdin(&stdin)?;
    dup2_stdout(&null)?;
    dup2_stderr(&stderr)?;
    setsid()?;
    close_all_but(&[])?;
    chdir("/")?;
    umask(Mode::from_raw_mode(0o022));
    Program::exact(hook.path, hook.args, hook.env).run(&ourselves, None)
}

#[cfg(test)]
mod tests;
