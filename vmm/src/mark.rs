//! The mark of a child that lives on for an heir: whose it is, in its environment.
//!
//! A pid may be another's by now, and is asked for its mark once a pidfd holds it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::error::{Error, Result};
use crate::process::{REAP_DEADLINE, ends_within, is_gone, open_pidfd};

/// In the environment of each child that is [`loose`](crate::program::loose): whose it is.
pub(crate) const MARK: &str = "HYPERSTART_VM";

/// How often [`end_marked`] looks, and how long after each look: a child that is between fork and exec has no mark yet.
const LOOKS: u32 = 2;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Whether the process has the mark. One that is gone has none.
pub(crate) fn has_mark(pid: u32, mark: &Path) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = [MARK.as_bytes(), b"=", mark.as_os_str().as_bytes()].concat();
    environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
}

/// Kills all that has the mark, and waits until it is gone. What is being started in this moment is met by the next look.
///
/// # Errors
/// [`Error::Io`] if /proc cannot be read, or one of them does not end within 5 s.
pub(crate) fn end_marked(mark: &Path) -> Result<()> {
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
    let pidfd = match open_pidfd(pid) {
        Err(err) if is_gone(&err) => return Ok(()),
        pidfd => pidfd?,
    };
    if !has_mark(pid, mark) {
        return Ok(()); // another has the pid by now
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        sent => sent?,
    }
    match ends_within(&pidfd, REAP_DEADLINE)? {
        true => Ok(()),
        false => Err(io::Error::other(format!("pid {pid} does not end"))),
    }
}
