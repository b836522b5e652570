//! Kernel parameters of a container's own namespaces (OCI `linux.sysctl`).
//!
//! A parameter of the whole guest is refused: it would be the other containers' too. They are written through the
//! guest's /proc, before pivot_root(2): the container's could be a false one (CVE-2025-52881).

use std::fs;

use crate::error::{Code, Context, Error, Result};
use crate::idmap::with_euid;

/// `kernel.hostname` is the spec's `hostname`.
const UTS: &[&str] = &["kernel.domainname"];

/// ipc_namespaces(7).
const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.msg_next_id",
    "kernel.sem",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Which namespaces a container may set parameters of.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    pub ipc: bool,
    pub network: bool,
    pub uts: bool,
}

/// Refuses what is not the container's own.
pub fn check(name: &str, own: Own) -> Result<()> {
    let refuse = |code, why: &str| Err(Error::new(code, format!("linux.sysctl[{name:?}]: {why}")));
    let well_formed = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !well_formed {
        return refuse(Code::InvalidArgument, "not the name of a parameter");
    }
    let dotted = dotted(name);
    let (is_own, kind) = if dotted.starts_with("net.") {
        (own.network, "network")
    } else if UTS.contains(&dotted.as_str()) {
        (own.uts, "uts")
    } else if is_ipc(&dotted) {
        (own.ipc, "ipc")
    } else {
        return refuse(Code::InvalidArgument, "not of a namespace of the container");
    };
    if is_own {
        return Ok(());
    }
    refuse(Code::InvalidArgument, &format!("the container has no {kind} namespace of its own"))
}

/// `ipc_owner` owns the ipc namespace, if that is not the guest's root: it must be that very user who writes there, and
/// no capability counts instead.
pub fn apply(sysctls: &[(String, String)], ipc_owner: Option<u32>) -> Result<()> {
    for (name, value) in sysctls {
        let write = || fs::write(path(name), value).context(|| format!("sysctl {name:?}"));
        match ipc_owner.filter(|_| is_ipc(&dotted(name))) {
            Some(owner) => with_euid(owner, write)?,
            None => write()?,
        }
    }
    Ok(())
}

fn is_ipc(dotted: &str) -> bool {
    IPC.contains(&dotted) || dotted.starts_with("fs.mqueue.")
}

/// As sysctl(8) reads names: the first separator says what separates, and the other of `.` and `/` is then literal.
fn path(name: &str) -> String {
    let first = name.find(['.', '/']).and_then(|at| name.as_bytes().get(at));
    if first == Some(&b'/') {
        return format!("/proc/sys/{name}");
    }
    let swapped: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    format!("/proc/sys/{swapped}")
}

/// The name with dots between its parts.
fn dotted(name: &str) -> String {
    path(name).trim_start_matches("/proc/sys/").replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Own = Own { ipc: false, network: false, uts: false };
    const ALL: Own = Own { ipc: true, network: true, uts: true };

    #[test]
    fn only_parameters_of_own_namespaces_are_taken() {
        for good in ["kernel.shmmax", "kernel/shmmax", "fs.mqueue.msg_max", "kernel.domainname"] {
            check(good, ALL).unwrap();
            let err = check(good, NOTHING).unwrap_err();
            assert!(err.message().ends_with("namespace of its own"), "{err}");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.overcommit_memory",
            "fs.file-max",
            "net.ipv4.ip_forward",
            "net/../kernel/core_pattern",
            "net..x",
            "",
            "net.",
            "kernel.shmmax\n",
        ] {
            let err = check(bad, Own { network: false, ..ALL }).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument, "{bad}");
            assert!(err.message().starts_with("linux.sysctl["), "{err}");
        }
        check("net.ipv4.ip_forward", ALL).unwrap();
        assert!(check("net/../kernel/core_pattern", ALL).is_err());
    }

    #[test]
    fn a_name_with_an_interface_keeps_its_dot() {
        assert_eq!(
            path("net.ipv4.conf.eth0/1.forwarding"),
            "/proc/sys/net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding"),
            "/proc/sys/net/ipv4/conf/eth0.1/forwarding"
        );
    }

    #[test]
    fn a_literal_dot_pair_cannot_climb() {
        // `net.` then `//` as swapped dots would be `..` between slashes.
        assert!(check("net.//.kernel", ALL).is_err());
    }
}
