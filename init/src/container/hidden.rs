//! Masked and read-only paths (OCI `linux.maskedPaths`, `linux.readonlyPaths`).
//!
//! A file is masked with the guest's own /dev/null, never with the container's, which its image may have replaced
//! (CVE-2025-31133); a directory with one empty tmpfs for all. What a path leads to is covered, inside the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, minor, openat};
use rustix::io::Errno;

use super::detached::{attach_mount, clone_tree, empty_read_only_directory, make_tree_read_only};
use super::rootfs::Rootfs;
use super::tree::is_directory;
use crate::error::{Code, Context, Error, Result};

/// Covers each path, so that nothing can be read from it or written to it. A path that does not exist needs no cover.
pub fn mask(rootfs: &Rootfs, paths: &[String]) -> Result<()> {
    let mut masks = Masks::default();
    for path in paths {
        if let Some(place) = locate(rootfs, path)? {
            masks.cover(place.as_fd()).context(|| format!("mask {path:?}"))?;
        }
    }
    Ok(())
}

/// Makes each path read-only with all below it.
pub fn make_read_only(rootfs: &Rootfs, paths: &[String]) -> Result<()> {
    for path in paths {
        if let Some(place) = locate(rootfs, path)? {
            make_place_read_only(place.as_fd()).context(|| format!("make {path:?} read-only"))?;
        }
    }
    Ok(())
}

fn locate(rootfs: &Rootfs, path: &str) -> Result<Option<OwnedFd>> {
    match rootfs.locate(path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("hide {path:?}")),
    }
}

fn make_place_read_only(place: BorrowedFd<'_>) -> Result<()> {
    let copy = clone_tree(place, true)?;
    make_tree_read_only(copy.as_fd())?;
    Ok(attach_mount(copy.as_fd(), place)?)
}

/// Made when first needed, then copied.
#[derive(Default)]
struct Masks {
    file: Option<OwnedFd>,
    directory: Option<OwnedFd>,
}

impl Masks {
    fn cover(&mut self, place: BorrowedFd<'_>) -> Result<()> {
        if is_directory(place)? {
            return self.cover_directory(place);
        }
        let null = match self.file.take() {
            Some(null) => null,
            None => guest_null()?,
        };
        let mask = clone_tree(null.as_fd(), false)?;
        make_tree_read_only(mask.as_fd())?; // its mode and owner are not the container's to change
        self.file = Some(null);
        Ok(attach_mount(mask.as_fd(), place)?)
    }

    /// Only a mount that is attached can be copied, so the first is both: a mask, and what the others are copies of.
    fn cover_directory(&mut self, place: BorrowedFd<'_>) -> Result<()> {
        let mask = match &self.directory {
            Some(first) => clone_tree(first.as_fd(), false)?,
            None => empty_read_only_directory()?,
        };
        attach_mount(mask.as_fd(), place)?;
        self.directory.get_or_insert(mask);
        Ok(())
    }
}

/// /dev/null of the guest, which is still to be seen before pivot_root(2).
fn guest_null() -> Result<OwnedFd> {
    let null =
        openat(CWD, "/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&null)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_device && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) {
        Ok(null)
    } else {
        Err(Error::new(Code::Internal, "the guest's /dev/null is not the null device"))
    }
}
