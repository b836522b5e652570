//! What a cgroup's limits are: OCI `linux.resources` as files of cgroup v2, and the writing of them.
//!
//! The numbers are cgroup v1's and are converted as the other OCI runtimes do it. A file that `unified` names is
//! written from there alone. To limit a disk waits until its queue is empty, so that is done by a child.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::spec::{DeviceNumber, IoLimit, Limit, RdmaLimit, Resources};
use crate::error::{Code, Context, Error, Result};
use crate::offload;
use crate::reaper::Reaper;
use crate::sys::CGROUP_ROOT;

/// How long a disk may take to answer what it was asked before.
const IO_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub file: String,
    pub value: String,
    /// Of a file that not every kernel has, and that says the same once more.
    pub is_optional: bool,
}

/// Sets all limits but those of disks.
pub fn apply(cgroup: &Path, resources: &Resources) -> Result<()> {
    settings(resources)
        .iter()
        .filter(|setting| !is_io(setting))
        .try_for_each(|setting| set(cgroup, setting))
}

/// Sets the limits of disks, if there are any.
pub async fn apply_io(cgroup: &Path, resources: &Resources, reaper: &Reaper) -> Result<()> {
    let settings: Vec<Setting> = settings(resources).into_iter().filter(is_io).collect();
    if settings.is_empty() {
        return Ok(());
    }
    let devices = resources.io_device_weights.iter().map(|(device, _)| *device);
    let weighed: Vec<DeviceNumber> = devices.collect();
    offload::run(reaper, IO_DEADLINE, || {
        weighed.iter().try_for_each(|device| weigh(*device))?;
        settings.iter().try_for_each(|setting| set(cgroup, setting))
    })
    .await
}

fn is_io(setting: &Setting) -> bool {
    setting.file.starts_with("io.")
}

/// A disk has weights once its cost is modelled (cgroup-v2, "IO Cost"), which the root's file says.
pub fn weigh((major, minor): DeviceNumber) -> Result<()> {
    write(&Path::new(CGROUP_ROOT).join("io.cost.qos"), &format!("{major}:{minor} enable=1"))
        .context(|| format!("linux.resources.blockIO.weightDevice {major}:{minor}"))
}

pub fn set(cgroup: &Path, Setting { file, value, is_optional }: &Setting) -> Result<()> {
    match write(&cgroup.join(file), value) {
        Err(err) if err.raw_os_error() == Some(Errno::ENOENT as i32) => {
            if *is_optional {
                Ok(())
            } else {
                Err(missing(cgroup, file))
            }
        }
        written => written.context(|| format!("set {file} to {value:?}")),
    }
}

/// One write(2) a line: the kernel takes one device at a time.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    value.lines().filter(|line| !line.is_empty()).try_for_each(|line| {
        let written = file.write(line.as_bytes())?;
        if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    })
}

/// Why a file is not there: its controller is not, or there is no such file of it.
pub fn missing(cgroup: &Path, file: &str) -> Error {
    let controller = file.split('.').next().unwrap_or_default();
    let controllers = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|known| known == controller) {
        let message = format!("linux.resources: {file:?}: the cgroup has no such file");
        return Error::new(Code::InvalidArgument, message);
    }
    let message = format!(
        "linux.resources: {file:?}: not supported by this guest: its kernel has no cgroup \
         controller {controller:?}"
    );
    Error::new(Code::Unimplemented, message)
}

/// Which files of the cgroup get which values, in the order in which the kernel takes them.
pub fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |file: &str, value: Option<String>, is_optional| {
        if let Some(value) = value {
            settings.push(Setting { file: file.to_owned(), value, is_optional });
        }
    };
    set("memory.max", resources.memory_limit.map(limit), false);
    set("memory.low", resources.memory_reservation.map(limit), false);
    set("memory.swap.max", resources.swap_limit.map(limit), false);
    set("cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()), false);
    set("cpu.idle", resources.cpu_idle.map(|idle| u8::from(idle).to_string()), false); // an idle one takes no weight
    set("cpu.max", bandwidth(resources.cpu_quota_us, resources.cpu_period_us), false);
    set("cpu.max.burst", resources.cpu_burst_us.map(|burst| burst.to_string()), false); // at most the quota
    set("cpuset.cpus", resources.cpus.clone(), false);
    set("cpuset.mems", resources.mems.clone(), false);
    set("pids.max", resources.pids_limit.map(limit), false);
    for (size, bytes) in &resources.hugepage_limits {
        set(&format!("hugetlb.{size}.max"), Some(bytes.to_string()), false);
        set(&format!("hugetlb.{size}.rsvd.max"), Some(bytes.to_string()), true); // from the mmap(2) on
    }
    set(
        "io.weight",
        resources.io_weight.map(|weight| format!("default {}", io_weight(weight))),
        false,
    );
    for ((major, minor), weight) in &resources.io_device_weights {
        set("io.weight", Some(format!("{major}:{minor} {}", io_weight(*weight))), false);
    }
    for IoLimit { device: (major, minor), what, rate } in &resources.io_limits {
        set("io.max", Some(format!("{major}:{minor} {what}={}", limit(*rate))), false);
    }
    for RdmaLimit { device, handles, objects } in &resources.rdma_limits {
        let number = |number: &Option<u32>| number.map_or("max".to_owned(), |n| n.to_string());
        let (handles, objects) = (number(handles), number(objects));
        set("rdma.max", Some(format!("{device} hca_handle={handles} hca_object={objects}")), false);
    }
    let unified = &resources.unified;
    settings.retain(|setting| unified.iter().all(|(file, _)| *file != setting.file));
    settings.extend(unified.iter().map(|(file, value)| Setting {
        file: file.clone(),
        value: value.clone(),
        is_optional: false,
    }));
    settings
}

fn limit(limit: Limit) -> String {
    match limit {
        Limit::Max => "max".to_owned(),
        Limit::Of(value) => value.to_string(),
    }
}

/// Shares of cgroup v1 (2 to 262144) as weight of v2 (1 to 10000), in proportion, as all OCI runtimes do.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// A weight of cgroup v1 (10 to 1000) as one of v2 (1 to 10000), in proportion too.
fn io_weight(weight: u32) -> u32 {
    1 + (weight.clamp(10, 1000) - 10) * 9_999 / 990
}

/// `cpu.max`: quota and period in microseconds; a period alone keeps the quota that a new cgroup has.
fn bandwidth(quota: Option<Limit>, period: Option<u64>) -> Option<String> {
    match (quota, period) {
        (None, None) => None,
        (quota, None) => quota.map(limit),
        (quota, Some(period)) => Some(format!("{} {period}", limit(quota.unwrap_or(Limit::Max)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(resources: &Resources) -> Vec<String> {
        let line = |Setting { file, value, .. }| format!("{file}={value}");
        settings(resources).into_iter().map(line).collect()
    }

    #[test]
    fn limits_become_files() {
        let resources = Resources {
            memory_limit: Some(Limit::Of(64 << 20)),
            memory_reservation: Some(Limit::Of(1 << 20)),
            swap_limit: Some(Limit::Of(0)),
            cpu_shares: Some(1024),
            cpu_quota_us: Some(Limit::Of(50_000)),
            cpu_period_us: Some(100_000),
            cpu_burst_us: Some(20_000),
            cpu_idle: Some(true),
            cpus: Some("0-1".to_owned()),
            pids_limit: Some(Limit::Max),
            hugepage_limits: vec![("2MB".to_owned(), 0)],
            io_weight: Some(500),
            io_device_weights: vec![((8, 0), 1000)],
            io_limits: vec![IoLimit { device: (8, 16), what: "rbps", rate: Limit::Of(4096) }],
            rdma_limits: vec![RdmaLimit {
                device: "mlx5_1".to_owned(),
                handles: Some(3),
                objects: None,
            }],
            ..Resources::default()
        };
        assert_eq!(
            lines(&resources),
            [
                "memory.max=67108864",
                "memory.low=1048576",
                "memory.swap.max=0",
                "cpu.weight=39",
                "cpu.idle=1",
                "cpu.max=50000 100000",
                "cpu.max.burst=20000",
                "cpuset.cpus=0-1",
                "pids.max=max",
                "hugetlb.2MB.max=0",
                "hugetlb.2MB.rsvd.max=0",
                "io.weight=default 4950",
                "io.weight=8:0 10000",
                "io.max=8:16 rbps=4096",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=max",
            ]
        );
        assert!(lines(&Resources::default()).is_empty());
    }

    #[test]
    fn a_file_of_unified_is_written_from_there_alone() {
        let resources = Resources {
            memory_limit: Some(Limit::Of(1)),
            pids_limit: Some(Limit::Of(2)),
            unified: vec![("memory.max".to_owned(), "3".to_owned())],
            ..Resources::default()
        };
        assert_eq!(lines(&resources), ["pids.max=2", "memory.max=3"]);
    }

    #[test]
    fn shares_and_weights_span_those_of_version_2() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 39, 10_000, 10_000]);
        assert_eq!([10, 100, 1000].map(io_weight), [1, 910, 10_000]);
    }

    #[test]
    fn a_period_alone_has_no_quota() {
        assert_eq!(bandwidth(None, Some(50_000)).unwrap(), "max 50000");
        assert_eq!(bandwidth(Some(Limit::Of(1_000)), None).unwrap(), "1000");
        assert_eq!(bandwidth(None, None), None);
    }
}
