//! A container's root: assembled from its plan in the child's own mount namespace, then pivoted to.
//!
//! Every mount is made detached, gets its attributes, and only then is moved onto the descriptor of its destination,
//! which the kernel has resolved inside the new root (`Tree`). A name that changes in between changes nothing
//! (CVE-2021-30465, CVE-2024-45310). After `pivot` the guest's tree is gone from the namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::mounts::{MountOptions, may_cover_in_proc};
use super::spec::{FsType, Mount, MountSource, Root};
use super::tree::{Leaf, Links, Tree, is_directory, is_on_proc};
use crate::error::{Code, Context, Error, Result};
use crate::sys::mount::{MountAttr, mount_setattr};

const READ_ONLY: MountAttr = MountAttr::new(MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64, 0);

/// A root that is being put together.
pub struct Rootfs {
    tree: Tree,
    /// Filesystems that shall be read-only, once mount points and devices have been made in them.
    late_read_only: Vec<OwnedFd>,
}

impl Rootfs {
    /// Takes the directory of the guest that is to be the root, with all that is mounted in it, as a mount of its own.
    /// Nothing that is mounted from here on shows in the guest.
    pub fn attach(root: &Root) -> Result<Self> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context(|| "make mounts private".to_owned())?;
        let attach = || -> rustix::io::Result<OwnedFd> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let place = openat(CWD, root.path.as_str(), flags, Mode::empty())?;
            let tree = clone_tree(place.as_fd(), true)?;
            attach_mount(tree.as_fd(), place.as_fd())?;
            Ok(tree)
        };
        let tree = attach().context(|| format!("root {:?}", root.path))?;
        Ok(Self { tree: Tree::new(tree), late_read_only: Vec::new() })
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Makes one mount of the plan.
    pub fn mount(&mut self, mount: &Mount) -> Result<()> {
        self.try_mount(mount).context(|| match &mount.source {
            MountSource::Filesystem { fstype, .. } => {
                format!("mount {} on {:?}", fstype.name(), mount.destination)
            }
            MountSource::Bind { path, .. } => format!("bind {path:?} on {:?}", mount.destination),
        })
    }

    fn try_mount(&mut self, Mount { destination, source, options }: &Mount) -> Result<()> {
        let mount = match source {
            MountSource::Filesystem { fstype, source } => new_filesystem(*fstype, source, options)?,
            MountSource::Bind { path, recursive } => bind(path, *recursive, options)?,
        };
        let is_dir = is_directory(mount.as_fd())?;
        let leaf = if is_dir { Leaf::Directory } else { Leaf::File };
        let place = self.tree.create(destination, leaf)?;
        let place = self.trusted_place(place, destination, source)?;
        if is_directory(place.as_fd())? != is_dir {
            let what = if is_dir { "no directory" } else { "a directory" };
            return Err(Error::new(Code::InvalidArgument, format!("destination is {what}")));
        }
        attach_mount(mount.as_fd(), place.as_fd())?;
        if let Some(propagation) = options.propagation {
            set_propagation(mount.as_fd(), propagation)?;
        }
        if is_read_only_later(source) && options.attributes.set & READ_ONLY.set != 0 {
            self.late_read_only.push(mount);
        }
        Ok(())
    }

    /// /proc and /sys must be what they are called (CVE-2023-27561, CVE-2025-54867), and nothing but a harmless file
    /// of /proc may be covered, by whatever name it was reached.
    fn trusted_place(
        &self,
        place: OwnedFd,
        destination: &str,
        source: &MountSource,
    ) -> Result<OwnedFd> {
        if let MountSource::Filesystem { fstype: FsType::Proc | FsType::Sysfs, .. } = source {
            return self
                .tree
                .open(destination, OFlags::PATH | OFlags::DIRECTORY, Links::Refuse)
                .context(|| "destination is or goes through a symbolic link".to_owned());
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
                .context(|| "make a tmpfs read-only".to_owned())?;
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

/// Mount points may have to be made in a tmpfs of the spec, so it stays writable until the end.
fn is_read_only_later(source: &MountSource) -> bool {
    matches!(source, MountSource::Filesystem { fstype: FsType::Tmpfs, .. })
}

fn new_filesystem(fstype: FsType, source: &str, options: &MountOptions) -> Result<OwnedFd> {
    let context = fsopen(fstype.name(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explained = |result: rustix::io::Result<()>| {
        result.map_err(|errno| match kernel_message(context.as_fd()) {
            Some(message) => Error::new(Error::from(errno).code(), message),
            None => errno.into(),
        })
    };
    explained(fsconfig_set_string(&context, "source", source))?;
    for option in &options.data {
        let set = match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value),
            None => fsconfig_set_flag(&context, option.as_str()),
        };
        explained(set).context(|| format!("option {option:?}"))?;
    }
    explained(fsconfig_create(&context))?;
    let mut attributes = options.attributes.set;
    if fstype == FsType::Tmpfs {
        attributes &= !READ_ONLY.set;
    }
    let attributes =
        MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or_default());
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    set_attributes(mount.as_fd(), true, &options.recursive_attributes)?;
    Ok(mount)
}

/// What the kernel says of the last failure of a filesystem context, if it says anything.
fn kernel_message(context: BorrowedFd<'_>) -> Option<String> {
    let mut buffer = [0; 256];
    let length = rustix::io::read(context, &mut buffer).ok()?; // ENODATA: nothing said
    let line = String::from_utf8_lossy(buffer.get(..length)?);
    Some(line.trim_start_matches("e ").trim_end().to_owned())
}

fn bind(path: &str, recursive: bool, options: &MountOptions) -> Result<OwnedFd> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = if recursive { clone | OpenTreeFlags::AT_RECURSIVE } else { clone };
    let tree = open_tree(CWD, path, flags)?;
    set_attributes(tree.as_fd(), false, &options.attributes)?;
    set_attributes(tree.as_fd(), true, &options.recursive_attributes)?;
    Ok(tree)
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: &MountAttr) -> Result<()> {
    if *attributes == MountAttr::default() {
        return Ok(());
    }
    mount_setattr(mount, recursive, attributes).context(|| "mount attributes".to_owned())
}

fn set_propagation(mount: BorrowedFd<'_>, propagation: MountPropagationFlags) -> Result<()> {
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

pub const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes a detached or attached tree read-only as a whole.
pub fn make_tree_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    set_attributes(mount, true, &READ_ONLY)
}
