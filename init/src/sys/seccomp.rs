//! seccomp(2): filters of system calls.

use std::io;

use super::checked;

/// struct sock_filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub value: u32,
}

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;

/// struct sock_fprog.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Adds a filter to those of this thread; with SECCOMP_FILTER_FLAG_TSYNC to those of all.
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: `program` is a live sock_fprog that points to `length` live instructions. The kernel copies and checks
    // them; a filter changes what later system calls do and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    match checked(result)? {
        0 => Ok(()),
        // A thread that could not follow, by TSYNC: there is one thread, so this is a fault of ours.
        thread => Err(io::Error::other(format!("thread {thread} has other filters"))),
    }
}
