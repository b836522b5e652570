//! The options of a mount (OCI runtime-spec, "Linux mount options"), understood: all of it pure.
//!
//! What belongs to the mount becomes attributes of mount_setattr(2), what belongs to a superblock goes to fsconfig(2) as
//! it is, and what the spec's table does not know is the filesystem's own parser's to refuse.

use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags as Propagation};

use super::spec::FsType;
use crate::error::{Code, Error, Result};
use crate::sys::mount::MountAttr;

/// What the options of one mount come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// For the mount alone.
    pub attributes: MountAttr,
    /// For the mount and all below it (`rro`, …).
    pub recursive_attributes: MountAttr,
    /// In the order in which they are set: `slave`, then `shared`, is both.
    pub propagation: Vec<Propagation>,
    /// Flags of the superblock, as fsconfig(2) names them.
    pub superblock: Vec<&'static str>,
    /// `key` or `key=value`, for the filesystem.
    pub data: Vec<String>,
    pub bind: Option<Extent>,
    pub idmap: Option<Extent>,
    /// A change of what is mounted there already.
    pub remount: bool,
    /// A tmpfs that starts with what it covers.
    pub copy_up: bool,
}

/// How much of a tree of mounts is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
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

/// Flags of a superblock, and their opposites, which a new one has anyway.
const SUPERBLOCK: &[&str] = &["sync", "dirsync", "lazytime", "iversion"];
const SUPERBLOCK_DEFAULTS: &[&str] = &["async", "nolazytime"];

/// True here anyway: of a kernel without mandatory locks, of errors that are always said, of a counter that nobody asks
/// to be switched off.
const WITHOUT_EFFECT: &[&str] = &["defaults", "nomand", "noiversion", "loud", "silent"];

/// Said by some, and not honoured by this guest: why.
const REFUSED: &[(&str, &str)] = &[
    ("mand", ", as Linux has no mandatory locks any more"),
    ("copy-symlink", ""),
    ("src-nofollow", ""),
    ("dest-nofollow", ""),
];

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
        if let Some((_, why)) = REFUSED.iter().find(|(name, _)| *name == option) {
            let message = format!("{option}: not supported by this guest{why}");
            return Err(Error::new(Code::Unimplemented, message));
        }
        let known = |names: &'static [&str]| names.iter().find(|name| **name == option).copied();
        if let Some(attribute) = attribute_named(option) {
            change(&mut self.attributes, attribute);
        } else if let Some(attribute) = option.strip_prefix('r').and_then(attribute_named) {
            change(&mut self.recursive_attributes, attribute);
        } else if let Some(propagation) = propagation_named(option) {
            self.propagation.push(propagation);
        } else if let Some(flag) = known(SUPERBLOCK).or_else(|| known(SUPERBLOCK_DEFAULTS)) {
            self.superblock.push(flag);
        } else {
            match option {
                "bind" => self.bind = self.bind.or(Some(Extent::Single)),
                "rbind" => self.bind = Some(Extent::Recursive),
                "idmap" => self.idmap = self.idmap.or(Some(Extent::Single)),
                "ridmap" => self.idmap = Some(Extent::Recursive),
                "remount" => self.remount = true,
                "tmpcopyup" => self.copy_up = true,
                _ if WITHOUT_EFFECT.contains(&option) => {}
                _ => self.data.push(option.to_owned()),
            }
        }
        Ok(())
    }

    /// The first option that a bind cannot have: it has no superblock of its own.
    pub fn not_of_bind(&self) -> Option<&str> {
        let copy_up = self.copy_up.then_some("tmpcopyup");
        copy_up.or_else(|| self.of_superblock()).or(self.data.first().map(String::as_str))
    }

    /// The first option that a new mount of `fstype` cannot have.
    pub fn not_of_filesystem(&self, fstype: FsType) -> Option<&str> {
        let has = |name: &str| self.superblock.iter().find(|flag| **flag == name).copied();
        let copy_up = (self.copy_up && fstype != FsType::Tmpfs).then_some("tmpcopyup");
        // tmpfs counts changes always; the others have no counter.
        let counter = if fstype == FsType::Tmpfs { None } else { has("iversion") };
        // A superblock that is the guest's too is not the container's to change, and the kernel would ignore it.
        let shared = if fstype.has_own_superblock() { None } else { self.of_superblock() };
        let data = self.data.first().filter(|_| fstype == FsType::Cgroup2).map(String::as_str);
        copy_up.or(counter).or(shared).or(data)
    }

    /// A flag that makes a superblock other than it is anyway.
    pub fn of_superblock(&self) -> Option<&'static str> {
        self.superblock.iter().find(|flag| SUPERBLOCK.contains(flag)).copied()
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

#[cfg(test)]
mod tests;
