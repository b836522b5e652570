//! The namespaces of a container (namespaces(7)): made with its first process, joined by the others.
//!
//! A pid namespace cannot be entered, only be born into: PID 1 points its children there for the one clone that
//! follows, and back. The cgroup namespace is made by the child itself: at its clone it would take the cgroup that PID 1
//! is in for its root, not the one that it is born in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::spec::Network;
use crate::error::{Context, Result};
use crate::loopback;
use crate::sys::process::{Child, CloneArgs, clone_child};

/// Those that the first process of a container is born with.
pub fn of_first_process(network: Network) -> CloneFlags {
    let always = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    match network {
        Network::Own => always | CloneFlags::CLONE_NEWNET,
        Network::Sandbox => always,
    }
}

/// In the child, first: the cgroup that it was born in becomes the root that it sees.
pub fn leave_cgroup_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWCGROUP).context(|| "make a cgroup namespace".to_owned())
}

/// In the child: a fresh network namespace has lo, but down; a fresh uts namespace has the guest's names.
pub fn configure(network: Network, hostname: &str, domainname: &str) -> Result<()> {
    if network == Network::Own {
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
    let back = openat(CWD, "/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_thread_name_spaces(first, ThreadNameSpaceType::PROCESS_ID)?;
    let _children_elsewhere = ChildrenElsewhere(back);
    let args = CloneArgs { namespaces: CloneFlags::empty(), cgroup: Some(cgroup) };
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

/// In a child that was born beside `first`: joins its other namespaces. The root and the working directory are then the
/// container's.
pub fn join(first: BorrowedFd<'_>) -> Result<()> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(first, all).context(|| "join namespaces".to_owned())
}
