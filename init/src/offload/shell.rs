//! The shell of an image that carries one, for a debug console: root of the guest itself, outside of every container.
//!
//! It has a session, a mount namespace in which the guest's root may be executed (PID 1's own may not), and its streams
//! are one end of a socket pair. The default image has no shell, so there is none to be had.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{chdir, execve};
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::tool::protect_root;
use crate::error::{Context, Result};
use crate::sys::process::{Child, CloneArgs, clone_child, close_all_but, exit_now, reset_sigpipe};

const SHELL: &CStr = c"/bin/sh";
const WORDS: [&CStr; 2] = [c"sh", c"-i"];
const ENVIRONMENT: [&CStr; 4] =
    [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin", c"HOME=/root", c"TERM=linux", c"PS1=guest # "];

/// Whether this image has one.
pub fn is_there() -> bool {
    Path::new("/bin/sh").exists()
}

/// Starts one that reads from and writes to `stream`; the reaper does not know it yet.
pub fn start(stream: UnixStream) -> Result<Child> {
    let args = CloneArgs { namespaces: CloneFlags::empty(), cgroup: None };
    clone_child(args, become_shell, stream).context(|| "clone".to_owned())
}

fn become_shell(stream: UnixStream) -> ! {
    let Err(err) = try_become_shell(&stream);
    // Best effort: whoever is at the other end reads the reason in the shell's place.
    let _gone = io::Write::write_all(&mut &stream, format!("debug console: {err}\n").as_bytes());
    exit_now(126)
}

fn try_become_shell(stream: &UnixStream) -> Result<Infallible> {
    stream.set_nonblocking(false)?;
    dup2_stdin(stream)?;
    dup2_stdout(stream)?;
    dup2_stderr(stream)?;
    close_all_but(&[])?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    reset_sigpipe()?;
    setsid()?;
    protect_root().context(|| "make the root executable".to_owned())?;
    chdir("/root").context(|| "enter \"/root\"".to_owned())?;
    execve(SHELL, &WORDS, &ENVIRONMENT).context(|| format!("exec {SHELL:?}"))
}
