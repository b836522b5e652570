//! Namespaces, their id maps, their clocks and their kernel parameters.

use std::fs;
use std::io;
use std::path::Path;

use super::Findings;
use super::compare;
use super::expected::{Expected, number, text};

/// The kernel gives its first namespaces these inode numbers (include/linux/proc_ns.h).
const FIRST: [(&str, &str, u32); 6] = [
    ("ipc", "ipc", 0xefff_ffff),
    ("uts", "uts", 0xefff_fffe),
    ("user", "user", 0xefff_fffd),
    ("pid", "pid", 0xefff_fffc),
    ("cgroup", "cgroup", 0xefff_fffb),
    ("time", "time", 0xefff_fffa),
];
/// A parameter of the network that only the first network namespace has.
const FIRST_NETWORK: &str = "/proc/sys/net/core/netdev_max_backlog";
/// A guest gives every container this, listed or not.
const ALWAYS_OWN: [&str; 1] = ["cgroup"];

/// A namespace that is listed without a path is a new one, one that is not listed is the guest's.
pub fn namespaces(expected: &Expected) -> Findings {
    if expected.at("/linux/namespaces").is_none() {
        return Ok(Vec::new());
    }
    let lists = |kind: &str| {
        let list = expected.list("/linux/namespaces");
        list.iter().any(|namespace| text(namespace, "type") == kind)
    };
    let mut findings = Vec::new();
    for (kind, link, inode) in FIRST {
        let wanted = lists(kind) || ALWAYS_OWN.contains(&kind);
        let got = fs::read_link(format!("/proc/self/ns/{link}"))?;
        let is_first = got.to_string_lossy() == format!("{link}:[{inode}]");
        findings.extend(compare(&format!("own {kind}"), wanted, !is_first));
    }
    // The bridge to a first mount namespace would be its root: a container never has it.
    findings.extend(compare("own network", lists("network"), !Path::new(FIRST_NETWORK).exists()));
    Ok(findings)
}

pub fn uid_mappings(expected: &Expected) -> Findings {
    mappings(expected, "/linux/uidMappings", "/proc/self/uid_map")
}

pub fn gid_mappings(expected: &Expected) -> Findings {
    mappings(expected, "/linux/gidMappings", "/proc/self/gid_map")
}

/// user_namespaces(7): `INSIDE OUTSIDE COUNT` a line; the first namespace maps everything to itself.
fn mappings(expected: &Expected, pointer: &str, file: &str) -> Findings {
    let list = expected.list(pointer);
    let mut wanted: Vec<Vec<u64>> = list
        .iter()
        .map(|mapping| {
            ["containerID", "hostID", "size"]
                .map(|name| number(mapping, name).unwrap_or(0))
                .to_vec()
        })
        .collect();
    if wanted.is_empty() {
        wanted.push(vec![0, 0, u64::from(u32::MAX)]);
    }
    let got = fs::read_to_string(file)?;
    let line = |line: &str| -> Vec<u64> {
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let got: Vec<Vec<u64>> = got.lines().map(line).collect();
    Ok(compare("", wanted, got))
}

/// proc_pid_timens_offsets: `CLOCK SECONDS NANOSECONDS` a line.
pub fn time_offsets(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    let Some(offsets) = expected.at("/linux/timeOffsets").and_then(|all| all.as_object()) else {
        return Ok(findings);
    };
    let table = fs::read_to_string("/proc/self/timens_offsets")?;
    for (clock, offset) in offsets {
        let secs = offset.get("secs").and_then(serde_json::Value::as_i64).unwrap_or(0);
        let wanted = format!("{secs} {}", number(offset, "nanosecs").unwrap_or(0));
        let got = table.lines().find_map(|line| line.strip_prefix(clock.as_str()));
        let got: Vec<&str> = got.unwrap_or_default().split_whitespace().collect();
        findings.extend(compare(clock, wanted, got.join(" ")));
    }
    Ok(findings)
}

pub fn sysctls(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    for (name, wanted) in expected.map("/linux/sysctl") {
        let got = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))?;
        let words: Vec<&str> = got.split_whitespace().collect();
        let wanted: Vec<&str> = wanted.split_whitespace().collect();
        findings.extend(compare(name, wanted, words));
    }
    Ok::<_, io::Error>(findings)
}
