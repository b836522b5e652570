//! Which mounts a container gets and in which order: the plan, all of it pure.

use rustix::mount::MountPropagationFlags as Propagation;

use super::mount_options::MountOptions;
use super::spec::{FsType, Mount, MountSource};
use crate::error::{Code, Error, Result};

/// Without a leading, trailing or double slash, and without `.`; `..` stays, as links make it mean what only the
/// kernel knows.
pub fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// OCI "Default Filesystems", and what a program expects beside them: given where a spec does not.
struct DefaultMount {
    destination: &'static str,
    fstype: FsType,
    source: &'static str,
    options: &'static [&'static str],
}

const DEFAULTS: &[DefaultMount] = &[
    DefaultMount {
        destination: "/proc",
        fstype: FsType::Proc,
        source: "proc",
        options: &["nosuid", "noexec", "nodev"],
    },
    DefaultMount {
        destination: "/dev",
        fstype: FsType::Tmpfs,
        source: "tmpfs",
        options: &["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    DefaultMount {
        destination: "/dev/pts",
        fstype: FsType::Devpts,
        source: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    DefaultMount {
        destination: "/dev/shm",
        fstype: FsType::Tmpfs,
        source: "shm",
        options: &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    DefaultMount {
        destination: "/dev/mqueue",
        fstype: FsType::Mqueue,
        source: "mqueue",
        options: &["nosuid", "noexec", "nodev"],
    },
    DefaultMount {
        destination: "/sys",
        fstype: FsType::Sysfs,
        source: "sysfs",
        options: &["nosuid", "noexec", "nodev", "ro"],
    },
];

/// The mounts of a container in the order in which to make them: the spec's in the spec's order, and the defaults that
/// it does not list before them, each right behind its parent so that the parent does not cover it.
pub fn plan(listed: &[Mount]) -> Result<Vec<Mount>> {
    listed.iter().try_for_each(refuse_over_proc)?;
    refuse_below_shared(listed)?;
    let lists =
        |destination: &str| listed.iter().any(|mount| clean(&mount.destination) == destination);
    let has_own_dev = lists("/dev");
    let mut steps = Vec::with_capacity(listed.len() + DEFAULTS.len());
    let mut below_dev = Vec::new();
    for default in DEFAULTS.iter().filter(|default| !lists(default.destination)) {
        let covered = has_own_dev && default.destination.starts_with("/dev/");
        let list = if covered { &mut below_dev } else { &mut steps };
        list.push(default_mount(default)?);
    }
    for mount in listed {
        steps.push(mount.clone());
        let is_dev = clean(&mount.destination) == "/dev";
        // A bound /dev comes with what is in it.
        if is_dev
            && matches!(mount.source, MountSource::Filesystem { .. } | MountSource::Overlay { .. })
        {
            steps.append(&mut below_dev);
        }
    }
    Ok(steps)
}

/// A container whose /dev is bound from elsewhere keeps it as it is: no nodes and no links are made in it.
pub fn makes_devices(listed: &[Mount]) -> bool {
    !listed.iter().any(|mount| {
        clean(&mount.destination) == "/dev" && matches!(mount.source, MountSource::Bind { .. })
    })
}

fn default_mount(default: &DefaultMount) -> Result<Mount> {
    Ok(Mount {
        destination: default.destination.to_owned(),
        source: MountSource::Filesystem {
            fstype: default.fstype,
            source: default.source.to_owned(),
        },
        options: MountOptions::parse(default.options.iter().copied())?,
        id_map: None,
    })
}

/// Files of /proc that describe the machine and control nothing: lxcfs and its like may cover them.
const COVERABLE_IN_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

pub fn may_cover_in_proc(destination: &str) -> bool {
    COVERABLE_IN_PROC.contains(&clean(destination).as_str())
}

/// A false /proc would defeat masking, sysctls and whatever else trusts it (CVE-2019-16884, CVE-2025-52881).
fn refuse_over_proc(mount: &Mount) -> Result<()> {
    let destination = clean(&mount.destination);
    let is_proc = matches!(&mount.source, MountSource::Filesystem { fstype: FsType::Proc, .. });
    let harmless = match destination.strip_prefix("/proc") {
        Some("") => is_proc,
        Some(below) if below.starts_with('/') => may_cover_in_proc(&destination),
        Some(_) | None => true,
    };
    if harmless {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidArgument,
        format!("mount on {destination:?}: nothing but proc may cover /proc"),
    ))
}

/// What is mounted on a mount that the guest shares shows there too, and would stay when the container is gone.
fn refuse_below_shared(listed: &[Mount]) -> Result<()> {
    for (at, upper) in listed.iter().enumerate() {
        let is_shared = matches!(upper.source, MountSource::Bind { .. })
            && upper.options.propagation.iter().any(|kind| kind.contains(Propagation::SHARED));
        let top = clean(&upper.destination);
        let below = listed
            .iter()
            .skip(at + 1)
            .map(|mount| clean(&mount.destination))
            .find(|path| path.strip_prefix(&top).is_some_and(|rest| rest.starts_with('/')));
        if let Some(below) = below.filter(|_| is_shared) {
            let message =
                format!("mount on {below:?}: {top:?} is shared with the guest, and so would it be");
            return Err(Error::new(Code::InvalidArgument, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
