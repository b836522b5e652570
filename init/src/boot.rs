//! From the kernel's exec of PID 1 to the event loop, and from there to the end of the machine.
//!
//! Both boot modes come through here: `initrd`, where the root is the kernel's rootfs, and `dax`, where it is a
//! read-only EROFS in persistent memory. What differs is found out from the root itself, never configured.

use std::fs;
use std::future::Future;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::{chdir, chroot, getpid, sync};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime;
use tokio::task::LocalSet;

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::sys;
use crate::textfile;

/// Open files at the most (`fs.nr_open`'s default): a connection or a stream is one each.
const OPEN_FILES: u64 = 1 << 20;

/// Open files of all processes that are not root's own (proc_sys_fs(5)).
const FILE_MAX: &str = "/proc/sys/fs/file-max";

/// Threads of the whole guest (proc_sys_kernel(5)). The kernel takes an eighth of its memory for their stacks at the
/// most, which is 1,900 of 256 MiB, and root is not spared.
const THREADS_MAX: &str = "/proc/sys/kernel/threads-max";
/// As many as there are process ids: the default of pid_max.
const THREADS: &str = "32768";

/// linux/magic.h; a kernel built without tmpfs gives the initrd a ramfs.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const TMPFS_MAGIC: FsType = FsType(0x0102_1994);
const EROFS_MAGIC: FsType = FsType(0xe0f5_e1e2);

/// How the uuid of a dm-verity device begins.
const VERITY_UUID: &str = "CRYPT-VERITY-";

/// One moment of the boot, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    /// CLOCK_MONOTONIC: nanoseconds since the kernel's timekeeping began.
    pub monotonic_ns: u64,
    /// The time stamp counter: on a VM whose counter starts at its reset, this counts from the VM's start.
    pub tsc: u64,
}

/// When the boot passed which step; the host asks for it.
#[derive(Debug)]
pub struct Receipt(Vec<Step>);

impl Receipt {
    pub fn start() -> Self {
        let mut receipt = Self(Vec::with_capacity(8));
        receipt.mark("init");
        receipt
    }

    pub fn mark(&mut self, name: &'static str) {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
        let monotonic_ns = seconds * 1_000_000_000 + nanoseconds;
        self.0.push(Step { name, monotonic_ns, tsc: sys::clock::tsc() });
    }

    /// Marks a step that happens again, its first time only.
    pub fn mark_once(&mut self, name: &'static str) {
        if !self.0.iter().any(|step| step.name == name) {
            self.mark(name);
        }
    }

    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// Says on the console what is tried next: if it hangs, this line is the last.
pub fn step(name: &str) {
    log::write_line(name);
}

pub fn require_pid_1() -> Result<()> {
    match getpid().as_raw() {
        1 => Ok(()),
        pid => Err(Error::new(
            Code::FailedPrecondition,
            format!("run as PID 1 of a guest, not as {pid}"),
        )),
    }
}

/// Puts a bind of the root over the root, and goes there alone. `pivot_root(2)` refuses to leave the kernel's rootfs, which
/// has no parent mount; the bind has one. And the kernel's threads stay below it, where nothing else is ever mounted:
/// what a container makes the kernel start (core_pattern, a cgroup's release agent) is looked for there, so that
/// `/proc/PID/root` leads to no container's program.
pub fn make_root_pivotable() -> Result<()> {
    let covered = "/run"; // any directory: it is covered for these five calls only
    mount(Some("/"), covered, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context(|| "bind \"/\"".to_owned())?;
    seal_own_program()?;
    // Until here PID 1's root is one with that of the kernel's threads.
    unshare(CloneFlags::CLONE_FS).context(|| "part from the kernel's root".to_owned())?;
    chdir(covered).context(|| format!("enter {covered:?}"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context(|| "move the root over rootfs".to_owned())?;
    chroot(".").context(|| "enter the moved root".to_owned())
}

/// Our own program stays on this mount: through /proc/PID/exe no container can run it or write to it (CVE-2019-5736).
fn seal_own_program() -> Result<()> {
    let sealed = INERT | MsFlags::MS_RDONLY | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(None::<&str>, "/", None::<&str>, sealed, None::<&str>).context(|| "seal \"/\"".to_owned())
}

/// `initrd`, `dax`, or `disk`: a root that is read through the page cache.
pub fn mode() -> Result<&'static str> {
    Ok(match (is_initrd()?, root_is_dax()?) {
        (true, _) => "initrd",
        (false, true) => "dax",
        (false, false) => "disk",
    })
}

pub fn root_fstype() -> Result<&'static str> {
    Ok(match root_magic()? {
        RAMFS_MAGIC => "ramfs",
        TMPFS_MAGIC => "tmpfs",
        EROFS_MAGIC => "erofs",
        _ => "other", // a root of the user's own making
    })
}

/// Whether the kernel maps PID 1's own file straight from persistent memory: STATX_ATTR_DAX, statx(2).
pub fn root_is_dax() -> Result<bool> {
    let stat = statx(CWD, "/init", AtFlags::empty(), StatxFlags::empty())
        .context(|| "statx \"/init\"".to_owned())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::DAX))
}

/// Whether the root is mounted from a dm-verity device, by the mark that tools give those (cryptsetup's uuid).
pub fn root_is_verity() -> Result<bool> {
    let stat = statx(CWD, "/", AtFlags::empty(), StatxFlags::empty())
        .context(|| "statx \"/\"".to_owned())?;
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    match fs::read_to_string(format!("/sys/dev/block/{device}/dm/uuid")) {
        Ok(uuid) => Ok(uuid.starts_with(VERITY_UUID)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false), // no device mapper's
        Err(err) => Err(err).context(|| format!("read the uuid of block device {device}")),
    }
}

/// The guest's memory as the kernel counts it, in bytes: proc_meminfo(5).
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

impl Memory {
    pub fn read() -> Result<Self> {
        let text = textfile::read(Path::new("/proc/meminfo"))?;
        Ok(Self {
            total_bytes: meminfo_bytes(&text, "MemTotal"),
            available_bytes: meminfo_bytes(&text, "MemAvailable"),
        })
    }
}

/// 0 for a name that the kernel does not report.
fn meminfo_bytes(text: &str, name: &str) -> u64 {
    textfile::labelled(text, name).unwrap_or_default() * 1024
}

fn is_initrd() -> Result<bool> {
    Ok(matches!(root_magic()?, RAMFS_MAGIC | TMPFS_MAGIC))
}

fn root_magic() -> Result<FsType> {
    Ok(statfs("/").context(|| "statfs \"/\"".to_owned())?.filesystem_type())
}

const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NO_SUID: MsFlags = MsFlags::MS_NOSUID;

struct BootMount {
    target: &'static str,
    fstype: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const BOOT_MOUNTS: &[BootMount] = &[
    BootMount { target: "/proc", fstype: "proc", flags: INERT, data: "" },
    BootMount { target: "/sys", fstype: "sysfs", flags: INERT, data: "" },
    BootMount { target: "/dev", fstype: "devtmpfs", flags: NO_SUID, data: "mode=0755" },
    // Not nodev, not noexec: overlays keep a container's own files here.
    BootMount { target: "/run", fstype: "tmpfs", flags: NO_SUID, data: "mode=0755" },
    BootMount {
        target: "/sys/fs/cgroup",
        fstype: "cgroup2",
        flags: INERT,
        data: "nsdelegate,memory_recursiveprot",
    },
];

pub fn mount_filesystems() -> Result<()> {
    for BootMount { target, fstype, flags, data } in BOOT_MOUNTS {
        mount(Some(*fstype), *target, Some(*fstype), *flags, Some(*data))
            .or_else(|errno| already_mounted(target, errno))
            .context(|| format!("mount {fstype} on {target:?}"))?;
    }
    Ok(())
}

/// A kernel with CONFIG_DEVTMPFS_MOUNT has mounted /dev before us: the same filesystem, and no error.
fn already_mounted(target: &str, errno: nix::Error) -> nix::Result<()> {
    if errno == nix::Error::EBUSY && target == "/dev" { Ok(()) } else { Err(errno) }
}

/// Hands every controller that the kernel has to the containers' cgroups. PID 1 stays in the root cgroup, which may
/// hold processes beside children (cgroup-v2, "No Internal Process Constraint") and has no limits.
pub fn delegate_cgroups() -> Result<()> {
    let root = Path::new(sys::CGROUP_ROOT);
    let available = root.join("cgroup.controllers");
    let controllers = fs::read_to_string(&available).context(|| format!("read {available:?}"))?;
    let enable: Vec<String> =
        controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    let enabled = root.join("cgroup.subtree_control");
    fs::write(&enabled, enable.join(" ")).context(|| format!("write {enabled:?}"))
}

/// A container that has many files or threads pays by its memory; a count for the whole guest would be all containers'
/// loss, and PID 1's.
pub fn raise_limits() -> Result<()> {
    let most = i64::MAX.to_string();
    fs::write(FILE_MAX, most).context(|| format!("raise {FILE_MAX:?}"))?;
    fs::write(THREADS_MAX, THREADS).context(|| format!("raise {THREADS_MAX:?}"))?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .context(|| "raise RLIMIT_NOFILE".to_owned())
}

pub fn run_event_loop(serve: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the event loop".to_owned())?;
    LocalSet::new().block_on(&runtime, serve)
}

/// Says why, and stops the machine: a host that waits sees the VM end, and the reason on its console.
pub fn fail(err: &Error) {
    log::write_line(&format!("error: boot: {err}"));
    power_off();
}

/// Ends the machine. Where nothing can cut the power (no ACPI) the kernel would halt for ever, so there it is reset,
/// which a VMM told not to reboot takes as the end.
pub fn power_off() {
    sync();
    let has_acpi = Path::new("/sys/firmware/acpi").exists();
    let mode = if has_acpi { RebootMode::RB_POWER_OFF } else { RebootMode::RB_AUTOBOOT };
    match reboot(mode) {
        Ok(never) => match never {},
        Err(errno) => log::write_line(&format!("error: power off: {}", io::Error::from(errno))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:          61440 kB\nMemFree:            1000 kB\nMemAvailable:      40960 kB\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), 60 << 20);
        assert_eq!(meminfo_bytes(text, "MemAvailable"), 40 << 20);
        assert_eq!(meminfo_bytes(text, "Swap"), 0);
    }
}
