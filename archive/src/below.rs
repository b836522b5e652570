//! Paths below one directory, resolved by the kernel and never left (openat2(2) RESOLVE_BENEATH).

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::{Errno, Result};

/// EAGAIN is given when the tree is renamed under the call; one that goes on is an attack.
const RACES_MAX: u32 = 128;

/// What becomes of a symbolic link on the way to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It is followed, if it leads to a place below the directory.
    Below,
    /// It is an error.
    Refused,
}

pub struct Below<'a> {
    pub directory: BorrowedFd<'a>,
    pub links: Links,
}

impl Below<'_> {
    /// Opens a directory, and makes what is missing of it.
    pub fn make(&self, path: &[u8]) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        let (above, name) = split(path).ok_or(Errno::NOENT)?;
        let parent = self.make(above)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    pub fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if self.links == Links::Refused {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        open_resolved(self.directory, path, flags, resolve)
    }
}

/// openat2(2), close-on-exec, as often as others rename the tree under it.
pub fn open_resolved(
    directory: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    for _ in 0..RACES_MAX {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// The path above, and the last name; nothing for the directory itself.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((path.get(..slash)?, path.get(slash + 1..)?)),
        None => (!path.is_empty()).then_some((&[], path)),
    }
}
