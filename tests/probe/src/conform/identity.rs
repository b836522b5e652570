//! Who the process is, and what it may.

use std::collections::BTreeSet;
use std::io;

use rustix::process::getgroups;

use super::expected::Expected;
use super::{Findings, compare, status};

/// In the order of their numbers (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// All four ids: real, effective, saved, of files.
pub fn uid(expected: &Expected) -> Findings {
    four_ids(expected, "/process/user/uid", "Uid")
}

pub fn gid(expected: &Expected) -> Findings {
    four_ids(expected, "/process/user/gid", "Gid")
}

fn four_ids(expected: &Expected, pointer: &str, line: &str) -> Findings {
    let wanted = expected.integer(pointer).unwrap_or(0).to_string();
    let ids = status(line)?;
    Ok(compare("", vec![wanted.as_str(); 4], ids.split_whitespace().collect::<Vec<_>>()))
}

pub fn additional_gids(expected: &Expected) -> Findings {
    let list = expected.list("/process/user/additionalGids");
    let wanted: BTreeSet<u64> = list.iter().filter_map(serde_json::Value::as_u64).collect();
    let got: BTreeSet<u64> = getgroups()?.iter().map(|gid| u64::from(gid.as_raw())).collect();
    Ok(compare("", wanted, got))
}

/// Without one it is what every Unix starts with.
pub fn umask(expected: &Expected) -> Findings {
    let wanted = expected.integer("/process/user/umask").unwrap_or(0o022);
    Ok(compare("", format!("{wanted:04o}"), status("Umask")?))
}

pub fn bounding(expected: &Expected) -> Findings {
    compare_set("CapBnd", set(expected, "bounding")?)
}

pub fn inheritable(expected: &Expected) -> Findings {
    compare_set("CapInh", set(expected, "inheritable")?)
}

pub fn ambient(expected: &Expected) -> Findings {
    compare_set("CapAmb", ambient_set(expected)?)
}

pub fn permitted(expected: &Expected) -> Findings {
    compare_set("CapPrm", after_execve(expected)?)
}

/// execve(2) makes it the permitted set, to root as to others.
pub fn effective(expected: &Expected) -> Findings {
    compare_set("CapEff", after_execve(expected)?)
}

/// The kernel keeps none that is not also permitted and inheritable.
fn ambient_set(expected: &Expected) -> io::Result<u64> {
    Ok(set(expected, "ambient")? & set(expected, "permitted")? & set(expected, "inheritable")?)
}

/// What execve(2) of a file without capabilities leaves permitted (capabilities(7), "Transformation"): to others than
/// root what is ambient; to root what is bounding or inheritable, and with no_new_privs of that what he had before.
fn after_execve(expected: &Expected) -> io::Result<u64> {
    if expected.integer("/process/user/uid").unwrap_or(0) != 0 {
        return ambient_set(expected);
    }
    let granted = set(expected, "bounding")? | set(expected, "inheritable")?;
    if expected.is_true("/process/noNewPrivileges") {
        return Ok(granted & set(expected, "permitted")?);
    }
    Ok(granted)
}

fn set(expected: &Expected, name: &str) -> io::Result<u64> {
    let bit = |capability: &str| {
        let number = CAPABILITIES.iter().position(|known| *known == capability);
        number
            .map(|number| 1_u64 << number)
            .ok_or_else(|| io::Error::other(format!("{capability:?}: none")))
    };
    let names = expected.texts(&format!("/process/capabilities/{name}"));
    names.into_iter().map(bit).try_fold(0, |set, bit| Ok(set | bit?))
}

/// Every number that fits, those too that no name is known for.
fn compare_set(line: &str, wanted: u64) -> Findings {
    let got = u64::from_str_radix(&status(line)?, 16).map_err(io::Error::other)?;
    let differing = (0..u64::BITS).filter(|number| (wanted ^ got) >> number & 1 == 1);
    Ok(differing
        .map(|number| {
            let name = usize::try_from(number).ok().and_then(|number| CAPABILITIES.get(number));
            let name =
                name.map_or_else(|| format!("capability {number}"), |name| (*name).to_owned());
            let (wanted, got) = (wanted >> number & 1 == 1, got >> number & 1 == 1);
            format!("{name} expected {wanted}, got {got}")
        })
        .collect())
}
