//! What a container has used: the files of its cgroup as numbers.
//!
//! The numbers are cgroup v2's own. Only what kubelet and containerd look for by the names of version 1 (`rss`,
//! `total_inactive_file`) is added under those, see [`memory::with_v1_names`].

mod disks;
mod memory;

use std::fs;
use std::path::Path;

pub use disks::Disk;
pub use memory::{Memory, Usage};

use super::Container;
use crate::error::{Context, Result};
use crate::textfile::{number, read, read_optional, single};

/// Sizes of huge pages that a processor has, at the most.
const HUGEPAGE_SIZES_MAX: usize = 16;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: u64,
    /// None: no limit.
    pub pids_limit: Option<u64>,
    pub disks: Vec<Disk>,
    /// By page size, as the kernel names it (`2MB`).
    pub hugepages: Vec<(String, Hugepages)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    pub usage_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// Of `cpu.max`.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hugepages {
    pub usage_bytes: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

impl Container {
    /// Reads them all: they are as old as this call.
    pub fn stats(&self) -> Result<Stats> {
        let cgroup = self.cgroup.path();
        Ok(Stats {
            cpu: cpu(&read(&cgroup.join("cpu.stat"))?),
            memory: Memory::read(cgroup)?,
            pids: single(&read(&cgroup.join("pids.current"))?).unwrap_or_default(),
            pids_limit: single(&read(&cgroup.join("pids.max"))?),
            disks: disks::parse(&read(&cgroup.join("io.stat"))?),
            hugepages: hugepages(cgroup)?,
        })
    }

    /// Processor time in nanoseconds, bytes of memory, and tasks: what every look at the guest reads.
    pub fn figures(&self) -> [u64; 3] {
        let file = |name: &str| read_optional(&self.cgroup.path().join(name));
        let figure = |name: &str| single(&file(name)).unwrap_or_default();
        [cpu(&file("cpu.stat")).usage_ns, figure("memory.current"), figure("pids.current")]
    }
}

/// `cpu.stat`, which has microseconds.
fn cpu(text: &str) -> Cpu {
    let nanoseconds = |name: &str| number(text, name).saturating_mul(1000);
    Cpu {
        usage_ns: nanoseconds("usage_usec"),
        user_ns: nanoseconds("user_usec"),
        system_ns: nanoseconds("system_usec"),
        periods: number(text, "nr_periods"),
        throttled_periods: number(text, "nr_throttled"),
        throttled_ns: nanoseconds("throttled_usec"),
    }
}

/// Which sizes there are, the names of the files say: `hugetlb.2MB.current`.
fn hugepages(cgroup: &Path) -> Result<Vec<(String, Hugepages)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(cgroup).context(|| format!("read {cgroup:?}"))? {
        let name = entry.context(|| format!("read {cgroup:?}"))?.file_name();
        let Some(size) = name.to_str().and_then(page_size) else { continue };
        let file = |what: &str| read_optional(&cgroup.join(format!("hugetlb.{size}.{what}")));
        let usage_bytes = single(&file("current")).unwrap_or_default();
        let failures = number(&file("events"), "max");
        all.push((size.to_owned(), Hugepages { usage_bytes, failures }));
        if all.len() == HUGEPAGE_SIZES_MAX {
            break;
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

fn page_size(file: &str) -> Option<&str> {
    let size = file.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
    (!size.contains('.')).then_some(size) // "hugetlb.2MB.rsvd.current" says it once more
}

#[cfg(test)]
mod tests;
