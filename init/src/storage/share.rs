//! The directory that the host shares with the containers, as a whole; and what containers leave there for it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::error::{Code, Context, Error, Result};
use crate::log;

/// Where Kata's runtimes have it.
pub const SHARE: &str = "/run/kata-containers/shared/containers";

/// The end of a file, `most` bytes of it: a message that a container has left. Through no link.
pub fn read_end(path: &Path, most: u64) -> Result<Vec<u8>> {
    let read = || -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        end_of(file, most)
    };
    read().context(|| format!("read {path:?}"))
}

/// The same of a file in a container's root, as the container would find it.
pub fn read_end_in(root: &Path, path: &str, most: u64) -> Result<Vec<u8>> {
    let read = || -> Result<Vec<u8>> {
        let root = openat2(
            CWD,
            root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        )?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        end_of(openat2(root, path, flags, Mode::empty(), resolve)?, most)
    };
    read().context(|| format!("read {path:?} in {root:?}"))
}

fn end_of(file: OwnedFd, most: u64) -> Result<Vec<u8>> {
    let mut file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::new(Code::InvalidArgument, "no regular file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

/// Asks each filesystem that is mounted in the share what is there, so that a daemon of the host's lets go of what is
/// gone (virtio-fs keeps a file open until somebody asks). What is gone is no error.
pub fn look_at_mounts() -> Result<()> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(path).context(|| format!("read {path:?}"))?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)); // proc_pid_mountinfo(5)
    for point in points.filter(|point| Path::new(point).starts_with(SHARE)) {
        match fs::metadata(point) {
            Ok(_) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => log::debug!("stat {point}: {err}"), // asked is asked
        }
    }
    Ok(())
}
