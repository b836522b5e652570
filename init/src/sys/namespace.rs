//! ioctl_ns(2), the one call about namespaces that rustix and nix lack.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sched::CloneFlags;

use super::checked;

const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Which kind of namespace a descriptor is of: its `CLONE_NEW*`.
pub fn namespace_type(namespace: BorrowedFd<'_>) -> io::Result<CloneFlags> {
    // SAFETY: NS_GET_NSTYPE takes no argument; another kind of file does not know the request and says so.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) };
    let kind = checked(kind.into())?;
    Ok(CloneFlags::from_bits_retain(i32::try_from(kind).map_err(io::Error::other)?))
}
