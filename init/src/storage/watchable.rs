//! `watchable-bind`: a small directory of the host (a config map, a secret) whose changes containers can watch.
//!
//! inotify(7) tells nothing of what the host changes in a share, so the directory is copied into a tmpfs and looked at every
//! two seconds; links are changed last, and each as a whole, as Kubernetes does it. A directory that is no share's is bound
//! as it is, and so is one that is larger than such volumes are. Containers may be able to write to the copy: nothing in
//! it is followed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FsWord, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec,
    Timestamps, Uid, chownat, fchmod, fchown, fstatfs, futimens, mkdirat, openat, openat2,
    readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Code, Context, Error, Result};
use crate::{log, textfile};

/// How often a copy is brought up to date.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// Kata's limits of such a volume.
const ENTRIES_MAX: usize = 16;
const BYTES_MAX: u64 = 1 << 20;
/// The old and the new of everything.
const TMPFS: &str = "size=4m,nr_inodes=128,mode=755";
/// linux/magic.h: what of the host's is a share.
const SHARES: [FsWord; 2] = [0x6573_5546, 0x0102_1997];
/// No file of a volume has this name.
const NEW: &str = "..hyperstart-new";

/// Mounts the copy, or the directory itself.
pub fn mount_copy(source: &Path, mount_point: &Path) -> Result<()> {
    let from = open(source)?;
    let is_share = SHARES.contains(&fstatfs(&from)?.f_type);
    let small = is_share.then(|| list(&from)).transpose()?.flatten();
    let what = || format!("mount {source:?} on {mount_point:?}");
    if small.is_none() {
        let none = None::<&str>;
        return mount(Some(source), mount_point, none, MsFlags::MS_BIND, none).context(what);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("watchable"), mount_point, Some("tmpfs"), flags, Some(TMPFS)).context(what)?;
    update(source, mount_point).inspect_err(|_| {
        if let Err(errno) = umount2(mount_point, MntFlags::MNT_DETACH) {
            log::warn!("unmount {mount_point:?}: {errno}"); // the error that the host gets is the first one
        }
    })
}

/// Whether it is the copy that is mounted there, and not the directory itself.
pub fn is_copy(mount_point: &Path) -> bool {
    let mounts = textfile::read_optional(Path::new("/proc/self/mountinfo")); // proc_pid_mountinfo(5)
    mounts.lines().any(|line| {
        let point = line.split(' ').nth(4);
        point.is_some_and(|point| Path::new(point) == mount_point)
            && line.contains(" - tmpfs watchable ")
    })
}

/// Brings the copy up to date.
pub fn update(source: &Path, mount_point: &Path) -> Result<()> {
    let (from, to) = (open(source)?, open(mount_point)?);
    let what = || format!("copy {source:?} to {mount_point:?}");
    let wanted = list(&from)?.ok_or_else(|| {
        let message = format!("more than {ENTRIES_MAX} files or {BYTES_MAX} bytes");
        Error::new(Code::ResourceExhausted, message)
    });
    let wanted = wanted.context(what)?;
    copy_all(&from, &to, &wanted).context(what)
}

/// A name below a volume; what is there, but for directories with what it is: a link's target.
struct Entry {
    stat: Stat,
    target: Option<Vec<u8>>,
}

impl Entry {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.stat.st_mode & 0o7777)
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.stat.st_uid)), Some(Gid::from_raw(self.stat.st_gid)))
    }

    fn is_as(&self, there: &Stat) -> bool {
        let of = |stat: &Stat| {
            let time = (stat.st_mtime, stat.st_mtime_nsec);
            (stat.st_size, time, stat.st_mode, stat.st_uid, stat.st_gid)
        };
        of(&self.stat) == of(there)
    }
}

/// What is below, a directory before what is in it. None: too much.
fn list(root: &OwnedFd) -> Result<Option<BTreeMap<PathBuf, Entry>>> {
    let mut found = BTreeMap::new();
    let (mut directories, mut bytes) = (vec![PathBuf::new()], 0_u64);
    while let Some(below) = directories.pop() {
        let directory = beneath(root, &below)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue, // the host is changing it
                stat => stat?,
            };
            let path = below.join(name);
            let mut target = None;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => directories.push(path.clone()),
                FileType::Symlink => {
                    target = Some(readlinkat(&directory, name, Vec::new())?.into_bytes());
                }
                FileType::RegularFile => {
                    bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
                }
                _ => continue, // rustix's enum: pipes and devices are no configuration
            }
            found.insert(path, Entry { stat, target });
            if found.len() > ENTRIES_MAX || bytes > BYTES_MAX {
                return Ok(None);
            }
        }
    }
    Ok(Some(found))
}

fn copy_all(from: &OwnedFd, to: &OwnedFd, wanted: &BTreeMap<PathBuf, Entry>) -> Result<()> {
    for kind in [FileType::Directory, FileType::RegularFile, FileType::Symlink] {
        for (path, entry) in wanted.iter().filter(|(_, entry)| entry.kind() == kind) {
            let copied = copy(from, to, path, entry);
            copied.context(|| format!("copy {path:?}"))?;
        }
    }
    // What is in a directory comes after it.
    let there = list(to)?.unwrap_or_default();
    for (path, entry) in there.iter().rev().filter(|(path, _)| !wanted.contains_key(*path)) {
        let (parent, name) = place(to, path)?;
        let flags = match entry.kind() {
            FileType::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(), // rustix's enum
        };
        unlinkat(&parent, name, flags).context(|| format!("remove {path:?}"))?;
    }
    Ok(())
}

fn copy(from: &OwnedFd, to: &OwnedFd, path: &Path, entry: &Entry) -> Result<()> {
    let (parent, name) = place(to, path)?;
    let there = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    let (uid, gid) = entry.owner();
    if let Some(target) = &entry.target {
        let same = there.is_some()
            && readlinkat(&parent, name, Vec::new())
                .ok()
                .is_some_and(|have| have.as_bytes() == target.as_slice());
        if !same {
            forget_new(&parent)?;
            let target = std::ffi::OsString::from_vec(target.clone());
            symlinkat(target, &parent, NEW)?;
            chownat(&parent, NEW, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            renameat(&parent, NEW, &parent, name)?;
        }
        return Ok(());
    }
    if entry.kind() == FileType::Directory {
        match mkdirat(&parent, name, entry.mode()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let made = openat(&parent, name, DIRECTORY, Mode::empty())?;
        fchown(&made, uid, gid)?;
        return Ok(fchmod(&made, entry.mode())?);
    }
    if there.is_some_and(|there| entry.is_as(&there)) {
        return Ok(());
    }
    forget_new(&parent)?;
    copy_file(from, path, &parent, entry)?;
    Ok(renameat(&parent, NEW, &parent, name)?)
}

fn copy_file(from: &OwnedFd, path: &Path, parent: &OwnedFd, entry: &Entry) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat2(from, path, flags, Mode::empty(), BENEATH)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = openat(parent, NEW, flags, Mode::RUSR | Mode::WUSR)?;
    let mut new = File::from(new);
    std::io::copy(&mut File::from(source).take(BYTES_MAX), &mut new)?;
    let (uid, gid) = entry.owner();
    fchown(&new, uid, gid)?;
    fchmod(&new, entry.mode())?;
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let last = time(entry.stat.st_mtime, entry.stat.st_mtime_nsec);
    Ok(futimens(&new, &Timestamps { last_access: last, last_modification: last })?)
}

/// Of a copy that was cut off.
fn forget_new(parent: &OwnedFd) -> Result<()> {
    match unlinkat(parent, NEW, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The directory that a name is in, and the name.
fn place<'a>(root: &OwnedFd, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let parent = beneath(root, path.parent().unwrap_or(Path::new("")))?;
    Ok((parent, path.file_name().unwrap_or_default()))
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let opened = openat2(root.as_fd(), path, DIRECTORY, Mode::empty(), BENEATH);
    opened.context(|| format!("open {path:?}"))
}

fn open(path: &Path) -> Result<OwnedFd> {
    let opened = openat2(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    opened.context(|| format!("open directory {path:?}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("hyperstart-watch-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    /// As Kubernetes lays a config map out, and changes it.
    #[test]
    fn a_copy_follows_its_source_and_nothing_that_is_planted_in_it() {
        let (from, to, outside) = (scratch("from"), scratch("to"), scratch("outside"));
        fs::create_dir(from.join("..1")).unwrap();
        fs::write(from.join("..1/key"), "one").unwrap();
        symlink("..1", from.join("..data")).unwrap();
        symlink("..data/key", from.join("key")).unwrap();
        update(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("key")).unwrap(), "one");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let before = inode(&to.join("key"));
        update(&from, &to).unwrap();
        assert_eq!(inode(&to.join("key")), before, "what has not changed is left alone");
        fs::create_dir(from.join("..2")).unwrap();
        fs::write(from.join("..2/key"), "two").unwrap();
        symlink("..2", from.join("new")).unwrap();
        fs::rename(from.join("new"), from.join("..data")).unwrap();
        fs::remove_dir_all(from.join("..1")).unwrap();
        update(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("key")).unwrap(), "two");
        assert!(!to.join("..1").exists());
        fs::remove_dir_all(to.join("..2")).unwrap();
        symlink(&outside, to.join("..2")).unwrap();
        update(&from, &to).unwrap_err();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        for index in 0..ENTRIES_MAX {
            fs::write(from.join(index.to_string()), "").unwrap();
        }
        let err = update(&from, &to).unwrap_err();
        assert_eq!(err.code(), Code::ResourceExhausted, "{err}");
        for path in [from, to, outside] {
            fs::remove_dir_all(path).unwrap();
        }
    }
}
