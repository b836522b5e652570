//! What is in a container's /dev: OCI "Default Devices", its links, and `linux.devices`.
//!
//! Nodes are made on the container's own tmpfs. What may be opened of them is another matter: see `device_rules`.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Stat, Uid, chmod, chownat, fstat, major, makedev,
    minor, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::mounts::clean;
use super::spec::{Device, DeviceKind};
use super::tree::{Links, Tree};
use crate::error::{Code, Context, Error, Result};
use crate::sys::path_of;

/// Path, minor number; all are memory devices (major 1) but the terminal.
const NODES: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// A /dev that is bound from elsewhere is not the container's: what the spec lists there must be there already.
pub fn find_or_make(tree: &Tree, devices: &[Device]) -> Result<()> {
    for device in devices {
        let made = if clean(&device.path).starts_with("/dev/") { find } else { try_make };
        made(tree, device).context(|| format!("device {:?}", device.path))?;
    }
    Ok(())
}

fn find(tree: &Tree, device: &Device) -> Result<()> {
    let stat = fstat(tree.open(&device.path, OFlags::PATH | OFlags::NOFOLLOW, Links::Follow)?)?;
    require_same(&stat, device.kind)
}

/// Makes the default nodes and links, then the spec's nodes. What the spec lists under a default's path replaces it.
/// `root` is the uid and gid of the container's root.
pub fn populate(tree: &Tree, devices: &[Device], root: (u32, u32)) -> Result<()> {
    let (uid, gid) = root;
    for &(path, major, minor) in NODES {
        if !devices.iter().any(|device| device.path == path) {
            let kind = DeviceKind::Character { major, minor };
            make(tree, &Device { path: path.to_owned(), kind, mode: 0o666, uid, gid })?;
        }
    }
    for &(path, target) in LINKS {
        link(tree, path, target).context(|| format!("link {path:?}"))?;
    }
    devices.iter().try_for_each(|device| make(tree, device))
}

fn make(tree: &Tree, device: &Device) -> Result<()> {
    try_make(tree, device).context(|| format!("make device {:?}", device.path))
}

/// The caller's umask is 0, so the mode comes out as it is asked for.
fn try_make(tree: &Tree, Device { path, kind, mode, uid, gid }: &Device) -> Result<()> {
    let (parent, name) = tree.create_parent(path)?;
    let (file_type, number) = type_and_number(*kind);
    let mode = Mode::from_raw_mode(*mode);
    match mknodat(&parent, name, file_type, mode, number) {
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = openat(&parent, name, flags, Mode::empty())?;
            require_same(&fstat(&there)?, *kind)?;
            chmod(path_of(there.as_fd()), mode)?; // by what was looked at, as a name may change
        }
        made => made?,
    }
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    Ok(chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn type_and_number(kind: DeviceKind) -> (FileType, Dev) {
    match kind {
        DeviceKind::Character { major, minor } => {
            (FileType::CharacterDevice, makedev(major, minor))
        }
        DeviceKind::Block { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
        DeviceKind::Fifo => (FileType::Fifo, 0),
    }
}

fn require_same(there: &Stat, kind: DeviceKind) -> Result<()> {
    let (file_type, number) = type_and_number(kind);
    if FileType::from_raw_mode(there.st_mode) == file_type && there.st_rdev == number {
        return Ok(());
    }
    let found = (major(there.st_rdev), minor(there.st_rdev));
    Err(Error::new(Code::AlreadyExists, format!("another file is there, device {found:?}")))
}

/// A link that an image has there already is the image's choice.
fn link(tree: &Tree, path: &str, target: &str) -> rustix::io::Result<()> {
    let (parent, name) = tree.create_parent(path)?;
    match symlinkat(target, &parent, name) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}
