//! Resource limits, as the container's own cgroup (version 2) has them.

use std::fs;
use std::io;

use super::expected::{Expected, number, text};
use super::{Findings, compare};

/// Where the cgroup namespace's root is mounted.
const OWN: &str = "/sys/fs/cgroup";

fn read(file: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("{OWN}/{file}"));
    text.map(|text| text.trim_end().to_owned())
        .map_err(|err| io::Error::other(format!("{file}: {err}")))
}

/// -1 is no limit.
fn limit(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

/// Compares a file with what a number of `resources` comes to, if it is given.
fn number_in(
    expected: &Expected,
    name: &str,
    file: &str,
    convert: impl FnOnce(i64) -> String,
) -> Findings {
    match expected.integer(&format!("/linux/resources/{name}")) {
        Some(number) => Ok(compare(file, convert(number), read(file)?)),
        None => Ok(Vec::new()),
    }
}

pub fn memory_limit(expected: &Expected) -> Findings {
    number_in(expected, "memory/limit", "memory.max", limit)
}

pub fn memory_reservation(expected: &Expected) -> Findings {
    number_in(expected, "memory/reservation", "memory.low", limit)
}

/// OCI counts memory and swap together, version 2 of cgroups swap alone.
pub fn memory_swap(expected: &Expected) -> Findings {
    let memory = expected.integer("/linux/resources/memory/limit").unwrap_or(0);
    number_in(expected, "memory/swap", "memory.swap.max", |swap| match swap {
        ..0 => limit(swap),
        _ => limit(swap - memory),
    })
}

/// 2 to 262144 shares are 1 to 10000 of weight.
pub fn cpu_shares(expected: &Expected) -> Findings {
    number_in(expected, "cpu/shares", "cpu.weight", |shares| {
        (1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142).to_string()
    })
}

pub fn cpu_quota(expected: &Expected) -> Findings {
    bandwidth(expected, "cpu/quota", 0)
}

pub fn cpu_period(expected: &Expected) -> Findings {
    bandwidth(expected, "cpu/period", 1)
}

fn bandwidth(expected: &Expected, name: &str, place: usize) -> Findings {
    let Some(wanted) = expected.integer(&format!("/linux/resources/{name}")) else {
        return Ok(Vec::new());
    };
    let file = read("cpu.max")?;
    Ok(compare("cpu.max", Some(limit(wanted).as_str()), file.split(' ').nth(place)))
}

pub fn cpu_burst(expected: &Expected) -> Findings {
    number_in(expected, "cpu/burst", "cpu.max.burst", |burst| burst.to_string())
}

pub fn cpu_idle(expected: &Expected) -> Findings {
    number_in(expected, "cpu/idle", "cpu.idle", |idle| idle.to_string())
}

pub fn cpus(expected: &Expected) -> Findings {
    text_in(expected, "cpu/cpus", "cpuset.cpus")
}

pub fn mems(expected: &Expected) -> Findings {
    text_in(expected, "cpu/mems", "cpuset.mems")
}

fn text_in(expected: &Expected, name: &str, file: &str) -> Findings {
    match expected.text(&format!("/linux/resources/{name}")) {
        Some(wanted) => Ok(compare(file, wanted, read(file)?.as_str())),
        None => Ok(Vec::new()),
    }
}

pub fn huge_pages(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    for limit in expected.list("/linux/resources/hugepageLimits") {
        let file = format!("hugetlb.{}.max", text(limit, "pageSize"));
        let wanted = number(limit, "limit").unwrap_or(0).to_string();
        findings.extend(compare(&file, wanted, read(&file)?));
    }
    Ok(findings)
}

pub fn pids_limit(expected: &Expected) -> Findings {
    number_in(expected, "pids/limit", "pids.max", limit)
}

/// Each is a file's name and content.
pub fn unified(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    for (file, wanted) in expected.map("/linux/resources/unified") {
        findings.extend(compare(file, wanted, read(file)?.as_str()));
    }
    Ok(findings)
}
