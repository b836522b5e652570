//! Overlays whose files belong to other ids than on their layers: `X-mount.idmap=` of mount(8), which a container in a
//! user namespace needs, or all of its image were nobody's.
//!
//! overlayfs itself takes no id mapping, its layers do (mount_setattr(2), MOUNT_ATTR_IDMAP). It keeps mounts of its own
//! of them, so each layer is mounted beside the mount point for as long as the overlay is being mounted. That is done
//! as the user who is root there: what the overlay makes on its upper layer must have an owner that is mapped.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, mount, umount2};
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::make_directory;
use super::plan::MountPlan;
use crate::error::{Code, Context, Error, Result};
use crate::idmap::{IdMapping, IdMaps, act_as, user_namespace};
use crate::sys::mount::{MountAttr, mount_setattr};

pub const OPTION: &str = "X-mount.idmap=";

/// `u:0:100000:65536 g:0:100000:65536`: of users, groups or (`b`) both, the id on the layer, the id that is seen, count.
pub fn parse(value: &str) -> Result<IdMaps> {
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for range in value.split_whitespace() {
        let mut parts = range.split(':');
        let kind = parts.next();
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        let (Some(inside), Some(outside), Some(count), None) =
            (number(), number(), number(), parts.next())
        else {
            return Err(wrong(range));
        };
        let mapping = IdMapping { inside, outside, count };
        match kind {
            Some("u") => uids.push(mapping),
            Some("g") => gids.push(mapping),
            Some("b") => {
                uids.push(mapping);
                gids.push(mapping);
            }
            _ => return Err(wrong(range)),
        }
    }
    IdMaps::new(uids, gids).context(|| format!("option \"{OPTION}{value}\""))
}

fn wrong(range: &str) -> Error {
    let message = format!("option \"{OPTION}\": {range:?} is not such as u:0:100000:65536");
    Error::new(Code::InvalidArgument, message)
}

/// Mounts the overlay of a plan with its layers mapped. For a child of PID 1's: it waits, and changes who it is.
pub fn mount_overlay(plan: &MountPlan, maps: &IdMaps, mount_point: &Path) -> Result<()> {
    let unmapped = || Error::new(Code::InvalidArgument, "id mappings: root is not mapped");
    let (uid, gid) = maps.uid(0).zip(maps.gid(0)).ok_or_else(unmapped)?;
    let user_namespace = user_namespace(maps)?;
    let beside = mount_point.parent().unwrap_or(mount_point).join("layers");
    let mut layers = Layers { directory: beside, mounted: Vec::new() };
    let data = layers.mount_all(&plan.data, user_namespace.as_fd())?;
    act_as(uid, gid)?;
    mount(Some("overlay"), mount_point, Some("overlay"), plan.flags, Some(data.as_str()))
        .context(|| format!("mount overlay on {mount_point:?}"))
}

/// Mounts that are gone when this is.
struct Layers {
    directory: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Layers {
    /// The overlay's options, with the mapped layers instead of the layers.
    fn mount_all(&mut self, data: &str, user_namespace: BorrowedFd<'_>) -> Result<String> {
        let mut writable = None; // upper and work must be on one mount
        let mut mapped = Vec::new();
        for option in data.split(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            mapped.push(match key {
                "lowerdir" => {
                    let lower: Result<Vec<String>> = value
                        .split(':')
                        .map(|path| Ok(text(&self.mount(Path::new(path), user_namespace)?)))
                        .collect();
                    format!("lowerdir={}", lower?.join(":"))
                }
                "upperdir" | "workdir" => {
                    let (parent, name) = split(value)?;
                    let (of, layer) = match writable.take() {
                        Some(layer) => layer,
                        None => (parent.to_owned(), self.mount(parent, user_namespace)?),
                    };
                    if of != parent {
                        let message = "upperdir and workdir are not in one directory";
                        return Err(Error::new(Code::InvalidArgument, message));
                    }
                    let option = format!("{key}={}", text(&layer.join(name)));
                    writable = Some((of, layer));
                    option
                }
                _ => option.to_owned(),
            });
        }
        Ok(mapped.join(","))
    }

    fn mount(&mut self, source: &Path, user_namespace: BorrowedFd<'_>) -> Result<PathBuf> {
        let place = self.directory.join(self.mounted.len().to_string());
        make_directory(&place)?;
        let mount = || -> Result<()> {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let layer = open_tree(CWD, source, flags)?;
            mount_setattr(layer.as_fd(), false, &MountAttr::idmap(user_namespace))?;
            // A peer of what it is a copy of would get the overlay too, and take it along when it goes.
            let private = u64::from(MountPropagationFlags::PRIVATE.bits());
            mount_setattr(layer.as_fd(), false, &MountAttr::propagation(private))?;
            Ok(move_mount(layer, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
        };
        mount().context(|| format!("map ids of layer {source:?}"))?;
        self.mounted.push(place.clone());
        Ok(place)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        for place in self.mounted.drain(..).rev() {
            if let Err(err) = umount2(&place, MntFlags::MNT_DETACH) {
                log::warn!("unmount {place:?}: {err}");
            }
        }
        if let Err(err) = fs::remove_dir_all(&self.directory) {
            log::debug!("remove {:?}: {err}", self.directory); // none was made
        }
    }
}

fn split(path: &str) -> Result<(&Path, &str)> {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map(|(parent, name)| (Path::new(parent), name)).ok_or_else(|| {
        Error::new(Code::InvalidArgument, format!("overlay: {path:?} is not an absolute path"))
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_users_groups_or_both() {
        let maps = parse("u:0:100000:10 g:0:200000:10").unwrap();
        assert_eq!((maps.uid(9), maps.gid(9)), (Some(100_009), Some(200_009)));
        assert_eq!(parse("b:0:5:2").unwrap(), parse("u:0:5:2 g:0:5:2").unwrap());
        for bad in ["", "u:0:1:1", "x:0:1:1 b:0:1:1", "b:0:1", "b:0:1:1:1", "b:0:-1:1", "b:0:1:0"] {
            let err = parse(bad).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument, "{bad}: {err}");
        }
    }
}
