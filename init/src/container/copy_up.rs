//! `tmpcopyup`: a tmpfs that starts with what the directory that it covers holds.
//!
//! Done by the container's child, in the container's cgroup, and bounded: a directory that is too large is an error.
//! Names are looked up one at a time and never through a link. Files that are one by hard links become one each.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, mknodat,
    openat, readlinkat, sendfile, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::mount_options::MountOptions;
use crate::error::{Code, Context, Error, Result};
use crate::sys::path_of;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const CHUNK: usize = 1 << 20;
/// The kernel's own limit for a value, and for all names of one file (xattr(7)).
const XATTR_MAX: usize = 64 << 10;

/// What is left to be copied at the most.
pub struct Budget {
    pub entries: u32,
    pub bytes: u64,
    /// Directories in directories: each costs two descriptors while it is copied.
    pub depth: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { entries: 64 << 10, bytes: 256 << 20, depth: 64 }
    }
}

/// Which of the top directory's own attributes its mount options have said.
#[derive(Default)]
pub struct Said {
    pub mode: bool,
    pub uid: bool,
    pub gid: bool,
}

impl Said {
    pub fn by(options: &MountOptions) -> Self {
        let has = |key: &str| {
            options.data.iter().any(|option| option.split_once('=').is_some_and(|(k, _)| k == key))
        };
        Self { mode: has("mode"), uid: has("uid"), gid: has("gid") }
    }
}

/// Copies what is in the directory `from` into `to`, and what `from` is like where nothing else was said.
pub fn copy_up(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    said: &Said,
    budget: &mut Budget,
) -> Result<()> {
    let from = openat(from, ".", DIRECTORY, Mode::empty())?;
    let to = openat(to, ".", DIRECTORY, Mode::empty())?;
    copy_directory(from.as_fd(), to.as_fd(), budget)?;
    let stat = fstat(&from)?;
    copy_xattrs(from.as_fd(), to.as_fd())?;
    let uid = (!said.uid).then(|| Uid::from_raw(stat.st_uid));
    let gid = (!said.gid).then(|| Gid::from_raw(stat.st_gid));
    fchown(&to, uid, gid)?;
    if !said.mode {
        fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
    }
    Ok(futimens(&to, &times(&stat))?)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, budget: &mut Budget) -> Result<()> {
    let mut entries = Dir::read_from(from)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        budget.entries = budget.entries.checked_sub(1).ok_or_else(|| too_large("entries"))?;
        copy_entry(from, to, name, budget).context(|| format!("{name:?}"))?;
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    budget: &mut Budget,
) -> Result<()> {
    // Looked at before it is opened: to open a device or a pipe would do something.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(from, name, flags, Mode::empty())?;
    let stat = fstat(&place)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            let deeper = budget.depth.checked_sub(1);
            budget.depth = deeper.ok_or_else(|| too_large("directories in directories"))?;
            copy_subdirectory(place.as_fd(), to, name, budget)?;
            budget.depth += 1;
            Ok(())
        }
        FileType::RegularFile => copy_file(place.as_fd(), to, name, budget),
        FileType::Symlink => {
            symlinkat(readlinkat(&place, "", Vec::new())?, to, name)?;
            copy_ownership(to, name, &stat)
        }
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
            mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?; // umask is 0
            copy_ownership(to, name, &stat)
        }
        FileType::Unknown => Err(Error::new(Code::InvalidArgument, "a file of no known type")),
    }
}

fn copy_subdirectory(
    place: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    budget: &mut Budget,
) -> Result<()> {
    mkdirat(to, name, Mode::RWXU)?;
    let source = openat(place, ".", DIRECTORY, Mode::empty())?;
    let copy = openat(to, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    copy_directory(source.as_fd(), copy.as_fd(), budget)?;
    copy_attributes(source.as_fd(), copy.as_fd())
}

fn copy_file(
    place: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    budget: &mut Budget,
) -> Result<()> {
    let source = openat(CWD, path_of(place), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let length = u64::try_from(fstat(&source)?.st_size).unwrap_or(u64::MAX);
    if length > budget.bytes {
        return Err(too_large("bytes"));
    }
    loop {
        match sendfile(&copy, &source, None, CHUNK) {
            Err(Errno::INTR) => {}
            sent => match u64::try_from(sent?).unwrap_or(u64::MAX) {
                0 => break,
                sent => {
                    let left = budget.bytes.checked_sub(sent);
                    budget.bytes = left.ok_or_else(|| too_large("bytes"))?; // it has grown since
                }
            },
        }
    }
    copy_attributes(source.as_fd(), copy.as_fd())
}

/// Owner before mode: a change of the owner clears the set-id bits (chown(2)).
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let stat = fstat(from)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    copy_xattrs(from, to)?;
    Ok(futimens(to, &times(&stat))?)
}

/// Of what is not opened.
fn copy_ownership(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// File capabilities and access lists are among them. A filesystem without any has none to copy.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut names = vec![0; XATTR_MAX];
    let length = match flistxattr(from, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    names.truncate(length);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_MAX];
        let copied = fgetxattr(from, name, value.as_mut_slice()).and_then(|length| {
            value.truncate(length);
            fsetxattr(to, name, &value, XattrFlags::empty())
        });
        copied.context(|| format!("extended attribute {:?}", String::from_utf8_lossy(name)))?;
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn too_large(what: &str) -> Error {
    Error::new(Code::ResourceExhausted, format!("tmpcopyup: too many {what} to copy"))
}

#[cfg(test)]
mod tests;
