//! The only unsafe code of PID 1: the syscalls that have no safe wrapper elsewhere.
//!
//! One syscall a wrapper: it takes and returns owned or borrowed types, retries EINTR where the call can give it, and
//! decides nothing. Whatever nix or rustix wraps safely (openat2, fsopen, move_mount, setns, capset, SCM_RIGHTS,
//! TIOCGPTPEER, reboot) is called through them where it is needed and does not appear here.

#![allow(unsafe_code)] // the one place: see above

pub mod bpf;
#[cfg_attr(target_arch = "x86_64", path = "clock_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "clock_aarch64.rs")]
pub mod clock;
pub mod event;
pub mod filesystem;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod random;
pub mod scheduling;
pub mod seccomp;
pub mod swap;
#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where boot mounts cgroup2, and where containers' cgroups are made.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// A path to what is open, for calls that take no descriptor: proc_pid_fd(5). Good where the guest's /proc is seen.
pub fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A raw syscall's result as std has it.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
