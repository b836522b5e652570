//! Which mounts a container gets, with which options, in which order: the plan, all of it pure.
//!
//! Options are those of the OCI runtime-spec ("Linux mount options"). What belongs to the mount becomes attributes of
//! mount_setattr(2); what the table does not know belongs to the filesystem and is its own parser's to refuse.

use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags as Propagation};

use super::spec::{FsType, Mount, MountSource};
use crate::error::{Code, Error, Result};
use crate::sys::mount::MountAttr;

/// What the options of one mount come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// For the mount alone.
    pub attributes: MountAttr,
    /// For the mount and all below it (`rro`, …).
    pub recursive_attributes: MountAttr,
    pub propagation: Option<Propagation>,
    /// `key` or `key=value`, for the filesystem.
    pub data: Vec<String>,
    pub bind: Option<Bind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    Single,
    Recursive,
}

/// An option that sets or clears an attribute; with an `r` before it, on the whole tree.
struct Attribute {
    name: &'static str,
    set: Attr,
    clear: Attr,
}

const NOTHING: Attr = Attr::empty();
const ATIME: Attr = Attr::MOUNT_ATTR__ATIME;

/// An access-time mode replaces the one before, so setting one clears them all first (mount_setattr(2)).
const ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "ro", set: Attr::MOUNT_ATTR_RDONLY, clear: NOTHING },
    Attribute { name: "rw", set: NOTHING, clear: Attr::MOUNT_ATTR_RDONLY },
    Attribute { name: "nosuid", set: Attr::MOUNT_ATTR_NOSUID, clear: NOTHING },
    Attribute { name: "suid", set: NOTHING, clear: Attr::MOUNT_ATTR_NOSUID },
    Attribute { name: "nodev", set: Attr::MOUNT_ATTR_NODEV, clear: NOTHING },
    Attribute { name: "dev", set: NOTHING, clear: Attr::MOUNT_ATTR_NODEV },
    Attribute { name: "noexec", set: Attr::MOUNT_ATTR_NOEXEC, clear: NOTHING },
    Attribute { name: "exec", set: NOTHING, clear: Attr::MOUNT_ATTR_NOEXEC },
    Attribute { name: "nosymfollow", set: Attr::MOUNT_ATTR_NOSYMFOLLOW, clear: NOTHING },
    Attribute { name: "symfollow", set: NOTHING, clear: Attr::MOUNT_ATTR_NOSYMFOLLOW },
    Attribute { name: "nodiratime", set: Attr::MOUNT_ATTR_NODIRATIME, clear: NOTHING },
    Attribute { name: "diratime", set: NOTHING, clear: Attr::MOUNT_ATTR_NODIRATIME },
    Attribute { name: "relatime", set: Attr::MOUNT_ATTR_RELATIME, clear: ATIME },
    Attribute { name: "norelatime", set: Attr::MOUNT_ATTR_STRICTATIME, clear: ATIME },
    Attribute { name: "noatime", set: Attr::MOUNT_ATTR_NOATIME, clear: ATIME },
    Attribute { name: "atime", set: Attr::MOUNT_ATTR_RELATIME, clear: ATIME },
    Attribute { name: "strictatime", set: Attr::MOUNT_ATTR_STRICTATIME, clear: ATIME },
    Attribute { name: "nostrictatime", set: Attr::MOUNT_ATTR_RELATIME, clear: ATIME },
];

/// Said for other systems or for mount(8), and true here anyway.
const WITHOUT_EFFECT: &[&str] =
    &["defaults", "async", "nomand", "noiversion", "nolazytime", "loud", "silent"];

/// Of the OCI spec, and not honoured by this guest.
const REFUSED: &[&str] =
    &["tmpcopyup", "idmap", "ridmap", "remount", "mand", "iversion", "copy-symlink"];

impl MountOptions {
    /// Understands the options of a mount. The later of two that disagree wins, as in mount(8).
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        if let Some(attribute) = attribute_named(option) {
            change(&mut self.attributes, attribute);
        } else if let Some(attribute) = option.strip_prefix('r').and_then(attribute_named) {
            change(&mut self.recursive_attributes, attribute);
        } else if let Some(propagation) = propagation_named(option) {
            self.propagation = Some(propagation);
        } else if REFUSED.contains(&option) {
            return Err(Error::new(
                Code::Unimplemented,
                format!("{option}: not supported by this guest"),
            ));
        } else {
            match option {
                "bind" => self.bind = self.bind.or(Some(Bind::Single)),
                "rbind" => self.bind = Some(Bind::Recursive),
                _ if WITHOUT_EFFECT.contains(&option) => {}
                _ => self.data.push(option.to_owned()),
            }
        }
        Ok(())
    }
}

fn attribute_named(name: &str) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|attribute| attribute.name == name)
}

fn change(attr: &mut MountAttr, Attribute { set, clear, .. }: &Attribute) {
    let (set, clear) = (u64::from(set.bits()), u64::from(clear.bits()));
    attr.set = attr.set & !clear | set;
    let atime = u64::from(ATIME.bits());
    // Setting a plain attribute takes back an earlier clearing of it; the access-time mode keeps its mask.
    attr.clear = attr.clear & !(set & !atime) | clear;
}

/// The values of OCI `linux.rootfsPropagation`, which are mount options too.
pub fn propagation_named(name: &str) -> Option<Propagation> {
    Some(match name {
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::PRIVATE.union(Propagation::REC),
        "slave" => Propagation::DOWNSTREAM,
        "rslave" => Propagation::DOWNSTREAM.union(Propagation::REC),
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::SHARED.union(Propagation::REC),
        "unbindable" => Propagation::UNBINDABLE,
        "runbindable" => Propagation::UNBINDABLE.union(Propagation::REC),
        _ => return None,
    })
}

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
        if is_dev && matches!(mount.source, MountSource::Filesystem { .. }) {
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

#[cfg(test)]
mod tests;
