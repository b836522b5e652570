//! System calls that no crate of ours wraps, made for their answer alone.
#![allow(unsafe_code)] // a raw syscall is unsafe however harmless its arguments are

use std::io;

use libc::c_long;

/// One system call. The caller answers for arguments that make the kernel write nothing of ours.
pub fn raw(number: c_long, arguments: [u64; 6]) -> io::Result<c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass plain numbers, null pointers, or a pointer to a buffer that they own and whose size they
    // say; none of the calls changes this process's memory otherwise.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The first bytes that a call writes to its buffer. The pointer is put where `place` says.
pub fn read<const N: usize>(
    number: c_long,
    mut arguments: [u64; 6],
    place: usize,
) -> io::Result<[u8; N]> {
    let mut buffer = [0_u8; N];
    let address = std::ptr::from_mut(&mut buffer).expose_provenance();
    if let Some(argument) = arguments.get_mut(place) {
        *argument = address as u64;
    }
    raw(number, arguments)?;
    Ok(buffer)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(i32),
}

/// Runs `body` in a child; its value, 0 to 255, is the exit code.
pub fn in_child(body: impl FnOnce() -> i32) -> io::Result<End> {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    // SAFETY: this program has one thread, so the child may do all that it could.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, code) => Ok(End::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => Ok(End::Killed(signal as i32)),
            other => Err(io::Error::other(format!("a child is {other:?}"))),
        },
        ForkResult::Child => {
            let code = body();
            // SAFETY: ends the child without running what the parent has yet to run.
            unsafe { libc::_exit(code) }
        }
    }
}
