//! mount_setattr(2), the one call of the mount API that rustix lacks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// What to change on a mount (struct mount_attr): `MOUNT_ATTR_*` bits to set and to clear, `MS_*` propagation or 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    userns_fd: u64, // read with MOUNT_ATTR_IDMAP only
}

impl MountAttr {
    pub const fn new(set: u64, clear: u64) -> Self {
        Self { set, clear, propagation: 0, userns_fd: 0 }
    }

    pub const fn propagation(propagation: u64) -> Self {
        Self { set: 0, clear: 0, propagation, userns_fd: 0 }
    }

    /// Shows the owners of files as the user namespace maps them. The descriptor must stay open until the call.
    pub fn idmap(user_namespace: BorrowedFd<'_>) -> Self {
        let userns_fd = user_namespace.as_raw_fd().cast_unsigned().into();
        Self { set: libc::MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns_fd }
    }
}

/// Changes the mount whose root `mount` is, or with `recursive` all mounts of its tree.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string of static life, and `attr` is a live struct mount_attr of exactly the size that
    // is said; the kernel reads both and keeps neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    checked(result).map(drop)
}
