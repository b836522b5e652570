//! Kernel parameters of a container's own namespaces (OCI `linux.sysctl`).
//!
//! A parameter of the whole guest is refused: it would be the other containers' too. They are written through the
//! guest's /proc, before pivot_root(2): the container's could be a false one (CVE-2025-52881).

use std::fs;

use super::spec::Network;
use crate::error::{Code, Context, Error, Result};

/// Of the ipc namespace (ipc_namespaces(7)) and the uts namespace; `kernel.hostname` is the spec's `hostname`.
const KERNEL: &[&str] = &[
    "kernel.domainname",
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

/// Refuses what is not the container's own.
pub fn check(name: &str, network: Network) -> Result<()> {
    let refuse = |code, why: &str| Err(Error::new(code, format!("linux.sysctl[{name:?}]: {why}")));
    let well_formed = name.split(['.', '/']).all(|part| !part.is_empty() && part != "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !well_formed {
        return refuse(Code::InvalidArgument, "not the name of a parameter");
    }
    let dotted = dotted(name);
    if dotted.starts_with("net.") {
        return match network {
            Network::Own => Ok(()),
            Network::Sandbox => {
                refuse(Code::InvalidArgument, "the container has no network namespace of its own")
            }
        };
    }
    if KERNEL.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return Ok(());
    }
    refuse(Code::InvalidArgument, "not of a namespace of the container")
}

pub fn apply(sysctls: &[(String, String)]) -> Result<()> {
    for (name, value) in sysctls {
        fs::write(path(name), value).context(|| format!("sysctl {name:?}"))?;
    }
    Ok(())
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

    #[test]
    fn only_parameters_of_own_namespaces_are_taken() {
        for good in ["kernel.shmmax", "kernel/shmmax", "fs.mqueue.msg_max", "kernel.domainname"] {
            check(good, Network::Sandbox).unwrap();
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
            let err = check(bad, Network::Sandbox).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument, "{bad}");
            assert!(err.message().starts_with("linux.sysctl["), "{err}");
        }
        check("net.ipv4.ip_forward", Network::Own).unwrap();
        assert!(check("net/../kernel/core_pattern", Network::Own).is_err());
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
        assert!(check("net.//.kernel", Network::Own).is_err());
    }
}
