//! bpf(2), as far as control of device access in cgroups needs it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::checked;

/// struct bpf_insn: the registers are two nibbles, the destination in the low one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Cgroups below may attach programs of their own, and all must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of union bpf_attr for BPF_PROG_LOAD; the kernel takes what is not there as 0.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads a program that decides on device access.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let instruction_count =
        u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let attr = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64, // calls no helper, so any will do
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `attr` is a live bpf_attr of the size that is said; `instructions` points to `instruction_count` live
    // instructions and `license` to a C string of static life. The kernel copies all three.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_ref(&attr), size_of::<Load>())
    };
    let fd = RawFd::try_from(checked(result)?).map_err(io::Error::other)?;
    // SAFETY: BPF_PROG_LOAD has just made this descriptor (close-on-exec) and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The head of union bpf_attr for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Puts a loaded program on a cgroup; the cgroup keeps it.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` is a live bpf_attr of the size that is said, and holds no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            std::ptr::from_ref(&attr),
            size_of::<Attach>(),
        )
    };
    checked(result).map(drop)
}
