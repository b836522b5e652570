//! The `overlayfs` driver: read-only layers under a writable one.
//!
//! Kata's options are honoured: `io.katacontainers.fs-opt.overlay-rw` asks the guest for the writable part, which is
//! made beside the mount point, and the driver option `…create_directory=DIR` names directories to make first.

use std::path::{Path, PathBuf};

use super::idmapped;
use super::options::MountOptions;
use super::plan::{MountPlan, Plan};
use super::{Storage, check_mount_point};
use crate::error::{Code, Error, Result};

const WRITABLE: &str = "io.katacontainers.fs-opt.overlay-rw";
pub const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory=";

pub fn plan(storage: &Storage) -> Result<Plan> {
    let (mut directories, mut scratch) = (Vec::new(), Vec::new());
    for option in &storage.driver_options {
        let directory =
            option.strip_prefix(CREATE_DIRECTORY).map(PathBuf::from).ok_or_else(|| {
                Error::new(
                    Code::Unimplemented,
                    format!("driver option {option:?} of \"overlayfs\": not supported"),
                )
            })?;
        check_mount_point(&directory)?;
        directories.push(directory);
    }
    let (writable, options): (Vec<_>, Vec<_>) =
        storage.options.iter().cloned().partition(|option| option == WRITABLE);
    let (idmaps, options): (Vec<_>, Vec<_>) =
        options.into_iter().partition(|option| option.starts_with(idmapped::OPTION));
    let idmap = idmaps.last().and_then(|option| option.strip_prefix(idmapped::OPTION));
    let MountOptions { flags, mut data } = MountOptions::parse(&options);
    if !writable.is_empty() {
        let (upper, work) = writable_directories(&storage.mount_point)?;
        data = format!("{data},upperdir={},workdir={}", upper.display(), work.display());
        scratch.extend([upper, work]);
    }
    let mut plan = MountPlan::new("overlay", "overlay", MountOptions { flags, data });
    plan.directories = directories;
    plan.scratch = scratch;
    plan.idmap = idmap.map(idmapped::parse).transpose()?;
    Ok(Plan::Mount(plan))
}

/// Beside the mount point, so that they go with the container's directory.
fn writable_directories(mount_point: &Path) -> Result<(PathBuf, PathBuf)> {
    let parent = mount_point
        .parent()
        .filter(|parent| *parent != Path::new(super::BASE))
        .ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                format!("mount point {mount_point:?}: has no directory of its own"),
            )
        })?;
    Ok((parent.join("upper"), parent.join("work")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(options: &[&str]) -> Storage {
        Storage {
            driver: "overlayfs".to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            mount_point: "/run/kata-containers/c1/rootfs".into(),
            ..Storage::default()
        }
    }

    #[test]
    fn the_writable_part_is_made_beside_the_mount_point() {
        let Plan::Mount(MountPlan { data, scratch, .. }) =
            plan(&storage(&["lowerdir=/run/a", WRITABLE])).unwrap()
        else {
            panic!("an overlay is a mount");
        };
        assert_eq!(
            data,
            "lowerdir=/run/a,upperdir=/run/kata-containers/c1/upper,workdir=/run/kata-containers/c1/work"
        );
        assert_eq!(scratch.len(), 2);
    }

    #[test]
    fn an_unknown_driver_option_is_refused_by_name() {
        let mut storage = storage(&["lowerdir=/run/a"]);
        storage.driver_options.push("verity=on".to_owned());
        let err = plan(&storage).unwrap_err();
        assert!(err.message().contains("verity=on"), "{err}");
    }
}
