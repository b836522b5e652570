//! The namespaces of a container (namespaces(7)): made with its first process, joined by the others.
//!
//! A pid namespace cannot be entered, only be born into: PID 1 points its children there for the one clone that
//! follows, and back. The cgroup namespace is made by the child itself: at its clone it would take the cgroup that PID 1
//! is in for its root, not the one that it is born in. A time namespace takes a process in at its execve.
//!
//! A user namespace is entered last (`user_namespace`), when all is done that takes the guest's own rights; those that
//! it shall own are made by its holder, and joined. The pid and time namespaces are the guest's to own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc::CLONE_NEWTIME;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, stat};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::spec::{Namespace, Namespaces, TimeOffset};
use super::tree::has_magic;
use super::user_namespace::UserNamespace;
use crate::error::{Code, Context, Error, Result};
use crate::loopback;
use crate::sys::namespace::namespace_type;
use crate::sys::path_of;
use crate::sys::process::{Child, CloneArgs, clone_child};

/// linux/magic.h
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// nix has no name for it.
const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(CLONE_NEWTIME);

/// Clones the first process of a container, into the pid namespace that it shall have; `shared_pid` is a pidfd of
/// process 1 of the sandbox's.
pub fn clone_first<T>(
    namespaces: &Namespaces,
    shared_pid: Option<BorrowedFd<'_>>,
    cgroup: BorrowedFd<'_>,
    entry: fn(T) -> !,
    spec: T,
) -> Result<Child> {
    let mut flags = CloneFlags::CLONE_NEWNS;
    if namespaces.user.is_none() {
        flags |= owned(namespaces);
    }
    let elsewhere = match (&namespaces.pid, shared_pid) {
        (Namespace::New, _) => {
            flags |= CloneFlags::CLONE_NEWPID;
            None
        }
        (Namespace::Joined(path), _) => {
            Some(open_not_guests(path, "pid", CloneFlags::CLONE_NEWPID)?)
        }
        (Namespace::Sandbox, Some(shared)) => Some(shared.try_clone_to_owned()?),
        (Namespace::Sandbox, None) => {
            let message = "the sandbox has no pid namespace that its containers share";
            return Err(Error::new(Code::FailedPrecondition, message));
        }
    };
    let args = CloneArgs { namespaces: flags, cgroup: Some(cgroup) };
    let child = match elsewhere {
        None => clone_child(args, entry, spec),
        Some(namespace) => clone_into(namespace.as_fd(), args, entry, spec),
    };
    child.context(|| "clone".to_owned())
}

/// Those that the container's user namespace owns, if it has one.
pub fn owned(namespaces: &Namespaces) -> CloneFlags {
    [
        (&namespaces.ipc, CloneFlags::CLONE_NEWIPC),
        (&namespaces.network, CloneFlags::CLONE_NEWNET),
        (&namespaces.uts, CloneFlags::CLONE_NEWUTS),
    ]
    .into_iter()
    .filter_map(|(namespace, flag)| (*namespace == Namespace::New).then_some(flag))
    .collect()
}

/// As `open`, of a kind that the guest keeps its own of: with PID 1 in it, or its rights.
pub fn open_not_guests(path: &str, kind: &str, flag: CloneFlags) -> Result<OwnedFd> {
    let namespace = open(path, kind, flag)?;
    let own = format!("/proc/self/ns/{kind}");
    let guests = stat(&own).context(|| format!("stat {own:?}"))?;
    if fstat(&namespace)?.st_ino == guests.st_ino {
        let message = format!("linux.namespaces[{kind}].path {path:?}: the guest's own");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    Ok(namespace)
}

/// Opens a namespace by its path, once; what else may be there is not opened at all.
fn open(path: &str, kind: &str, flag: CloneFlags) -> Result<OwnedFd> {
    let open = || -> Result<OwnedFd> {
        let wrong = || Error::new(Code::InvalidArgument, format!("no {kind} namespace"));
        let place = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !has_magic(place.as_fd(), NSFS_MAGIC)? {
            return Err(wrong());
        }
        let same = path_of(place.as_fd());
        let namespace = openat(CWD, &same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        if namespace_type(namespace.as_fd())? == flag { Ok(namespace) } else { Err(wrong()) }
    };
    open().context(|| format!("linux.namespaces[{kind}].path {path:?}"))
}

/// In the child, first of all that depends on it: the namespaces that it was not born into. The user namespace is
/// prepared, and entered later.
pub fn enter(namespaces: &Namespaces) -> Result<Option<UserNamespace>> {
    let user = match &namespaces.user {
        Some(user) => Some(UserNamespace::prepare(user, namespaces)?),
        None => None,
    };
    for (kind, namespace, flag, link) in [
        (
            "ipc",
            &namespaces.ipc,
            CloneFlags::CLONE_NEWIPC,
            LinkNameSpaceType::InterProcessCommunication,
        ),
        ("network", &namespaces.network, CloneFlags::CLONE_NEWNET, LinkNameSpaceType::Network),
        (
            "uts",
            &namespaces.uts,
            CloneFlags::CLONE_NEWUTS,
            LinkNameSpaceType::HostNameAndNISDomainName,
        ),
        ("time", &namespaces.time, NEW_TIME, LinkNameSpaceType::Time),
        (
            "cgroup",
            &namespaces.cgroup,
            CloneFlags::CLONE_NEWCGROUP,
            LinkNameSpaceType::ControlGroup,
        ),
    ] {
        if let Namespace::Joined(path) = namespace {
            let namespace = open(path, kind, flag)?;
            move_into_link_name_space(namespace.as_fd(), Some(link))
                .context(|| format!("join {kind} namespace {path:?}"))?;
        }
    }
    if namespaces.cgroup == Namespace::New {
        unshare(CloneFlags::CLONE_NEWCGROUP).context(|| "make a cgroup namespace".to_owned())?;
    }
    if namespaces.time == Namespace::New {
        make_time_namespace(&namespaces.time_offsets)?;
    }
    Ok(user)
}

/// For our children, and for ourselves from execve on. Offsets can be set until somebody is in it.
fn make_time_namespace(offsets: &[TimeOffset]) -> Result<()> {
    unshare(NEW_TIME).context(|| "make a time namespace".to_owned())?;
    for TimeOffset { clock, seconds, nanoseconds } in offsets {
        fs::write("/proc/self/timens_offsets", format!("{clock} {seconds} {nanoseconds}"))
            .context(|| format!("linux.timeOffsets[{clock}]"))?;
    }
    Ok(())
}

/// In the child: a fresh network namespace has lo, but down; a fresh uts namespace has the guest's names.
pub fn configure(namespaces: &Namespaces, hostname: &str, domainname: &str) -> Result<()> {
    if namespaces.network == Namespace::New {
        loopback::bring_up()?;
    }
    if !hostname.is_empty() {
        sethostname(hostname.as_bytes()).context(|| format!("set hostname {hostname:?}"))?;
    }
    if !domainname.is_empty() {
        setdomainname(domainname.as_bytes())
            .context(|| format!("set domainname {domainname:?}"))?;
    }
    Ok(())
}

/// Clones a child that is born into the pid namespace of `first`, a pidfd of the container's first process, and into
/// `cgroup`.
pub fn clone_beside<T>(
    first: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    entry: fn(T) -> !,
    spec: T,
) -> io::Result<Child> {
    let args = CloneArgs { namespaces: CloneFlags::empty(), cgroup: Some(cgroup) };
    clone_into(first, args, entry, spec)
}

/// Clones a child into a pid namespace that a descriptor is of, or that the process of a pidfd is in.
fn clone_into<T>(
    pid_namespace: BorrowedFd<'_>,
    args: CloneArgs<'_>,
    entry: fn(T) -> !,
    spec: T,
) -> io::Result<Child> {
    let back = openat(CWD, "/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_thread_name_spaces(pid_namespace, ThreadNameSpaceType::PROCESS_ID)?;
    let _children_elsewhere = ChildrenElsewhere(back);
    clone_child(args, entry, spec)
}

/// While it lives, PID 1's children are born into another pid namespace; its end brings them home.
struct ChildrenElsewhere(OwnedFd);

impl Drop for ChildrenElsewhere {
    fn drop(&mut self) {
        // One small allocation in the kernel is all that can fail here, for a moment.
        for _ in 0..1000 {
            match move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::ProcessID)) {
                Ok(()) => return,
                Err(errno) => log::error!("return to the guest's pid namespace: {errno:?}"),
            }
        }
    }
}

/// In a child that was born beside `first`: joins its other namespaces, save for the user namespace. The root and the
/// working directory are then the container's.
pub fn join(first: BorrowedFd<'_>) -> Result<()> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::TIME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(first, all).context(|| "join namespaces".to_owned())
}
