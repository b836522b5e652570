//! What the host attached for containers, mounted once in the guest; containers are given the path.
//!
//! A driver says how a source is found; the rest is a mount(2). The same mount point asked for twice is one mount with
//! two owners, and goes with the last of them. Teardown is in reverse order of mounting.

mod block;
mod options;
mod overlay;

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::uevent::Uevents;
use options::MountOptions;

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

#[derive(Debug)]
struct Mounted {
    mount_point: PathBuf,
    owners: usize,
    /// `local` is a plain directory: there is nothing to unmount.
    is_mount: bool,
}

/// The table of mounts, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Storages(RefCell<Vec<Mounted>>);

impl Storages {
    /// Mounts all of `storages`, or none of them.
    pub async fn add_all(
        &self,
        storages: &[Storage],
        uevents: &Uevents,
        device_timeout: Duration,
    ) -> Result<Vec<PathBuf>> {
        let mut added = Vec::with_capacity(storages.len());
        for storage in storages {
            match self.add(storage, uevents, device_timeout).await {
                Ok(()) => added.push(storage.mount_point.clone()),
                Err(err) => {
                    self.remove_all(&added);
                    return Err(err).context(|| format!("storage {:?}", storage.mount_point));
                }
            }
        }
        Ok(added)
    }

    async fn add(
        &self,
        storage: &Storage,
        uevents: &Uevents,
        device_timeout: Duration,
    ) -> Result<()> {
        check_mount_point(&storage.mount_point)?;
        if self.add_owner(&storage.mount_point) {
            return Ok(());
        }
        let plan = plan(storage, uevents, device_timeout).await?;
        // The wait for a device gave other requests a turn: one of them may have mounted it.
        if self.add_owner(&storage.mount_point) {
            return Ok(());
        }
        let is_mount = carry_out(&plan, &storage.mount_point)?;
        let mount_point = storage.mount_point.clone();
        self.0.borrow_mut().push(Mounted { mount_point, owners: 1, is_mount });
        Ok(())
    }

    fn add_owner(&self, mount_point: &Path) -> bool {
        let mut mounted = self.0.borrow_mut();
        let Some(entry) = mounted.iter_mut().find(|entry| entry.mount_point == mount_point) else {
            return false;
        };
        entry.owners += 1;
        true
    }

    /// Gives up one ownership of each, last mounted first.
    pub fn remove_all(&self, mount_points: &[PathBuf]) {
        for mount_point in mount_points.iter().rev() {
            self.remove(mount_point);
        }
    }

    fn remove(&self, mount_point: &Path) {
        let mut mounted = self.0.borrow_mut();
        let Some(index) = mounted.iter().position(|entry| entry.mount_point == mount_point) else {
            return;
        };
        let Some(entry) = mounted.get_mut(index) else { return };
        entry.owners -= 1;
        if entry.owners == 0 {
            unmount(&mounted.remove(index));
        }
    }
}

/// Detached, not forced: a process that still has a file open there keeps it to its end, and nothing waits for it.
fn unmount(mounted: &Mounted) {
    let result = if mounted.is_mount {
        umount2(&mounted.mount_point, MntFlags::MNT_DETACH)
            .context(|| format!("unmount {:?}", mounted.mount_point))
    } else {
        fs::remove_dir_all(&mounted.mount_point)
            .context(|| format!("remove {:?}", mounted.mount_point))
    };
    if let Err(err) = result {
        log::warn!("{err}"); // the owner is gone already: there is no reply to put it in
    }
}

/// How a storage gets mounted, once its device is there.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Mount {
        source: String,
        fstype: String,
        flags: MsFlags,
        data: String,
        directories: Vec<PathBuf>,
    },
    Directory {
        mode: u32,
    },
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
    Ok(Plan::Mount {
        source: source.to_owned(),
        fstype: fstype.to_owned(),
        flags,
        data,
        directories: Vec::new(),
    })
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

/// True where there is a mount to take down again.
fn carry_out(plan: &Plan, mount_point: &Path) -> Result<bool> {
    match plan {
        Plan::Directory { mode } => {
            make_directory(mount_point)?;
            fs::set_permissions(mount_point, fs::Permissions::from_mode(*mode))
                .context(|| format!("chmod {mode:o} {mount_point:?}"))?;
            Ok(false)
        }
        Plan::Mount { source, fstype, flags, data, directories } => {
            for directory in directories {
                make_directory(directory)?;
            }
            make_directory(mount_point)?;
            let attributes = flags.difference(MsFlags::MS_BIND);
            mount(
                Some(source.as_str()),
                mount_point,
                Some(fstype.as_str()),
                *flags,
                Some(data.as_str()),
            )
            .context(|| format!("mount {fstype} {source:?} on {mount_point:?}"))?;
            // A bind takes no attributes when it is made: mount(2), "Creating a bind mount".
            if flags.contains(MsFlags::MS_BIND) && !attributes.is_empty() {
                let remount = MsFlags::MS_REMOUNT | *flags;
                mount(None::<&str>, mount_point, None::<&str>, remount, None::<&str>)
                    .context(|| format!("remount {mount_point:?}"))?;
            }
            Ok(true)
        }
    }
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
