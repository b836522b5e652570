//! Mounts that are attached nowhere yet: a new filesystem, or a copy of what the guest has mounted.
//!
//! A source is a path of the guest, and what is mounted there may be a container's to write. So a source is opened
//! once, through no symbolic link, and what was opened is what gets mounted: a link that a container has planted in a
//! volume leads nowhere (CVE-2021-30465 from its other end).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree,
};

use super::fs_context::FsContext;
use super::mount_options::{Extent, MountOptions};
use super::spec::{FsType, Layers};
use super::tree::{Links, Tree};
use crate::error::{Code, Context, Error, Result};
use crate::idmap::{IdMaps, user_namespace};
use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::path_of;

pub const READ_ONLY: MountAttr = MountAttr::new(MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64, 0);

pub const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new filesystem with a mount of it; a read-only one is still writable if mount points may have to be made in it.
pub fn new_filesystem(fstype: FsType, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let context = FsContext::open(fstype.name())?;
    context.set("source", source)?;
    finish(&context, fstype, options)
}

pub fn new_overlay(layers: &Layers, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let context = FsContext::open(FsType::Overlay.name())?;
    context.set("source", source)?;
    let set = |key: &str, path: &str| -> Result<()> {
        let layer = open_source(path)?; // overlayfs opens it again, by this descriptor
        context.set(key, &path_of(layer.as_fd())).context(|| format!("layer {path:?}"))
    };
    layers.lower.iter().try_for_each(|lower| set("lowerdir+", lower))?;
    if let Some((upper, work)) = &layers.upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    finish(&context, FsType::Overlay, options)
}

fn finish(context: &FsContext, fstype: FsType, options: &MountOptions) -> Result<OwnedFd> {
    context.configure(options)?;
    let mut attributes = options.attributes.set;
    if fstype.is_read_only_late() {
        attributes &= !READ_ONLY.set;
    }
    let attributes =
        MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or_default());
    let mount = context.mount(attributes)?;
    set_attributes(mount.as_fd(), true, &options.recursive_attributes)?;
    Ok(mount)
}

/// A copy of the mount that the guest has at `path`, from there on down.
pub fn copy(path: &str, extent: Extent) -> Result<OwnedFd> {
    let place = open_source(path)?;
    Ok(clone_tree(place.as_fd(), extent == Extent::Recursive)?)
}

/// Opens a path of the guest's that is to become part of a container.
pub fn open_source(path: &str) -> Result<OwnedFd> {
    Tree::of_root()?.open(path, OFlags::PATH, Links::Refuse).map_err(|errno| match errno {
        Errno::LOOP => Error::new(
            Code::InvalidArgument,
            format!("source {path:?}: is or goes through a symbolic link"),
        ),
        errno => {
            let cause = Error::from(errno);
            Error::new(cause.code(), format!("source {path:?}: {cause}"))
        }
    })
}

/// A bind whose events the guest and the container are to share is copied while the child is still the guest's peer.
pub fn is_peer_of_guest(options: &MountOptions) -> bool {
    let shares = MountPropagationFlags::SHARED | MountPropagationFlags::DOWNSTREAM;
    options.propagation.iter().any(|propagation| propagation.intersects(shares))
}

/// Shows the files of a detached mount as owned by whom the mappings say.
pub fn map_ids(mount: BorrowedFd<'_>, extent: Extent, maps: &IdMaps) -> Result<()> {
    let namespace = user_namespace(maps)?;
    let attributes = MountAttr::idmap(namespace.as_fd());
    mount_setattr(mount, extent == Extent::Recursive, &attributes).map_err(|err| {
        let cause = Error::from(err);
        match cause.code() {
            Code::InvalidArgument => {
                Error::new(Code::Unimplemented, "idmap: not supported by the filesystem there")
            }
            code => Error::new(code, format!("idmap: {cause}")),
        }
    })
}

pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttr,
) -> Result<()> {
    if *attributes == MountAttr::default() {
        return Ok(());
    }
    mount_setattr(mount, recursive, attributes).context(|| "mount attributes".to_owned())
}

pub fn set_propagation(mount: BorrowedFd<'_>, propagation: MountPropagationFlags) -> Result<()> {
    let recursive = propagation.contains(MountPropagationFlags::REC);
    let kind = propagation.difference(MountPropagationFlags::REC);
    let attributes = MountAttr::propagation(kind.bits().into());
    mount_setattr(mount, recursive, &attributes).context(|| "propagation".to_owned())
}

/// A detached copy of the mount at `place`.
pub fn clone_tree(place: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(place, "", if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags })
}

/// Moves a detached mount onto a place; both are descriptors, no name is looked up.
pub fn attach_mount(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// An empty directory that stays empty.
pub fn empty_read_only_directory() -> Result<OwnedFd> {
    let options = MountOptions {
        attributes: MountAttr::new(INERT.bits().into(), 0),
        data: vec!["nr_inodes=1".to_owned(), "mode=755".to_owned()],
        ..MountOptions::default()
    };
    let mount = new_filesystem(FsType::Tmpfs, "tmpfs", &options)?;
    set_attributes(mount.as_fd(), false, &READ_ONLY)?;
    Ok(mount)
}

/// Makes a detached or attached tree read-only as a whole.
pub fn make_tree_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    set_attributes(mount, true, &READ_ONLY)
}
