//! A container's root: assembled from its plan in the child's own mount namespace, then pivoted to.
//!
//! All mounts are made detached and get their attributes, from sources as the guest sees them; only then is each moved
//! onto the descriptor of its destination, which the kernel has resolved inside the new root (`Tree`). A name that
//! changes in between changes nothing (CVE-2021-30465, CVE-2024-45310), and no mount of the container's is the source of
//! another. After `pivot` the guest's tree is gone from the namespace.
//!
//! The child's copies of the guest's mounts are private: what is mounted here does not show there. Only a root that is a
//! slave, and binds that are shared or slaves, stay tied to the guest's mounts, which PID 1 has shared for them.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Statx, StatxAttributes, StatxFlags, fstat, statx};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::copy_up::{Budget, Said, copy_up};
use super::detached::{
    READ_ONLY, attach_mount, clone_tree, copy, is_peer_of_guest, map_ids, new_filesystem,
    new_overlay, open_source, set_attributes, set_propagation,
};
use super::fs_context::FsContext;
use super::mount_options::MountOptions;
use super::mounts::{clean, may_cover_in_proc};
use super::spec::{FsType, Mount, MountSource, Root};
use super::tree::{Leaf, Links, Tree, is_directory, is_on_proc};
use crate::error::{Code, Context, Error, Result};
use crate::sys::mount::{MountAttr, mount_setattr};

/// In PID 1, before a container's child is cloned: a container that asks for it gets the guest's mounts for peers. They
/// stay shared, and so is what is mounted on them later; for other containers that makes no difference.
pub fn share_guest_mounts(root: &Root, mounts: &[Mount]) -> Result<()> {
    let is_peer = |mount: &Mount| {
        matches!(mount.source, MountSource::Bind { .. }) && is_peer_of_guest(&mount.options)
    };
    if !is_slave(root) && !mounts.iter().any(is_peer) {
        return Ok(());
    }
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .context(|| "share the guest's mounts".to_owned())
}

fn is_slave(root: &Root) -> bool {
    root.propagation == Some(MountPropagationFlags::DOWNSTREAM)
}

/// A root that is being put together.
pub struct Rootfs {
    tree: Tree,
    /// The root's mount and inode.
    identity: (u64, u64),
    /// What the plan mounts, in its order; none: a remount.
    detached: Vec<Option<OwnedFd>>,
    /// What shall be read-only, once mount points and devices have been made in it.
    late_read_only: Vec<OwnedFd>,
    /// Device numbers of the filesystems that were made for this container and nobody else; none: nobody will ask.
    own: Option<Vec<(u32, u32)>>,
    /// Where proc and sysfs were mounted, and their mounts.
    anchors: Vec<(String, Tree)>,
}

impl Rootfs {
    /// Takes the directory of the guest that is to be the root, with all that is mounted in it, as a mount of its own.
    /// Nothing that is mounted from here on shows in the guest, but below the binds of `plan` that shall be shared.
    pub fn attach(root: &Root, plan: &[Mount]) -> Result<Self> {
        let place = open_source(&root.path).context(|| "root".to_owned())?;
        let place = place.as_fd();
        refuse_guest_root(place).context(|| format!("root {:?}", root.path))?;
        let early =
            is_slave(root).then(|| slave_of(place)).transpose().context(|| "root".to_owned())?;
        let mut detached =
            plan.iter().map(copy_of_peer).collect::<Result<Vec<Option<OwnedFd>>>>()?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context(|| "make mounts private".to_owned())?;
        for (slot, mount) in detached.iter_mut().zip(plan) {
            *slot = prepare(slot.take(), mount).context(|| describe(mount))?;
        }
        let attach = || -> rustix::io::Result<OwnedFd> {
            let tree = early.map_or_else(|| clone_tree(place, true), Ok)?;
            attach_mount(tree.as_fd(), place)?;
            Ok(tree)
        };
        let tree = attach().context(|| format!("root {:?}", root.path))?;
        let remounts = plan.iter().any(|mount| mount.source == MountSource::Remount);
        Ok(Self {
            identity: place_of(&identity(tree.as_fd())?),
            tree: Tree::new(tree),
            detached,
            late_read_only: Vec::new(),
            own: remounts.then(Vec::new),
            anchors: Vec::new(),
        })
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The place that `path` names. Below /proc and /sys it is one of the filesystem that was mounted there, even if
    /// somebody who shares the root's files has since put a directory of his in the way (CVE-2019-19921).
    pub fn locate(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let is_clean = !path.contains("//") && !path.contains("/.");
        let path = if is_clean { Cow::Borrowed(path) } else { Cow::Owned(clean(path)) };
        let below = |top: &str| {
            let rest = path.strip_prefix(top)?.strip_prefix('/')?;
            (!rest.split('/').any(|part| part == "..")).then_some(rest)
        };
        let anchored = self.anchors.iter().rev().find_map(|(top, tree)| Some((tree, below(top)?)));
        match anchored {
            Some((tree, rest)) => tree.locate(rest),
            None => self.tree.locate(&path),
        }
    }

    /// Attaches what the plan, the same as before, mounts.
    pub fn mount_all(&mut self, plan: &[Mount]) -> Result<()> {
        for (detached, mount) in std::mem::take(&mut self.detached).into_iter().zip(plan) {
            match detached {
                Some(detached) => self.mount(detached, mount),
                None => self.remount(&mount.destination, &mount.options),
            }
            .context(|| describe(mount))?;
        }
        Ok(())
    }

    fn mount(&mut self, mount: OwnedFd, planned: &Mount) -> Result<()> {
        let Mount { destination, source, options, .. } = planned;
        let is_dir = is_directory(mount.as_fd())?;
        let leaf = if is_dir { Leaf::Directory } else { Leaf::File };
        let place = self.tree.create(destination, leaf)?;
        let place = self.trusted_place(place, destination, source)?;
        check_type(place.as_fd(), is_dir)?;
        if options.copy_up {
            copy_up(place.as_fd(), mount.as_fd(), &Said::by(options), &mut Budget::default())?;
        }
        attach_mount(mount.as_fd(), place.as_fd())?;
        for propagation in &options.propagation {
            set_propagation(mount.as_fd(), *propagation)?;
        }
        self.remember(mount, destination, source, options)
    }

    /// Keeps what later steps need of a mount that was made.
    fn remember(
        &mut self,
        mount: OwnedFd,
        destination: &str,
        source: &MountSource,
        options: &MountOptions,
    ) -> Result<()> {
        let fstype = match source {
            MountSource::Filesystem { fstype, .. } => *fstype,
            MountSource::Overlay { .. } => FsType::Overlay,
            MountSource::Bind { .. } | MountSource::Remount => return Ok(()),
        };
        if let Some(own) = self.own.as_mut().filter(|_| fstype.has_own_superblock()) {
            own.push(device(&identity(mount.as_fd())?));
        }
        if matches!(fstype, FsType::Proc | FsType::Sysfs) {
            self.anchors.push((clean(destination), Tree::new(mount)));
        } else if fstype.is_read_only_late() && is_read_only(&options.attributes) {
            self.late_read_only.push(mount);
        }
        Ok(())
    }

    /// Changes what is mounted at the destination: what the options do not name stays as it is.
    fn remount(&mut self, destination: &str, options: &MountOptions) -> Result<()> {
        let place = self.tree.locate(destination)?;
        let stat = identity(place.as_fd())?;
        if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Error::new(Code::InvalidArgument, "nothing is mounted there"));
        }
        if !options.superblock.is_empty() || !options.data.is_empty() {
            if !self.own.iter().flatten().any(|own| *own == device(&stat)) {
                let why = "the filesystem there is not the container's own";
                return Err(Error::new(Code::FailedPrecondition, why));
            }
            let context = FsContext::pick(place.as_fd())?;
            context.configure(options)?;
            context.reconfigure()?;
        }
        let MountAttr { set, clear, .. } = options.attributes;
        if clear & READ_ONLY.set != 0 {
            self.stay_writable(&stat)?;
        }
        set_attributes(place.as_fd(), false, &MountAttr::new(set & !READ_ONLY.set, clear))?;
        set_attributes(place.as_fd(), true, &options.recursive_attributes)?;
        for propagation in &options.propagation {
            set_propagation(place.as_fd(), *propagation)?;
        }
        if is_read_only(&options.attributes) {
            self.late_read_only.push(place);
        }
        Ok(())
    }

    /// Takes back that a mount shall become read-only.
    fn stay_writable(&mut self, mount: &Statx) -> Result<()> {
        for late in std::mem::take(&mut self.late_read_only) {
            if identity(late.as_fd())?.stx_mnt_id != mount.stx_mnt_id {
                self.late_read_only.push(late);
            }
        }
        Ok(())
    }

    /// /proc and /sys must be what they are called (CVE-2023-27561, CVE-2025-54867), and nothing but a harmless file
    /// of /proc may be covered, by whatever name it was reached. Nor may the root.
    fn trusted_place(
        &self,
        place: OwnedFd,
        destination: &str,
        source: &MountSource,
    ) -> Result<OwnedFd> {
        let is_system =
            matches!(source, MountSource::Filesystem { fstype: FsType::Proc | FsType::Sysfs, .. });
        let place = if is_system {
            self.tree
                .open(destination, OFlags::PATH | OFlags::DIRECTORY, Links::Refuse)
                .context(|| "destination is or goes through a symbolic link".to_owned())?
        } else {
            place
        };
        if place_of(&identity(place.as_fd())?) == self.identity {
            return Err(Error::new(Code::InvalidArgument, "the root is root.path's to say"));
        }
        if is_system {
            return Ok(place);
        }
        if !is_on_proc(place.as_fd())? {
            return Ok(place);
        }
        if may_cover_in_proc(destination) {
            return Ok(self.tree.open(destination, OFlags::PATH, Links::Refuse)?);
        }
        Err(Error::new(Code::InvalidArgument, "nothing but proc may cover /proc"))
    }

    /// Last of all that writes: what shall be read-only becomes it.
    pub fn seal(&self, root: &Root) -> Result<()> {
        for mount in &self.late_read_only {
            mount_setattr(mount.as_fd(), false, &READ_ONLY)
                .context(|| "make a mount read-only".to_owned())?;
        }
        if root.readonly {
            mount_setattr(self.tree.as_fd(), false, &READ_ONLY)
                .context(|| "make the root read-only".to_owned())?;
        }
        Ok(())
    }

    /// Makes the tree the root of this mount namespace, and leaves the guest's.
    pub fn pivot(self, propagation: Option<MountPropagationFlags>) -> Result<Tree> {
        let pivot = || -> rustix::io::Result<()> {
            fchdir(self.tree.as_fd())?;
            pivot_root(".", ".")?; // the old root is then mounted over the new one, and is `.` (pivot_root(2), NOTES)
            unmount(".", UnmountFlags::DETACH)?;
            chdir("/")
        };
        pivot().context(|| "pivot_root".to_owned())?;
        if let Some(propagation) = propagation {
            set_propagation(self.tree.as_fd(), propagation)
                .context(|| "root propagation".to_owned())?;
        }
        Ok(self.tree)
    }
}

fn describe(Mount { destination, source, .. }: &Mount) -> String {
    match source {
        MountSource::Filesystem { fstype, .. } => {
            format!("mount {} on {destination:?}", fstype.name())
        }
        MountSource::Overlay { .. } => format!("mount overlay on {destination:?}"),
        MountSource::Bind { path, .. } => format!("bind {path:?} on {destination:?}"),
        MountSource::Remount => format!("remount {destination:?}"),
    }
}

/// By whatever path it was reached.
fn refuse_guest_root(place: BorrowedFd<'_>) -> Result<()> {
    if place_of(&identity(place)?) == place_of(&identity(Tree::of_root()?.as_fd())?) {
        return Err(Error::new(Code::InvalidArgument, "the guest's own root"));
    }
    Ok(())
}

/// A copy that gets what is mounted in the original, and gives nothing back.
fn slave_of(place: BorrowedFd<'_>) -> Result<OwnedFd> {
    let copy = clone_tree(place, true)?;
    set_propagation(copy.as_fd(), MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(copy)
}

fn copy_of_peer(mount: &Mount) -> Result<Option<OwnedFd>> {
    match &mount.source {
        MountSource::Bind { path, extent } if is_peer_of_guest(&mount.options) => {
            copy(path, *extent).map(Some).context(|| describe(mount))
        }
        MountSource::Bind { .. }
        | MountSource::Filesystem { .. }
        | MountSource::Overlay { .. }
        | MountSource::Remount => Ok(None),
    }
}

/// A detached mount as it shall be; `peer` is the copy, where it had to be made before.
fn prepare(peer: Option<OwnedFd>, planned: &Mount) -> Result<Option<OwnedFd>> {
    let Mount { source, options, id_map, .. } = planned;
    let mount = match source {
        MountSource::Filesystem { fstype, source } => new_filesystem(*fstype, source, options)?,
        MountSource::Overlay { layers, source } => new_overlay(layers, source, options)?,
        MountSource::Bind { path, extent } => {
            let mount = peer.map_or_else(|| copy(path, *extent), Ok)?;
            set_attributes(mount.as_fd(), false, &options.attributes)?;
            set_attributes(mount.as_fd(), true, &options.recursive_attributes)?;
            mount
        }
        MountSource::Remount => return Ok(None),
    };
    if let Some((extent, maps)) = id_map {
        map_ids(mount.as_fd(), *extent, maps)?;
    }
    Ok(Some(mount))
}

/// A mount covers what is like it: a directory a directory, a file a file. A link here is one that somebody has just
/// put in the place of what was made.
fn check_type(place: BorrowedFd<'_>, is_dir: bool) -> Result<()> {
    let why = match FileType::from_raw_mode(fstat(place)?.st_mode) {
        FileType::Symlink => "destination became a symbolic link",
        FileType::Directory if !is_dir => "destination is a directory",
        FileType::Directory => return Ok(()),
        _ if is_dir => "destination is no directory",
        _ => return Ok(()),
    };
    Err(Error::new(Code::InvalidArgument, why))
}

fn is_read_only(attributes: &MountAttr) -> bool {
    attributes.set & READ_ONLY.set != 0
}

fn identity(place: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::INO)
}

fn place_of(stat: &Statx) -> (u64, u64) {
    (stat.stx_mnt_id, stat.stx_ino)
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}
