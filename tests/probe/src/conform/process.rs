//! The process: its words, its terminal, its limits, and how it is scheduled.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;

use rustix::process::{Resource, getpid, getrlimit};
use rustix::termios::tcgetwinsize;

use super::expected::{Expected, number, text};
use super::{Findings, compare, status, syscall};

/// All three streams, and /dev/tty, which opens only for who has a controlling terminal (tty(4)).
pub fn terminal(expected: &Expected) -> Findings {
    let wanted = expected.is_true("/process/terminal");
    let streams =
        [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
    let mut findings = compare("streams are terminals", [wanted; 3], streams);
    findings.extend(compare("controlling terminal", wanted, File::open("/dev/tty").is_ok()));
    Ok(findings)
}

pub fn console_size(expected: &Expected) -> Findings {
    let Some(size) = expected.at("/process/consoleSize") else { return Ok(Vec::new()) };
    let got = tcgetwinsize(io::stdin())?;
    let got = [Some(u64::from(got.ws_row)), Some(u64::from(got.ws_col))];
    Ok(compare("rows and columns", [number(size, "height"), number(size, "width")], got))
}

pub fn cwd(expected: &Expected) -> Findings {
    let wanted = expected.text("/process/cwd").unwrap_or_default();
    Ok(compare("", wanted, std::env::current_dir()?.to_string_lossy().as_ref()))
}

/// The same variables, no fewer and no more; HOME may come from /etc/passwd.
pub fn env(expected: &Expected) -> Findings {
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for entry in expected.texts("/process/env") {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        wanted.insert(name.to_owned(), value.to_owned());
    }
    let text = |word: std::ffi::OsString| String::from_utf8_lossy(&word.into_vec()).into_owned();
    let mut got: BTreeMap<String, String> =
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    if !wanted.contains_key("HOME") {
        got.remove("HOME");
    }
    Ok(compare("", wanted, got))
}

pub fn args(expected: &Expected) -> Findings {
    let words = fs::read("/proc/self/cmdline")?;
    let words = words.strip_suffix(&[0]).unwrap_or(&words);
    let got: Vec<String> = words
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    Ok(compare("", expected.texts("/process/args"), got))
}

const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

pub fn rlimits(expected: &Expected) -> Findings {
    let mut findings = Vec::new();
    for limit in expected.list("/process/rlimits") {
        let name = text(limit, "type");
        let known = RESOURCES.iter().find(|(known, _)| *known == name);
        let (_, resource) = known.ok_or_else(|| io::Error::other(format!("{name:?}: none")))?;
        let got = getrlimit(*resource);
        let got = [got.current, got.maximum].map(|limit| Some(limit.unwrap_or(u64::MAX)));
        findings.extend(compare(name, [number(limit, "soft"), number(limit, "hard")], got));
    }
    Ok(findings)
}

pub fn no_new_privileges(expected: &Expected) -> Findings {
    let wanted = if expected.is_true("/process/noNewPrivileges") { "1" } else { "0" };
    Ok(compare("", wanted, status("NoNewPrivs")?.as_str()))
}

pub fn oom_score_adj(expected: &Expected) -> Findings {
    let wanted = expected.integer("/process/oomScoreAdj").unwrap_or(0);
    let got = fs::read_to_string("/proc/self/oom_score_adj")?;
    Ok(compare("", wanted.to_string().as_str(), got.trim()))
}

/// By the kernel's numbers (linux/sched.h).
const POLICIES: [(&str, u64); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const SCHED_FLAGS: [(&str, u64); 7] = [
    ("SCHED_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
/// Flags that tell the call what to do and are not kept.
const NOT_KEPT: u64 = 0x18;

/// sched_getattr(2): size, policy, flags, nice, priority, runtime, deadline, period.
pub fn scheduler(expected: &Expected) -> Findings {
    const SIZE: usize = 48;
    let Some(wanted) = expected.at("/process/scheduler") else { return Ok(Vec::new()) };
    let attributes: [u8; SIZE] =
        syscall::read(libc::SYS_sched_getattr, [0, 0, SIZE as u64, 0, 0, 0], 1)?;
    let field = |at: usize, length: usize| {
        let bytes = attributes.get(at..at + length).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let policy = value(&POLICIES, text(wanted, "policy"))?;
    let flags = super::expected::texts(wanted, "flags");
    let flags = flags
        .iter()
        .try_fold(0, |all, name| Ok::<_, io::Error>(all | value(&SCHED_FLAGS, name)?))?;
    let nice = wanted.get("nice").and_then(serde_json::Value::as_i64).unwrap_or(0);
    let mut findings = compare("policy", policy, field(4, 4));
    findings.extend(compare("flags", flags & !NOT_KEPT, field(8, 8)));
    let got_nice = i64::from(u32::try_from(field(16, 4)).map_err(io::Error::other)?.cast_signed());
    findings.extend(compare("nice", nice, got_nice));
    for (name, at, length) in
        [("priority", 20, 4), ("runtime", 24, 8), ("deadline", 32, 8), ("period", 40, 8)]
    {
        let other_than_deadline = policy != 6 && name != "priority";
        if !other_than_deadline {
            findings.extend(compare(name, number(wanted, name).unwrap_or(0), field(at, length)));
        }
    }
    Ok(findings)
}

fn value(names: &[(&str, u64)], name: &str) -> io::Result<u64> {
    let found = names.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| io::Error::other(format!("{name:?}: none")))
}

/// ioprio_get(2): the class from bit 13 on, the priority in three bits.
pub fn io_priority(expected: &Expected) -> Findings {
    const CLASSES: [(&str, u64); 3] =
        [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
    const WHO_PROCESS: u64 = 1;
    let Some(wanted) = expected.at("/process/ioPriority") else { return Ok(Vec::new()) };
    let class = value(&CLASSES, text(wanted, "class"))?;
    let got = syscall::raw(libc::SYS_ioprio_get, [WHO_PROCESS, 0, 0, 0, 0, 0])?;
    let got = u64::try_from(got).map_err(io::Error::other)?;
    let mut findings = compare("class", class, got >> 13);
    findings.extend(compare("priority", number(wanted, "priority").unwrap_or(0), got & 7));
    Ok(findings)
}

/// Of a process that joins a container alone: its first has the cpuset's.
pub fn cpu_affinity(expected: &Expected) -> Findings {
    let Some(list) = expected.text("/process/execCPUAffinity/final") else { return Ok(Vec::new()) };
    if getpid().is_init() {
        return Ok(Vec::new());
    }
    Ok(compare("", list, status("Cpus_allowed_list")?.as_str()))
}

/// get_mempolicy(2): the mode with its flags, then the nodes.
pub fn memory_policy(expected: &Expected) -> Findings {
    const MODES: [(&str, u64); 7] = [
        ("MPOL_DEFAULT", 0),
        ("MPOL_PREFERRED", 1),
        ("MPOL_BIND", 2),
        ("MPOL_INTERLEAVE", 3),
        ("MPOL_LOCAL", 4),
        ("MPOL_PREFERRED_MANY", 5),
        ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ];
    const FLAGS: [(&str, u64); 3] = [
        ("MPOL_F_NUMA_BALANCING", 1 << 13),
        ("MPOL_F_RELATIVE_NODES", 1 << 14),
        ("MPOL_F_STATIC_NODES", 1 << 15),
    ];
    let Some(wanted) = expected.at("/linux/memoryPolicy") else { return Ok(Vec::new()) };
    let mode = value(&MODES, text(wanted, "mode"))?;
    let flags = super::expected::texts(wanted, "flags");
    let mode =
        flags.iter().try_fold(mode, |all, name| Ok::<_, io::Error>(all | value(&FLAGS, name)?))?;
    let got: [u8; 4] = syscall::read(libc::SYS_get_mempolicy, [0; 6], 0)?;
    Ok(compare("mode", mode, u64::from(u32::from_ne_bytes(got))))
}

/// personality(2) of a value that changes nothing.
pub fn personality(expected: &Expected) -> Findings {
    const DOMAINS: [(&str, u64); 2] = [("LINUX", 0), ("LINUX32", 8)];
    const ASK: u64 = 0xffff_ffff;
    let Some(wanted) = expected.at("/linux/personality") else { return Ok(Vec::new()) };
    let domain = value(&DOMAINS, text(wanted, "domain"))?;
    let got = syscall::raw(libc::SYS_personality, [ASK, 0, 0, 0, 0, 0])?;
    Ok(compare("", domain, u64::try_from(got).map_err(io::Error::other)?))
}
