//! `conform FILE...`: is this container what each of these config.json says?
//!
//! The files are expectations, not the config that the container was made from: a test that gives a wrong one sees
//! whether the check for it can fail. All that the `runtimetest` program of the OCI's runtime-tools looks at is looked
//! at here, and what it does not: see [`CHECKS`]. The output is in the Test Anything Protocol, one plan a file; the exit
//! code is the number of checks that failed, up to [`MOST`].

mod cgroup;
mod devices;
mod expected;
mod hidden;
mod identity;
mod mountinfo;
mod mounts;
mod namespaces;
mod process;
mod rootfs;
mod seccomp;
mod syscall;

use std::fs;
use std::io::{self, Write};

use crate::Outcome;
use expected::Expected;

/// An exit code that is no other command's.
const MOST: usize = 98;

/// What does not hold, one sentence each; empty: all of it holds. An error is a failure too.
type Findings = io::Result<Vec<String>>;

/// A check: the field that it is about, as docs/oci.md has it, and how to look.
type Check = (&'static str, fn(&Expected) -> Findings);

/// Every check, in the order of config.md and config-linux.md. One that an expectation says nothing about holds.
const CHECKS: &[Check] = &[
    ("root.readonly", rootfs::readonly),
    ("mounts.destination", mounts::destinations),
    ("mounts.type", mounts::types),
    ("mounts.source", mounts::sources),
    ("mounts.options", mounts::options),
    ("mounts.options.recursive", mounts::recursive_options),
    ("mounts.propagation", mounts::propagation),
    ("mounts.order", mounts::order),
    ("mounts.no-other", mounts::no_other),
    ("process.terminal", process::terminal),
    ("process.consoleSize", process::console_size),
    ("process.cwd", process::cwd),
    ("process.env", process::env),
    ("process.args", process::args),
    ("process.rlimits", process::rlimits),
    ("process.capabilities.bounding", identity::bounding),
    ("process.capabilities.effective", identity::effective),
    ("process.capabilities.inheritable", identity::inheritable),
    ("process.capabilities.permitted", identity::permitted),
    ("process.capabilities.ambient", identity::ambient),
    ("process.noNewPrivileges", process::no_new_privileges),
    ("process.oomScoreAdj", process::oom_score_adj),
    ("process.scheduler", process::scheduler),
    ("process.ioPriority", process::io_priority),
    ("process.execCPUAffinity", process::cpu_affinity),
    ("process.user.uid", identity::uid),
    ("process.user.gid", identity::gid),
    ("process.user.umask", identity::umask),
    ("process.user.additionalGids", identity::additional_gids),
    ("hostname", rootfs::hostname),
    ("domainname", rootfs::domainname),
    ("hooks", rootfs::hooks),
    ("default-filesystems", mounts::default_filesystems),
    ("default-links", devices::default_links),
    ("default-devices", devices::default_devices),
    ("linux.namespaces", namespaces::namespaces),
    ("linux.uidMappings", namespaces::uid_mappings),
    ("linux.gidMappings", namespaces::gid_mappings),
    ("linux.timeOffsets", namespaces::time_offsets),
    ("linux.devices.type", devices::kinds),
    ("linux.devices.number", devices::numbers),
    ("linux.devices.fileMode", devices::modes),
    ("linux.devices.uid", devices::uids),
    ("linux.devices.gid", devices::gids),
    ("linux.resources.devices", devices::rules),
    ("linux.resources.memory.limit", cgroup::memory_limit),
    ("linux.resources.memory.reservation", cgroup::memory_reservation),
    ("linux.resources.memory.swap", cgroup::memory_swap),
    ("linux.resources.cpu.shares", cgroup::cpu_shares),
    ("linux.resources.cpu.quota", cgroup::cpu_quota),
    ("linux.resources.cpu.period", cgroup::cpu_period),
    ("linux.resources.cpu.burst", cgroup::cpu_burst),
    ("linux.resources.cpu.idle", cgroup::cpu_idle),
    ("linux.resources.cpu.cpus", cgroup::cpus),
    ("linux.resources.cpu.mems", cgroup::mems),
    ("linux.resources.hugepageLimits", cgroup::huge_pages),
    ("linux.resources.pids.limit", cgroup::pids_limit),
    ("linux.resources.unified", cgroup::unified),
    ("linux.memoryPolicy", process::memory_policy),
    ("linux.sysctl", namespaces::sysctls),
    ("linux.seccomp", seccomp::calls),
    ("linux.rootfsPropagation", rootfs::propagation),
    ("linux.maskedPaths", hidden::masked),
    ("linux.readonlyPaths", hidden::read_only),
    ("linux.personality", process::personality),
];

/// Checks against each file in turn.
pub fn run(files: &[String]) -> Outcome {
    let mut failed = 0;
    let mut stdout = io::stdout().lock();
    for file in files {
        let expected = Expected::read(file)?;
        writeln!(stdout, "# {file}\n1..{}", CHECKS.len())?;
        for (index, (name, check)) in CHECKS.iter().enumerate() {
            let findings = check(&expected).unwrap_or_else(|err| vec![format!("look: {err}")]);
            if findings.is_empty() {
                writeln!(stdout, "ok {} - {name}", index + 1)?;
            } else {
                failed += 1;
                writeln!(stdout, "not ok {} - {name}: {}", index + 1, findings.join("; "))?;
            }
        }
    }
    stdout.flush()?;
    u8::try_from(failed.min(MOST)).map_err(io::Error::other)
}

/// One finding, unless both are the same.
fn compare<E: PartialEq<G> + std::fmt::Debug, G: std::fmt::Debug>(
    what: &str,
    expected: E,
    got: G,
) -> Vec<String> {
    if expected == got {
        return Vec::new();
    }
    let what = if what.is_empty() { String::new() } else { format!("{what} ") };
    vec![format!("{what}expected {expected:?}, got {got:?}")]
}

/// The value of a line `NAME:\tVALUE` of proc_pid_status(5).
fn status(name: &str) -> io::Result<String> {
    fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
        .ok_or_else(|| io::Error::other(format!("no {name} in /proc/self/status")))
}
