//! What the host attached for containers, mounted once in the guest; containers are given the path.
//!
//! A driver says how a source is found and becomes a plan, which is data; carrying it out is a mount(2).

mod block;
pub mod copy_file;
mod ephemeral;
mod idmapped;
mod options;
mod overlay;
pub mod share;
mod table;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use crate::error::{Code, Context, Error, Result};
use crate::idmap::IdMaps;
use crate::log;
use crate::uevent::Uevents;
pub use block::wait_for as wait_for_disk;
use options::MountOptions;
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
}

/// The drivers that are served, by Kata's names.
pub const DRIVERS: &[&str] = &[
    "9p",
    "bind",
    "blk",
    "ephemeral",
    "local",
    "mmioblk",
    "nvdimm",
    "overlayfs",
    "virtio-fs",
    "virtio-pmem",
];

/// Everything that is mounted for the host happens below here.
const BASE: &str = "/run";

/// For a disk that has just come to be opened: two seconds in all.
const READY_TRIES: u32 = 100;
const READY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How a storage gets mounted, once its device is there.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Mount(MountPlan),
    Directory { mode: u32 },
}

#[derive(Debug, PartialEq, Eq)]
struct MountPlan {
    source: String,
    fstype: String,
    flags: MsFlags,
    data: String,
    /// Made first; whose they are is the host's business.
    directories: Vec<PathBuf>,
    /// Made first, and removed after the unmount with all that is in them.
    scratch: Vec<PathBuf>,
    /// Of an overlay's layers.
    idmap: Option<IdMaps>,
}

impl Plan {
    /// Whether the mount asks a device or a peer that may be slow to answer.
    fn may_block(&self) -> bool {
        match self {
            Self::Mount(MountPlan { source, fstype, idmap, .. }) => {
                idmap.is_some() // makes and waits for a child
                    || source.starts_with("/dev/")
                    || matches!(fstype.as_str(), "9p" | "virtiofs")
            }
            Self::Directory { .. } => false,
        }
    }
}

async fn plan(storage: &Storage, uevents: &Uevents, device_timeout: Duration) -> Result<Plan> {
    match storage.driver.as_str() {
        "mmioblk" | "nvdimm" | "virtio-pmem" => {
            let device = block::device_path(&storage.source)?;
            uevents.wait_for_path(&device, device_timeout).await?;
            plan_mount(storage, &storage.source, &storage.fstype)
        }
        "blk" => {
            let device = block::wait_for(&storage.source, uevents, device_timeout).await?;
            plan_mount(storage, &device, &storage.fstype)
        }
        "virtio-fs" => plan_mount(storage, &storage.source, "virtiofs"),
        "9p" => plan_mount(storage, &storage.source, "9p"),
        "ephemeral" => plan_mount(storage, &storage.source, &storage.fstype),
        "bind" => plan_mount(storage, &storage.source, "bind"),
        "overlayfs" => overlay::plan(storage),
        "local" => Ok(Plan::Directory { mode: options::directory_mode(&storage.options)? }),
        other => {
            let message =
                format!("driver {other:?}: not supported; known are {}", DRIVERS.join(", "));
            Err(Error::new(Code::Unimplemented, message))
        }
    }
}

fn plan_mount(storage: &Storage, source: &str, fstype: &str) -> Result<Plan> {
    refuse_driver_options(storage)?;
    let MountOptions { mut flags, data } = MountOptions::parse(&storage.options);
    if fstype == "bind" {
        flags |= MsFlags::MS_BIND;
    }
    Ok(Plan::Mount(MountPlan {
        source: source.to_owned(),
        fstype: fstype.to_owned(),
        flags,
        data,
        directories: Vec::new(),
        scratch: Vec::new(),
        idmap: None,
    }))
}

fn refuse_driver_options(storage: &Storage) -> Result<()> {
    match storage.driver_options.first() {
        None => Ok(()),
        Some(option) => {
            let message =
                format!("driver option {option:?} of {:?}: not supported", storage.driver);
            Err(Error::new(Code::Unimplemented, message))
        }
    }
}

/// Carries a plan out whole, or leaves nothing of it.
fn carry_out(plan: &Plan, mount_point: &Path) -> Result<()> {
    let was_there = fs::symlink_metadata(mount_point).is_ok();
    try_carry_out(plan, mount_point).inspect_err(|_| {
        let Plan::Mount(MountPlan { scratch, .. }) = plan else { return };
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
        Plan::Directory { mode } => {
            make_directory(mount_point)?;
            fs::set_permissions(mount_point, fs::Permissions::from_mode(*mode))
                .context(|| format!("chmod {mode:o} {mount_point:?}"))
        }
        Plan::Mount(plan) => {
            let MountPlan { source, fstype, flags, data, directories, scratch, idmap } = plan;
            for directory in directories.iter().chain(scratch) {
                make_directory(directory)?;
            }
            make_directory(mount_point)?;
            if let Some(maps) = idmap {
                return idmapped::mount_overlay(plan, maps, mount_point);
            }
            let attributes = flags.difference(MsFlags::MS_BIND);
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
            // A bind takes no attributes when it is made: mount(2), "Creating a bind mount".
            if flags.contains(MsFlags::MS_BIND) && !attributes.is_empty() {
                let remount = MsFlags::MS_REMOUNT | *flags;
                let remounted =
                    mount(None::<&str>, mount_point, None::<&str>, remount, None::<&str>);
                if remounted.is_err() {
                    umount2(mount_point, MntFlags::MNT_DETACH)
                        .context(|| format!("unmount {mount_point:?}"))?;
                }
                remounted.context(|| format!("remount {mount_point:?}"))?;
            }
            Ok(())
        }
    }
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
