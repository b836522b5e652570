//! Memory of a cgroup.

use std::path::Path;

use crate::error::Result;
use crate::sys::CGROUP_ROOT;
use crate::textfile::{number, numbers, read, read_optional, single};

/// What version 1 says where there is no limit comes near it; who reads takes all this large for none.
pub const UNLIMITED: u64 = u64::MAX;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: Usage,
    /// Swap alone.
    pub swap: Usage,
    pub kernel_bytes: u64,
    /// `memory.stat`, and names of version 1.
    pub details: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub peak_bytes: u64,
    /// How often the limit was hit.
    pub failures: u64,
    pub limit_bytes: u64,
}

impl Memory {
    pub fn read(cgroup: &Path) -> Result<Self> {
        let stat = read(&cgroup.join("memory.stat"))?;
        let usage = Usage::read(cgroup, "memory")?;
        let swap = Usage::read(cgroup, "memory.swap")?;
        let limits = Limits { memory: lowest(cgroup, "memory.max"), swap: swap.limit_bytes };
        Ok(Self {
            usage,
            swap,
            kernel_bytes: number(&stat, "kernel"),
            details: with_v1_names(&stat, swap.bytes, &limits),
        })
    }

    /// Page cache.
    pub fn cache_bytes(&self) -> u64 {
        self.details.iter().find(|(name, _)| name == "file").map_or(0, |(_, bytes)| *bytes)
    }
}

impl Usage {
    fn read(cgroup: &Path, prefix: &str) -> Result<Self> {
        let file = |what: &str| cgroup.join(format!("{prefix}.{what}"));
        Ok(Self {
            bytes: single(&read(&file("current"))?).unwrap_or_default(),
            peak_bytes: single(&read_optional(&file("peak"))).unwrap_or_default(), // since Linux 5.19, 6.5
            failures: number(&read(&file("events"))?, "max"),
            limit_bytes: single(&read(&file("max"))?).unwrap_or(UNLIMITED),
        })
    }
}

pub struct Limits {
    pub memory: u64,
    pub swap: u64,
}

/// The lowest limit of the cgroup and those above it.
fn lowest(cgroup: &Path, file: &str) -> u64 {
    let own = cgroup.ancestors().take_while(|path| *path != Path::new(CGROUP_ROOT));
    own.filter_map(|path| single(&read_optional(&path.join(file)))).min().unwrap_or(UNLIMITED)
}

/// Names of version 1 that version 2 has another word for. What it has no number for (`pgpgin`) is not made up.
const V1_NAMES: &[(&str, &str)] = &[
    ("cache", "file"),
    ("rss", "anon"),
    ("rss_huge", "anon_thp"),
    ("mapped_file", "file_mapped"),
    ("dirty", "file_dirty"),
    ("writeback", "file_writeback"),
];
/// Those that are called the same in both.
const SAME_NAMES: &[&str] = &[
    "shmem",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
];

/// `memory.stat` as it is, then the names of version 1, each with its `total_`: version 2 always counts a cgroup with
/// all that is below it.
pub fn with_v1_names(stat: &str, swap_bytes: u64, limits: &Limits) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> =
        numbers(stat).map(|(name, number)| (name.to_owned(), number)).collect();
    let mut total = |name: &str, value: u64| all.push((format!("total_{name}"), value));
    for (v1, v2) in V1_NAMES {
        total(v1, number(stat, v2));
    }
    for name in SAME_NAMES {
        total(name, number(stat, name));
    }
    total("swap", swap_bytes);
    all.extend(V1_NAMES.iter().map(|(v1, v2)| ((*v1).to_owned(), number(stat, v2))));
    let both = limits.memory.saturating_add(limits.swap);
    let more = [
        ("swap", swap_bytes),
        ("hierarchical_memory_limit", limits.memory),
        ("hierarchical_memsw_limit", both),
    ];
    all.extend(more.map(|(name, value)| (name.to_owned(), value)));
    all
}
