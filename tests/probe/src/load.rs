//! What a process does to a guest that is more than it should: orphans, forks, memory, disks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::act::print;
use crate::{MISUSED, Outcome};

/// Children of one parent, which ends before it has waited for any of them.
const LITTER: u32 = 100;
/// Written at once.
const BLOCK: usize = 64 << 10;

/// Leaves so many processes behind that have ended: whoever is process 1 gets them.
pub fn orphans_at_once(count: u32) -> Outcome {
    let mut left = count;
    while left > 0 {
        let litter = left.min(LITTER);
        let parent = in_child(|| (0..litter).try_for_each(|_| stillborn()))?;
        match waitpid(parent, None)? {
            WaitStatus::Exited(_, 0) => left -= litter,
            status => return Err(io::Error::other(format!("{litter} forks: {status:?}"))),
        }
    }
    print(&format!("orphans={count}\n"))
}

/// Runs `work` in a child, which ends with its errno.
#[allow(unsafe_code)]
fn in_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // SAFETY: there is one thread, so the child may do whatever this process may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = work().err().map_or(0, |err| err.raw_os_error().unwrap_or(MISUSED.into()));
            // SAFETY: it takes no pointer, and nothing of this process is to be cleaned up by its child.
            unsafe { libc::_exit(code) }
        }
    }
}

/// A child that ends at once, and is not waited for. It has our memory and no time to use it, as with vfork(2): what a
/// copy costs is nothing to whoever reaps it.
#[allow(unsafe_code)]
fn stillborn() -> io::Result<()> {
    extern "C" fn end(_: *mut libc::c_void) -> libc::c_int {
        0
    }
    let mut stack = [0_u128; 256];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is aligned, and outlives the child: CLONE_VFORK holds us until it has ended.
    match unsafe { libc::clone(end, top, flags, std::ptr::null_mut()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Forks for ever, and so does each child. Where there is no room for more of them it tries again.
#[allow(unsafe_code)]
pub fn fork_bomb() -> Outcome {
    print("ready\n")?;
    loop {
        // SAFETY: there is one thread, so the child may do whatever this process may.
        match unsafe { fork() } {
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOMEM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Says `ready`, waits for the end of its input, and takes memory until it is killed.
pub fn hog() -> Outcome {
    print("ready\n")?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(vec![1; BLOCK]);
    }
}

/// Writes into a file until its disk is full: `written=BYTES`, and it stays.
pub fn fill(path: &str) -> Outcome {
    let mut file = File::create(path)?;
    let block = vec![0xa5; BLOCK];
    let mut written = 0_u64;
    loop {
        match file.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(err) if is_full(&err) => break,
            Err(err) => return Err(err),
        }
    }
    print(&format!("written={written}\n"))
}

/// Makes files in a directory until its disk has room for no more: `files=COUNT`, and they stay.
pub fn fill_with_files(path: &str) -> Outcome {
    fs::create_dir(path)?;
    let made = (0_u64..).map(|number| {
        let path = Path::new(path).join(number.to_string());
        OpenOptions::new().write(true).create_new(true).open(path)
    });
    let mut files = 0_u64;
    for file in made {
        match file {
            Ok(_) => files += 1,
            Err(err) if is_full(&err) => break,
            Err(err) => return Err(err),
        }
    }
    print(&format!("files={files}\n"))
}

fn is_full(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::StorageFull
}
