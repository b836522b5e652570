//! What a container gets that asks for nothing: the same as from `docker run`, short of an AppArmor profile.
//!
//! Capabilities, masked and read-only paths are Docker's defaults, in use everywhere; the mounts are those that the OCI
//! runtime specification names in "Default Filesystems", with the options that Docker gives them.

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceType, Mount, Process, Root, Spec, User,
};

use super::seccomp::default_seccomp;
use crate::id::ContainerId;
use crate::storage::{ID_RANGE, rootfs_path};

const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Hidden: they tell of, or reach, the machine as a whole.
const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only: writing to them changes the machine as a whole.
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// New for every container. The containers of a sandbox share its network, ipc and uts namespaces, as those of a
/// Kubernetes pod do.
const NAMESPACES: [LinuxNamespaceType; 3] =
    [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid, LinuxNamespaceType::Cgroup];

/// Destination, type, source, options. The order is that of mounting.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
];

/// The spec of a container that runs `process` and asks for nothing else. Its seccomp profile is [`default_seccomp`] of
/// the process's bounding capabilities; without one it is unconfined (`linux.set_seccomp(None)`). Its root is where [`Storage::overlay`] and
/// [`Storage::shared_rootfs`] put it.
///
/// [`Storage::overlay`]: crate::Storage::overlay
/// [`Storage::shared_rootfs`]: crate::Storage::shared_rootfs
pub fn default_spec(id: &ContainerId, process: Process) -> Spec {
    let mut root = Root::default();
    root.set_path(rootfs_path(id).into()).set_readonly(Some(false));
    let capabilities = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone());
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(NAMESPACES.map(namespace).into()))
        .set_masked_paths(Some(MASKED_PATHS.map(str::to_owned).into()))
        .set_readonly_paths(Some(READONLY_PATHS.map(str::to_owned).into()))
        .set_seccomp(Some(default_seccomp(&capabilities.unwrap_or_default())))
        .set_resources(None);
    let mut spec = Spec::default();
    spec.set_root(Some(root))
        .set_process(Some(process))
        .set_hostname(None)
        .set_mounts(Some(MOUNTS.map(mount).into()))
        .set_linux(Some(linux))
        .set_annotations(None);
    spec
}

/// Puts the container into a user namespace of its own: its root and the next 65535 users and groups are `first` and
/// the next ones in the guest, where they may do nothing. Its root file system must say the same: see
/// [`Storage::idmapped`].
///
/// [`Storage::idmapped`]: crate::Storage::idmapped
pub fn map_ids(spec: &mut Spec, first: u32) {
    let builder =
        LinuxIdMappingBuilder::default().container_id(0_u32).host_id(first).size(ID_RANGE);
    // Nothing is missing, so it is built; an empty one would be refused by the guest.
    let mapping = builder.build().unwrap_or_default();
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.push(namespace(LinuxNamespaceType::User));
    linux
        .set_namespaces(Some(namespaces))
        .set_uid_mappings(Some(vec![mapping]))
        .set_gid_mappings(Some(vec![mapping]));
    spec.set_linux(Some(linux));
}

/// A process with Docker's default capabilities. `args` are the binary and its arguments, `env` is `NAME=value` each,
/// `cwd` an absolute path in the container; `terminal` gives it a terminal of its own instead of pipes.
pub fn default_process(
    args: Vec<String>,
    env: Vec<String>,
    cwd: impl Into<PathBuf>,
    user: User,
    terminal: bool,
) -> Process {
    let set = Some(HashSet::from(CAPABILITIES));
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(set.clone())
        .set_effective(set.clone())
        .set_permitted(set)
        .set_inheritable(None)
        .set_ambient(None);
    let mut process = Process::default();
    process
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd(cwd.into())
        .set_user(user)
        .set_terminal(Some(terminal))
        .set_capabilities(Some(capabilities))
        .set_rlimits(None)
        .set_no_new_privileges(Some(false));
    process
}

/// The user that `docker run -u` or an image's `User` names: `uid`, `uid:gid`, `name`, `name:group`, or empty for root.
///
/// Numbers stay numbers, without a group the group is 0. A name is looked up by the guest in the container's own
/// /etc/passwd and /etc/group; it goes there as it is, as the `username` of the OCI process.
pub fn user(text: &str) -> User {
    let (name, group) = text.split_once(':').unwrap_or((text, "0"));
    let mut user = User::default();
    match (name.parse(), group.parse()) {
        (Ok(uid), Ok(gid)) => user.set_uid(uid).set_gid(gid),
        _ if text.is_empty() => &mut user,
        _ => user.set_username(Some(text.to_owned())),
    };
    user
}

fn namespace(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(None);
    namespace
}

fn mount((destination, fstype, source, options): (&str, &str, &str, &[&str])) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(fstype.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}
