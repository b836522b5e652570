//! swapon(2) and swapoff(2), by descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use super::{checked, path_of};

/// Swaps on what is open, with the kernel's own priority.
pub fn on(file: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(path_of(file))?;
    // SAFETY: `path` is a live C string; the kernel reads it and keeps nothing of it.
    let result = unsafe { libc::syscall(libc::SYS_swapon, path.as_ptr(), 0) };
    checked(result).map(drop)
}

/// Takes it back, once all that is on it is in memory.
pub fn off(file: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(path_of(file))?;
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_swapoff, path.as_ptr()) };
    checked(result).map(drop)
}
