//! How much a container may use: of memory, processor time and processes (its cgroup), and of what setrlimit(2) bounds.
//!
//! The VM is made large enough for the container by default, see `machine`.

use oci_spec::runtime::{
    LinuxMemory, LinuxPids, LinuxResources, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, Spec,
};
use serde::{Deserialize, Serialize};

/// Docker's least: with less, not even the set-up of a container fits.
const MEMORY_MIN: u64 = 6 << 20;
/// The period of the CPU limit, in microseconds: docker's, and the kernel's own.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel's least quota, in microseconds (Documentation/scheduler/sched-bwc.rst).
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// What its cgroup bounds; it can be changed while the container runs.
#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct ResourceFlags {
    /// Memory it may use, in bytes or with a unit: b, k, m, g
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// Processor time it may use, such as 1.5 CPUs
    #[arg(long = "cpus", value_name = "N", value_parser = cpu_quota_us)]
    pub cpu_quota_us: Option<u64>,
    /// Processes and threads it may have; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub pids_limit: Option<i64>,
}

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct LimitFlags {
    #[command(flatten)]
    pub resources: ResourceFlags,
    /// A limit of setrlimit(2), such as nofile=1024:2048; -1 is none
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub ulimits: Vec<PosixRlimit>,
}

impl ResourceFlags {
    /// The processors that the quota can keep busy.
    pub fn whole_cpus(&self) -> Option<u64> {
        self.cpu_quota_us.map(|quota| quota.div_ceil(CPU_PERIOD_US))
    }

    /// The limit in MiB.
    pub fn memory_mib(&self) -> Option<u64> {
        self.memory.map(|bytes| bytes.div_ceil(1 << 20))
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.memory.is_none() && self.cpu_quota_us.is_none() && self.pids_limit.is_none()
    }

    pub fn edit_resources(&self, resources: &mut LinuxResources) {
        if let Some(bytes) = self.memory {
            let mut memory = LinuxMemory::default();
            memory.set_limit(i64::try_from(bytes).ok()); // `memory` bounds it
            resources.set_memory(Some(memory));
        }
        if let Some(quota_us) = self.cpu_quota_us {
            let mut cpu = resources.cpu().clone().unwrap_or_default();
            cpu.set_quota(i64::try_from(quota_us).ok()).set_period(Some(CPU_PERIOD_US));
            resources.set_cpu(Some(cpu));
        }
        if let Some(limit) = self.pids_limit {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
    }
}

impl LimitFlags {
    pub fn edit_process(&self, process: &mut Process) {
        let mut limits = process.rlimits().clone().unwrap_or_default();
        for ulimit in &self.ulimits {
            limits.retain(|limit| limit.typ() != ulimit.typ());
            limits.push(*ulimit);
        }
        process.set_rlimits((!limits.is_empty()).then_some(limits));
    }

    pub fn edit_spec(&self, spec: &mut Spec) {
        if self.resources.is_empty() {
            return;
        }
        let mut linux = spec.linux().clone().unwrap_or_default();
        let mut resources = linux.resources().clone().unwrap_or_default();
        self.resources.edit_resources(&mut resources);
        linux.set_resources(Some(resources));
        spec.set_linux(Some(linux));
    }
}

/// A size as docker takes it: `512m`, `1.5g`; a plain number is bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    shift
        .and_then(|shift: u32| times(number, 1 << shift))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "a size in bytes, or with a unit: b, k, m, g, such as 512m".to_string())
}

fn memory(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        size @ MEMORY_MIN.. => Ok(size),
        _ => Err("less than 6m is not enough for any container; a plain number is bytes".into()),
    }
}

fn cpu_quota_us(text: &str) -> Result<u64, String> {
    times(text, CPU_PERIOD_US)
        .filter(|quota| (CPU_QUOTA_MIN_US..=64 * CPU_PERIOD_US).contains(quota))
        .ok_or_else(|| "a number of CPUs from 0.01 to 64, such as 1.5".to_string())
}

/// A decimal number times `unit`, rounded up.
fn times(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = [whole, fraction].concat();
    if whole.is_empty() || digits.len() > 18 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    u64::try_from((digits.parse::<u128>().ok()? * u128::from(unit)).div_ceil(scale)).ok()
}

/// `nofile=1024:2048`; with one number it is both limits, as with docker.
fn ulimit(text: &str) -> Result<PosixRlimit, String> {
    let (name, limits) = text.split_once('=').ok_or("NAME=SOFT[:HARD], such as nofile=1024")?;
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase()).parse::<PosixRlimitType>();
    let kind = kind.map_err(|_| format!("there is no limit {name:?}; setrlimit(2) has them"))?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (rlimit_value(soft)?, rlimit_value(hard)?);
    if soft > hard {
        return Err(format!("the soft limit of {limits:?} is above the hard one"));
    }
    let limit = PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
    limit.map_err(|err| err.to_string())
}

/// -1 is RLIM_INFINITY.
fn rlimit_value(text: &str) -> Result<u64, String> {
    match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => text.parse().map_err(|_| format!("{text:?} is not a limit: a number, or -1 for none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, size) in
            [("7000000", 7_000_000), ("6M", 6 << 20), ("1.5g", 3 << 29), ("65536kb", 64 << 20)]
        {
            assert_eq!(memory(text), Ok(size), "{text}");
        }
        for bad in ["", "m", "-1m", "1.5.1g", "10x", "1e9", "99999999999g", ".5g", "100", "6143k"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert!(memory("100").unwrap_err().contains("a plain number is bytes"));
    }

    #[test]
    fn cpus_are_a_share_of_the_period() {
        assert_eq!(cpu_quota_us("1.5"), Ok(150_000));
        assert_eq!(cpu_quota_us("0.01"), Ok(1_000));
        assert_eq!(cpu_quota_us("2"), Ok(200_000));
        for bad in ["0", "0.001", "65", "-1", "half", ""] {
            assert!(cpu_quota_us(bad).is_err(), "{bad}");
        }
        let flags = ResourceFlags { cpu_quota_us: Some(150_000), ..ResourceFlags::default() };
        assert_eq!(flags.whole_cpus(), Some(2));
    }

    #[test]
    fn ulimits_are_checked_when_they_are_said() {
        let nofile = ulimit("nofile=10:20").unwrap();
        assert_eq!(nofile.typ(), PosixRlimitType::RlimitNofile);
        assert_eq!((nofile.soft(), nofile.hard()), (10, 20));
        assert_eq!(ulimit("core=-1").unwrap().hard(), u64::MAX);
        for bad in ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=x", "=1"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_reach_the_spec_and_replace_its_own() {
        let flags = LimitFlags {
            resources: ResourceFlags {
                memory: Some(8 << 20),
                cpu_quota_us: Some(50_000),
                pids_limit: Some(7),
            },
            ulimits: vec![ulimit("nofile=10:20").unwrap(), ulimit("nofile=30").unwrap()],
        };
        let mut spec = Spec::default();
        flags.edit_spec(&mut spec);
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(8 << 20));
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(50_000));
        assert_eq!(resources.pids().unwrap().limit(), 7);
        let mut process = Process::default();
        flags.edit_process(&mut process);
        let limits = process.rlimits().as_ref().unwrap();
        let nofile: Vec<_> =
            limits.iter().filter(|l| l.typ() == PosixRlimitType::RlimitNofile).collect();
        assert_eq!((nofile.len(), nofile[0].soft(), nofile[0].hard()), (1, 30, 30));
    }

    #[test]
    fn nothing_said_changes_nothing() {
        let (mut spec, before) = (Spec::default(), Spec::default());
        LimitFlags::default().edit_spec(&mut spec);
        assert_eq!(spec, before);
    }
}
