//! What a container is to be, in the guest's own words: no wire type, nothing optional that has a default.
//!
//! `server::oci` makes these from the wire's OCI spec and refuses what they cannot say; the rest of this module carries
//! them out. All of it is plain data: a child process gets it as it is.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::rc::Rc;
use std::time::Duration;

pub use rustix::mount::MountPropagationFlags;
pub use rustix::process::Resource;
pub use rustix::thread::CapabilitySet;

use super::mount_options::{Extent, MountOptions};
use super::seccomp::Filter;
use crate::idmap::IdMaps;

/// OCI runtime-spec `config.json`, without what is the host's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    pub process: ProcessSpec,
    /// A copy of PID 1's is its first process, and the program that one's child.
    pub init: bool,
    pub root: Root,
    /// Empty: the sandbox's.
    pub hostname: String,
    /// NIS domain name. Empty: the sandbox's.
    pub domainname: String,
    /// In the order in which they are made.
    pub mounts: Vec<Mount>,
    pub namespaces: Namespaces,
    pub devices: Vec<Device>,
    /// What is added to `devices` when the container is made.
    pub guest_devices: Vec<GuestDevice>,
    /// Below the root of the cgroup filesystem; normal components only. None: one named after the container.
    pub cgroup_path: Option<String>,
    pub resources: Resources,
    /// Name with dots, value.
    pub sysctls: Vec<(String, String)>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub execution: Execution,
    /// None where the spec has no hook of the guest's.
    pub hooks: Option<Box<Hooks>>,
    pub annotations: Annotations,
}

/// OCI `annotations`, kept for a host that asks what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    pub kept: BTreeMap<String, String>,
    /// There are more than are kept.
    pub truncated: bool,
}

/// OCI `hooks`, those that run in the guest, and what they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    pub oci_version: String,
    pub annotations: BTreeMap<String, String>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: CString,
    /// At least one.
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// None: for as long as it takes.
    pub timeout: Option<Duration>,
}

/// How every process of a container is executed (OCI `linux.personality`, `linux.memoryPolicy`, `linux.seccomp`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Execution {
    pub personality: Option<Personality>,
    pub memory_policy: Option<MemoryPolicy>,
    pub filter: Option<Rc<Filter>>,
}

/// personality(2)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    Linux,
    Linux32,
}

/// set_mempolicy(2)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*`, with its `MPOL_F_*`.
    pub mode: i32,
    pub nodes: NumberSet,
}

/// Numbers of CPUs or of memory nodes, as bits of words; bounded by who made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberSet(pub Vec<u64>);

/// OCI `process`: the container's first, or one that joins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// A pseudo-terminal of the container's own instead of three pipes.
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    /// At least one.
    pub args: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: String,
    pub capabilities: Capabilities,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: i32,
    pub umask: u32,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    /// Of a process that joins; a container's first has `linux.resources.cpu.cpus`.
    pub cpu_affinity: CpuAffinity,
}

/// sched_setattr(2), understood: what the kernel would pass over is not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

/// ioprio_set(2)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    pub class: u8,
    pub level: u8,
}

/// Where a process may run: until it is in its container's cgroup, and from then on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuAffinity {
    pub initial: Option<NumberSet>,
    pub last: Option<NumberSet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleSize {
    pub columns: u16,
    pub rows: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub identity: Identity,
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    Ids {
        uid: u32,
        gid: u32,
    },
    /// `user` or `user:group`, looked up in the container's own files; all digits are an id and never a name.
    Named(String),
}

/// The five sets of capabilities(7), each exactly as it shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: CapabilitySet,
    pub effective: CapabilitySet,
    pub inheritable: CapabilitySet,
    pub permitted: CapabilitySet,
    pub ambient: CapabilitySet,
}

/// None is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    pub resource: Resource,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// In the guest.
    pub path: String,
    pub readonly: bool,
    /// Of the root's mount alone: the others have their own. None is private.
    pub propagation: Option<MountPropagationFlags>,
}

/// OCI `mounts[]`, its options understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// In the container; symbolic links in it stay inside.
    pub destination: String,
    pub source: MountSource,
    pub options: MountOptions,
    /// How the owners of its files are shown.
    pub id_map: Option<(Extent, IdMaps)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A new instance of a filesystem, and the source that the mount table shows.
    Filesystem { fstype: FsType, source: String },
    /// Directories of the guest, one above the other.
    Overlay { layers: Layers, source: String },
    /// A file or directory of the guest, alone or with what is mounted below it.
    Bind { path: String, extent: Extent },
    /// What is mounted at the destination already, to be changed.
    Remount,
}

/// Paths of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// The topmost first, at least one.
    pub lower: Vec<String>,
    /// What is written, and where it is prepared; none: nothing can be.
    pub upper: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsType {
    Proc,
    Sysfs,
    Tmpfs,
    Devpts,
    Mqueue,
    Cgroup2,
    Overlay,
}

impl FsType {
    /// As the OCI spec says it: `cgroup` is whichever version there is, and here it is the second.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "proc" => Self::Proc,
            "sysfs" => Self::Sysfs,
            "tmpfs" => Self::Tmpfs,
            "devpts" => Self::Devpts,
            "mqueue" => Self::Mqueue,
            "cgroup" | "cgroup2" => Self::Cgroup2,
            "overlay" => Self::Overlay,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Sysfs => "sysfs",
            Self::Tmpfs => "tmpfs",
            Self::Devpts => "devpts",
            Self::Mqueue => "mqueue",
            Self::Cgroup2 => "cgroup2",
            Self::Overlay => "overlay",
        }
    }

    /// Whether each mount of it is a filesystem of its own, or all of a namespace are one.
    pub fn has_own_superblock(self) -> bool {
        match self {
            Self::Proc | Self::Tmpfs | Self::Devpts | Self::Overlay => true,
            Self::Sysfs | Self::Mqueue | Self::Cgroup2 => false,
        }
    }

    /// Mount points may have to be made in it, so a read-only one stays writable until all is mounted.
    pub fn is_read_only_late(self) -> bool {
        matches!(self, Self::Tmpfs | Self::Overlay)
    }
}

/// OCI `linux.namespaces`. The mount namespace is always the container's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces {
    pub cgroup: Namespace,
    pub ipc: Namespace,
    /// A new one has nothing but lo.
    pub network: Namespace,
    pub pid: Namespace,
    pub time: Namespace,
    pub uts: Namespace,
    pub user: Option<UserNamespace>,
    /// Of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

impl Namespaces {
    /// How the ids of a new user namespace are mapped.
    pub fn id_maps(&self) -> Option<&IdMaps> {
        match &self.user {
            Some(UserNamespace::New(maps)) => Some(maps),
            Some(UserNamespace::Joined(_)) | None => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// The sandbox's, which its containers share.
    Sandbox,
    New,
    /// A file in the guest: /proc/PID/ns/…, or what is bound to one.
    Joined(String),
}

/// One of the container's own, or of others; never the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespace {
    New(IdMaps),
    Joined(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOffset {
    /// As the kernel names it: `monotonic` or `boottime`.
    pub clock: &'static str,
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// OCI `linux.devices[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub path: String,
    pub kind: DeviceKind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// A node of the guest's own /dev, or a directory of such nodes, that the container gets at a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDevice {
    pub guest_path: String,
    pub path: String,
    pub access: Access,
}

/// OCI `linux.resources`; what is None is left as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub device_rules: Vec<DeviceRule>,
    pub memory_limit: Option<Limit>,
    /// An update to a limit below what is in use is refused.
    pub check_before_update: bool,
    /// Memory that is not reclaimed while others have some to give (`memory.low`).
    pub memory_reservation: Option<Limit>,
    /// Swap alone, without memory.
    pub swap_limit: Option<Limit>,
    /// As cgroup v1 counts, 2 to 262144.
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<Limit>,
    pub cpu_period_us: Option<u64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
    pub pids_limit: Option<Limit>,
    /// Page size as the kernel names it (`2MB`), bytes.
    pub hugepage_limits: Vec<(String, u64)>,
    pub cpu_burst_us: Option<u64>,
    pub cpu_idle: Option<bool>,
    /// As cgroup v1 counts, 10 to 1000: of every disk, and of single ones.
    pub io_weight: Option<u32>,
    pub io_device_weights: Vec<(DeviceNumber, u32)>,
    pub io_limits: Vec<IoLimit>,
    pub rdma_limits: Vec<RdmaLimit>,
    /// Files of the cgroup and what is written to them; they win over all of the above.
    pub unified: Vec<(String, String)>,
}

/// Major and minor number.
pub type DeviceNumber = (u32, u32);

/// OCI `linux.resources.blockIO.throttle*Device[]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimit {
    pub device: DeviceNumber,
    /// As `io.max` has it: `rbps`, `wbps`, `riops`, `wiops`.
    pub what: &'static str,
    pub rate: Limit,
}

/// OCI `linux.resources.rdma`; None is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdmaLimit {
    pub device: String,
    pub handles: Option<u32>,
    pub objects: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Max,
    Of(u64),
}

/// OCI `linux.resources.devices[]`: the last rule that speaks of an access decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: RuleKind,
    /// None is every one.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    All,
    Character,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub mknod: bool,
    pub read: bool,
    pub write: bool,
}

impl DeviceRule {
    pub const DENY_ALL: Self =
        Self { allow: false, kind: RuleKind::All, major: None, minor: None, access: Access::ALL };
}

impl Access {
    pub const ALL: Self = Self { mknod: true, read: true, write: true };
}
