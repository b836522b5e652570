//! Making processes and ending them.
//!
//! A child made here is a copy of PID 1: one thread, its own memory, all its descriptors. Its entry never returns, so
//! nothing of PID 1's runs twice.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use super::checked;

/// A process that was just cloned. Its pid is its own until the reaper's next turn.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

impl Child {
    /// SIGKILL.
    pub fn kill(&self) -> io::Result<()> {
        pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*` of clone(2).
    pub namespaces: nix::sched::CloneFlags,
    /// The cgroup that the child is born in; none: the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// struct clone_args of clone(2); all 64-bit.
#[derive(Default)]
#[repr(C)]
struct RawCloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Clones this process; the child runs `entry(spec)` with no signal handler of PID 1's left. EDEADLK if there is more
/// than one thread.
pub fn clone_child<T>(args: CloneArgs<'_>, entry: fn(T) -> !, spec: T) -> io::Result<Child> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    clone_single(args, entry, spec)
}

/// The same in a child that was made here, which has one thread and may have no `/proc` to be asked.
pub fn clone_in_child<T>(entry: fn(T) -> !, spec: T) -> io::Result<Child> {
    let namespaces = nix::sched::CloneFlags::empty();
    clone_single(CloneArgs { namespaces, cgroup: None }, entry, spec)
}

/// For a process of one thread.
fn clone_single<T>(args: CloneArgs<'_>, entry: fn(T) -> !, spec: T) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut raw = RawCloneArgs {
        flags: u64::from(args.namespaces.bits().cast_unsigned())
            | CLONE_PIDFD
            | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        ..RawCloneArgs::default()
    };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory, and with one thread (the callers see to it) no lock in
    // that copy is held by a thread that is gone. `raw` and `pidfd` outlive the call. The tid that libc caches is stale
    // in the child, so `entry` must not use what needs it (raise, robust locks); its type makes it end in execve or
    // _exit.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut raw, size_of::<RawCloneArgs>()) };
    let pid = checked(result)?;
    if pid == 0 {
        entry(spec);
    }
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    // SAFETY: with CLONE_PIDFD the kernel has stored a new close-on-exec descriptor there, which nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// /proc/self/task has one directory a thread: its link count is two more than they are.
fn thread_count() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// Closes every descriptor but the standard streams and `keep`.
///
/// For a child that was just cloned: the owners of these descriptors live in PID 1's frames, to which its entry never
/// returns, so nobody uses or closes them again here.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)
}

/// close_range(2).
fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: the numbers are plain values. That no owner is left is the promise that `close_all_but` makes.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    checked(result).map(drop)
}

/// Gives SIGPIPE its default back: Rust's start-up ignores it, and execve(2) would keep that.
pub fn reset_sigpipe() -> io::Result<()> {
    // SAFETY: SIG_DFL is no function, so no handler's own safety is in question.
    let previous = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal by number, real-time ones included; 0 only asks whether the process is there.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in its own, as kill(2) does; the rest are plain values.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0)
    };
    checked(result).map(drop)
}

/// Waits for any signal; the caller has blocked them all.
pub fn wait_for_signal() -> io::Result<i32> {
    let mut every = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset writes the whole set, and cannot fail for a set that is there.
    unsafe { libc::sigfillset(every.as_mut_ptr()) };
    // SAFETY: the call above has made it.
    let every = unsafe { every.assume_init() };
    // SAFETY: the set is alive for the call; a null siginfo asks for no details.
    let signal = unsafe { libc::sigwaitinfo(&raw const every, std::ptr::null_mut()) };
    checked(signal.into()).and_then(|signal| i32::try_from(signal).map_err(io::Error::other))
}

/// Ends a child at once: no destructor, no buffer of PID 1's is flushed a second time.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: exit_group(2) takes a number, and where it works nothing after it can be left half done.
    let refused = unsafe { libc::syscall(libc::SYS_exit_group, status) };
    // A seccomp filter may refuse even that, and libc would try for ever. A fault takes no system call.
    drop(checked(refused));
    std::process::abort()
}
