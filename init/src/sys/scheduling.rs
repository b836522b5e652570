//! How and where the caller is scheduled: the calls that nix and rustix have no wrapper for, or only a small one.

use std::io;

use super::checked;

/// struct sched_attr of sched_setattr(2), in its second version (56 bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_setattr(2) for the calling thread. The size is filled in here.
pub fn sched_setattr(attr: SchedAttr) -> io::Result<()> {
    let size = u32::try_from(size_of::<SchedAttr>()).map_err(io::Error::other)?;
    let attr = SchedAttr { size, ..attr };
    // SAFETY: `attr` is a live struct sched_attr of the size that it says; the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attr), 0) };
    checked(result).map(drop)
}

/// ioprio_set(2) for the calling thread: a class and a level within it.
pub fn ioprio_set(class: u8, level: u8) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let priority = libc::c_int::from(class) << IOPRIO_CLASS_SHIFT | libc::c_int::from(level);
    // SAFETY: three plain numbers; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) };
    checked(result).map(drop)
}

/// sched_setaffinity(2) for the calling thread, by words of bits; CPUs that the kernel does not have are passed over.
pub fn sched_setaffinity(mask: &[u64]) -> io::Result<()> {
    // SAFETY: `mask` is a live slice and the size is its own, in bytes; the kernel only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    checked(result).map(drop)
}

/// sched_getaffinity(2) of the calling thread. What the kernel does not fill in stays 0.
pub fn sched_getaffinity(mask: &mut [u64]) -> io::Result<()> {
    let size = size_of_val(mask);
    // SAFETY: `mask` is a live slice that nobody else uses, and the size is its own, in bytes.
    let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, mask.as_mut_ptr()) };
    checked(result).map(drop)
}

/// set_mempolicy(2) for the calling thread: a mode with its flags, and nodes by words of bits.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one bit less than it is told.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: `nodes` is a live slice with at least the bits that are said but the last, which the kernel does not
    // read; it keeps nothing of it.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) };
    checked(result).map(drop)
}
