//! Files that the host sends into the share piece by piece, where nothing of the host's is mounted there.
//!
//! Containers have parts of the share as volumes and may write there, so each name is resolved by the kernel beneath it and
//! through no link (openat2(2)), and what is made is made beside its place and moved there when it is whole. What runs
//! here is a child of PID 1's: a host's filesystem may be slow.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path};

use hyperstart_archive::open_resolved;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, mkdirat, openat,
    renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::share::SHARE;
use crate::error::{Code, Context, Error, Result};

/// symlink(2) takes no longer target.
const LINK_MAX: usize = 4095;

/// One piece of a file, or a directory or symbolic link as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Absolute, below the share.
    pub path: String,
    pub entry: Entry,
    /// Permissions of what is made, and of the directories that are missing above it.
    pub mode: u32,
    pub directory_mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    File { size: u64, offset: u64, data: Vec<u8> },
    Directory,
    Link { target: Vec<u8> },
}

/// Does what the host asks; blocks.
pub fn copy(piece: &Piece) -> Result<()> {
    place(piece).context(|| format!("copy file {:?}", piece.path))
}

fn place(piece: &Piece) -> Result<()> {
    let (above, name) = split(&piece.path)?;
    let parent = directory(&root()?, above, Mode::from_raw_mode(piece.directory_mode))?;
    match &piece.entry {
        Entry::File { size, offset, data } => {
            place_data(parent.as_fd(), name, piece, (*size, *offset, data))
        }
        Entry::Directory => make_directory(parent.as_fd(), name, piece),
        Entry::Link { target } => make_link(parent.as_fd(), name, piece, target),
    }
}

/// The directories above, and the name, of a path below the share.
fn split(path: &str) -> Result<(&Path, &OsStr)> {
    let invalid = |why| Error::new(Code::InvalidArgument, why);
    let below = Path::new(path).strip_prefix(SHARE);
    let below = below.map_err(|_| invalid(format!("not below {SHARE}")))?;
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(invalid("a path that leads up".to_owned()));
    }
    let name = below.file_name().ok_or_else(|| invalid("the share itself".to_owned()))?;
    Ok((below.parent().unwrap_or(Path::new("")), name))
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// No container may write above the share, so that it is what its name says.
fn root() -> Result<OwnedFd> {
    std::fs::create_dir_all(SHARE).context(|| format!("make directory {SHARE:?}"))?;
    Ok(openat(CWD, SHARE, DIRECTORY | OFlags::PATH, Mode::empty())?)
}

/// Opens a directory below, and makes what is missing of it.
fn directory(root: &OwnedFd, path: &Path, mode: Mode) -> Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return Ok(root.try_clone()?);
    }
    match beneath(root.as_fd(), path) {
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP) => {
            return Err(Error::new(Code::PermissionDenied, "a symbolic link is in the way: ELOOP"));
        }
        opened => return Ok(opened?),
    }
    let parent = directory(root, path.parent().unwrap_or(Path::new("")), mode)?;
    let name = path.file_name().unwrap_or_default();
    match mkdirat(&parent, name, mode) {
        Ok(()) => {
            let made = openat(&parent, name, DIRECTORY, Mode::empty())?;
            fchmod(&made, mode)?; // whatever the umask is
            Ok(made)
        }
        Err(Errno::EXIST) => Ok(openat(&parent, name, DIRECTORY, Mode::empty())?),
        Err(errno) => Err(errno.into()),
    }
}

fn beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    open_resolved(root, path.as_os_str().as_bytes(), DIRECTORY | OFlags::PATH, resolve)
}

fn make_directory(parent: BorrowedFd<'_>, name: &OsStr, piece: &Piece) -> Result<()> {
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        made => made?,
    }
    own(openat(parent, name, DIRECTORY, Mode::empty())?.as_fd(), piece)
}

/// Owner before mode: a change of the owner clears the set-id bits (chown(2)).
fn own(fd: BorrowedFd<'_>, piece: &Piece) -> Result<()> {
    let Piece { uid, gid, mode, .. } = *piece;
    fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(fchmod(fd, Mode::from_raw_mode(mode))?)
}

fn make_link(parent: BorrowedFd<'_>, name: &OsStr, piece: &Piece, target: &[u8]) -> Result<()> {
    if target.is_empty() || target.len() > LINK_MAX || target.contains(&0) {
        return Err(Error::new(Code::InvalidArgument, "no target of a symbolic link"));
    }
    let aside = aside(name);
    remove_left_over(parent, &aside)?;
    symlinkat(OsStr::from_bytes(target), parent, &aside)?;
    let (uid, gid) = (Uid::from_raw(piece.uid), Gid::from_raw(piece.gid));
    chownat(parent, &aside, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(renameat(parent, &aside, parent, name)?)
}

/// Where a file is until it is whole.
fn aside(name: &OsStr) -> Vec<u8> {
    [b".", name.as_bytes(), b".tmp"].concat()
}

fn remove_left_over(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The piece at 0 begins anew, so that nothing of a copy that was broken off is left; a piece that came before is
/// written once more; a piece after a gap is refused, or else there would be a hole.
fn place_data(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    piece: &Piece,
    (size, offset, data): (u64, u64, &[u8]),
) -> Result<()> {
    let after = u64::try_from(data.len()).ok().and_then(|length| offset.checked_add(length));
    let Some(after) = after.filter(|after| *after <= size) else {
        return Err(Error::new(Code::InvalidArgument, format!("a piece beyond {size} bytes")));
    };
    let aside = aside(name);
    let file = match open_aside(parent, &aside, offset) {
        Err(err) if err.code() == Code::NotFound => {
            return if is_there(parent, name, size, offset, data) { Ok(()) } else { Err(gap(0)) };
        }
        file => file?,
    };
    let length = file.metadata()?.len();
    if offset > length {
        return Err(gap(length));
    }
    file.write_all_at(data, offset)?;
    if after.max(length) < size {
        return Ok(());
    }
    own(file.as_fd(), piece)?;
    Ok(renameat(parent, &aside, parent, name)?)
}

fn gap(length: u64) -> Error {
    Error::new(Code::OutOfRange, format!("a piece after a gap: {length} bytes are there"))
}

/// A container may have put something of its own there: a pipe is not waited for, and another's file, which it can name
/// by a hard link, is not written to.
fn open_aside(parent: BorrowedFd<'_>, aside: &[u8], offset: u64) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if offset == 0 {
        remove_left_over(parent, aside)?;
        let created = flags | OFlags::CREATE | OFlags::EXCL;
        return Ok(openat(parent, aside, created, Mode::RUSR | Mode::WUSR)?.into());
    }
    let file = File::from(openat(parent, aside, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(Error::new(Code::PermissionDenied, "something else was put there meanwhile"));
    }
    Ok(file)
}

/// The last piece again, whose answer was lost: the file is whole, and these bytes are in it.
fn is_there(parent: BorrowedFd<'_>, name: &OsStr, size: u64, offset: u64, data: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(parent, name, flags, Mode::empty()).map(File::from) else { return false };
    let is_whole = file.metadata().is_ok_and(|stat| stat.is_file() && stat.len() == size);
    let mut there = vec![0; data.len()]; // no more than a frame
    is_whole && file.read_exact_at(&mut there, offset).is_ok() && there == data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_the_share() {
        let path = format!("{SHARE}/a/b/c.txt");
        let (above, name) = split(&path).unwrap();
        assert_eq!((above, name), (Path::new("a/b"), OsStr::new("c.txt")));
        let plain = format!("{SHARE}/c.txt");
        assert_eq!(split(&plain).unwrap().0, Path::new(""));
        for bad in
            ["/etc/passwd", "", "c.txt", SHARE, &format!("{SHARE}/../x"), "/run/kata-containers/x"]
        {
            let err = split(bad).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument, "{bad}");
        }
        assert!(split(&format!("{SHARE}/a/../../x")).is_err());
        assert!(split(&format!("{SHARE}x/y")).is_err());
    }
}
