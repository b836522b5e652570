//! What the host attached for containers, mounted once in the guest; containers are given the path.
//!
//! A driver says how a source is found and becomes a plan, which is data; carrying it out is a mount(2).

mod block;
pub mod copy_file;
mod ephemeral;
mod huge_pages;
mod idmapped;
mod layers;
mod mkfs;
mod options;
mod overlay;
mod ownership;
mod plan;
mod scsi;
pub mod share;
mod table;
mod watchable;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use crate::error::{Code, Context, Error, Result};
use crate::log;
pub use block::wait_for as wait_for_disk;
use ownership::Group;
pub use ownership::{FsGroup, Policy};
use plan::{MountPlan, Plan};
pub use table::Storages;

/// One thing to mount, in the words of the host (Kata's `Storage`).
#[derive(Debug, Clone, Default)]
pub struct Storage {
    pub driver: String,
    pub driver_options: Vec<String>,
    pub source: String,
    pub fstype: String,
    pub options: Vec<String>,
    pub mount_point: PathBuf,
    /// Whose its files become.
    pub fs_group: Option<FsGroup>,
    /// It stays until the sandbox ends.
    pub shared: bool,
}

/// The drivers that are served, by Kata's names.
pub const DRIVERS: &[&str] = &[
    "9p",
    "bind",
    "blk",
    "ephemeral",
    "erofs.multi-layer",
    "local",
    "mmioblk",
    "nvdimm",
    "overlayfs",
    "scsi",
    "virtio-fs",
    "virtio-pmem",
    "watchable-bind",
];

/// Everything that is mounted for the host happens below here.
const BASE: &str = "/run";

/// For a disk that has just come to be opened: two seconds in all.
const READY_TRIES: u32 = 100;
const READY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Carries a plan out whole, or leaves nothing of it.
fn carry_out(plan: &Plan, mount_point: &Path) -> Result<()> {
    let was_there = fs::symlink_metadata(mount_point).is_ok();
    try_carry_out(plan, mount_point).inspect_err(|_| {
        let scratch: &[PathBuf] = match plan {
            Plan::Mount(MountPlan { scratch, .. }) => scratch,
            Plan::Watched { .. } => &[],
            Plan::Directory { .. } => return,
        };
        for directory in scratch {
            if let Err(err) = fs::remove_dir_all(directory) {
                log::debug!("remove {directory:?}: {err}"); // it was not made yet
            }
        }
        if !was_there && let Err(err) = fs::remove_dir(mount_point) {
            log::debug!("remove {mount_point:?}: {err}"); // the same
        }
    })
}

fn try_carry_out(plan: &Plan, mount_point: &Path) -> Result<()> {
    match plan {
        Plan::Directory { mode, gid } => {
            make_directory(mount_point)?;
            fs::set_permissions(mount_point, fs::Permissions::from_mode(*mode))
                .context(|| format!("chmod {mode:o} {mount_point:?}"))?;
            gid.map_or(Ok(()), |gid| ownership::give(mount_point, Group::Root(gid)))
        }
        Plan::Watched { source } => {
            make_directory(mount_point)?;
            watchable::mount_copy(source, mount_point)
        }
        Plan::Mount(plan) => {
            for directory in plan.directories.iter().chain(&plan.scratch) {
                make_directory(directory)?;
            }
            make_directory(mount_point)?;
            if let Some(maps) = &plan.idmap {
                return idmapped::mount_overlay(plan, maps, mount_point);
            }
            if let Some(pages) = &plan.huge_pages {
                pages.take()?;
            }
            let mounted = mount_plainly(plan, mount_point);
            if mounted.is_err()
                && let Some(pages) = &plan.huge_pages
            {
                pages.give_back();
            }
            mounted
        }
    }
}

/// The mount with its attributes and its group, or none.
fn mount_plainly(plan: &MountPlan, mount_point: &Path) -> Result<()> {
    let MountPlan { source, fstype, flags, data, group, .. } = plan;
    let made = mount_when_ready(source, || {
        mount(
            Some(source.as_str()),
            mount_point,
            Some(fstype.as_str()),
            *flags,
            Some(data.as_str()),
        )
    });
    made.context(|| format!("mount {fstype} {source:?} on {mount_point:?}"))?;
    let finish = || -> Result<()> {
        let attributes = flags.difference(MsFlags::MS_BIND);
        // A bind takes no attributes when it is made: mount(2), "Creating a bind mount".
        if flags.contains(MsFlags::MS_BIND) && !attributes.is_empty() {
            let remount = MsFlags::MS_REMOUNT | *flags;
            mount(None::<&str>, mount_point, None::<&str>, remount, None::<&str>)
                .context(|| format!("remount {mount_point:?}"))?;
        }
        group.map_or(Ok(()), |group| ownership::give(mount_point, group))
    };
    finish().inspect_err(|_| {
        if let Err(errno) = umount2(mount_point, MntFlags::MNT_DETACH) {
            log::warn!("unmount {mount_point:?}: {errno}"); // the error that the host gets is the first one
        }
    })
}

/// A disk that has just come has its node, and says ENXIO, until the kernel has looked for partitions on it. Only a
/// child gets here with a device, see `may_block`.
fn mount_when_ready(source: &str, mount: impl Fn() -> nix::Result<()>) -> nix::Result<()> {
    for _ in 0..READY_TRIES {
        match mount() {
            Err(Errno::ENXIO) if source.starts_with("/dev/") => {
                if let NanosleepRelativeResult::Err(errno) = nanosleep(&READY_PAUSE) {
                    log::debug!("wait for {source}: {errno}"); // then it is tried sooner
                }
            }
            made => return made,
        }
    }
    mount()
}

fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .context(|| format!("make directory {path:?}"))
}

fn check_mount_point(path: &Path) -> Result<()> {
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if plain && path.starts_with(BASE) && path != Path::new(BASE) {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidArgument,
        format!("mount point {path:?}: not an absolute path below {BASE}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_stay_below_run() {
        for good in ["/run/kata-containers/c1/rootfs", "/run/x"] {
            check_mount_point(Path::new(good)).unwrap();
        }
        for bad in ["", "/", "/run", "run/x", "/run/../etc", "/etc", "/runx/y", "/run/x/../../etc"]
        {
            let err = check_mount_point(Path::new(bad)).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument, "{bad}");
        }
    }
}
