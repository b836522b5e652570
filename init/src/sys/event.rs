//! Descriptors in the event loop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::checked;

/// Gives a descriptor to the loop, for reading and for writing.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register_for(fd, Interest::READABLE | Interest::WRITABLE)
}

/// Gives a descriptor to the loop.
pub fn register_for(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, is owned by the AsyncFd from here on, and is the same descriptor until it is dropped:
    // nothing here replaces what is inside an AsyncFd.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}

/// Sets how much is buffered of what comes in on a vsock, which tells the peer (vsock(7), SO_VM_SOCKETS_BUFFER_SIZE).
pub fn tell_credit(vsock: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    const SO_VM_SOCKETS_BUFFER_SIZE: libc::c_int = 0; // linux/vm_sockets.h
    const LENGTH: libc::socklen_t = 8;
    let value = &raw const bytes;
    // SAFETY: the descriptor is borrowed, and the value is the u64 that the option takes, read during the call alone.
    let result = unsafe {
        libc::setsockopt(
            vsock.as_raw_fd(),
            libc::AF_VSOCK,
            SO_VM_SOCKETS_BUFFER_SIZE,
            value.cast(),
            LENGTH,
        )
    };
    checked(result.into()).map(drop)
}
