//! A program of the guest's own image, run for its output. The default image has none: who needs one brings it.
//!
//! For it the guest's root is read-only, in a mount namespace that ends with it.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::SIGXFSZ;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::execve;
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use tokio::time::timeout;

use super::{content, filled_file, memory_file};
use crate::error::{Code, Context, Error, Result};
use crate::reaper::{ExitStatus, Reaper};
use crate::report::{self, Report, Reporter};
use crate::sys::process::{CloneArgs, clone_child, close_all_but, exit_now, reset_sigpipe};

/// What it may read and write.
pub const MOST: u64 = 1 << 20;

/// Of what it said when it failed.
const COMPLAINT: usize = 1024;

const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];
const ENVIRONMENT: &CStr = c"PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// What the child needs.
struct Start {
    paths: Vec<CString>,
    words: Vec<CString>,
    input: File,
    output: File,
    complaint: File,
    report: Reporter,
}

/// Runs the program of that name with the other words and the input, and gives what it writes.
pub async fn run(
    reaper: &Reaper,
    deadline: Duration,
    words: &[&CStr],
    input: &[u8],
) -> Result<Vec<u8>> {
    let name = words.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let (output, complaint) = (memory_file()?, memory_file()?);
    let (listener, report) = report::channel()?;
    let start = Start {
        paths: DIRECTORIES
            .iter()
            .filter_map(|directory| CString::new(format!("{directory}/{name}")).ok())
            .collect(),
        words: words.iter().map(|&word| word.to_owned()).collect(),
        input: filled_file("offload", input)?,
        output: output.try_clone()?,
        complaint: complaint.try_clone()?,
        report,
    };
    let args = CloneArgs { namespaces: CloneFlags::empty(), cgroup: None };
    let child = clone_child(args, become_tool, start).context(|| "clone".to_owned())?;
    let exit = reaper.watch(child.pid);
    let ended = async {
        match listener.next().await? {
            Some(Report::Failed(err)) => Err(err),
            Some(Report::Ready(_)) | None => Ok(exit.wait().await), // execve has closed the socket
        }
    };
    let how = match timeout(deadline, ended).await {
        Ok(status) => match status? {
            ExitStatus::Exited(0) => return content(output, MOST),
            ExitStatus::Signaled(SIGXFSZ) => format!("more than {MOST} bytes of output"),
            status @ (ExitStatus::Exited(_) | ExitStatus::Signaled(_)) => status.to_string(),
        },
        Err(_elapsed) => {
            child.kill().unwrap_or_default(); // where the kernel lets nobody kill it, it is left to itself
            let message = format!("{name}: not done after {} s", deadline.as_secs());
            return Err(Error::new(Code::DeadlineExceeded, message));
        }
    };
    let complaint = content(complaint, MOST).unwrap_or_default();
    let complaint = String::from_utf8_lossy(complaint.get(..COMPLAINT).unwrap_or(&complaint));
    Err(Error::new(Code::FailedPrecondition, format!("{name}: {how}: {}", complaint.trim())))
}

fn become_tool(start: Start) -> ! {
    match try_become_tool(&start) {
        Ok(never) => match never {},
        Err(err) => {
            start.report.failed(&err);
            exit_now(126)
        }
    }
}

fn try_become_tool(start: &Start) -> Result<Infallible> {
    dup2_stdin(&start.input)?;
    dup2_stdout(&start.output)?;
    dup2_stderr(&start.complaint)?;
    close_all_but(&[start.report.as_fd()])?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    reset_sigpipe()?;
    setsid()?;
    setrlimit(Resource::RLIMIT_FSIZE, MOST, MOST)?;
    protect_root().context(|| "make the root read-only".to_owned())?;
    for path in &start.paths {
        match execve(path, &start.words, &[ENVIRONMENT]) {
            Ok(never) => match never {},
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context(|| format!("exec {path:?}")),
        }
    }
    let name = start.words.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let message = format!("the guest's image has no {name} ({})", DIRECTORIES.join(", "));
    Err(Error::new(Code::Unimplemented, message))
}

/// In a mount namespace of the caller's own: nothing is written to the root, and its programs can be run.
pub(super) fn protect_root() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    let inert = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | inert, none)
}
