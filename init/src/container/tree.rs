//! A directory tree that is entered through one descriptor and never left.
//!
//! What is in a container's tree may be written by the container, or by another that shares it, while it is read here.
//! So no path is checked first and used later: each is resolved by the kernel within the tree
//! (openat2(2) RESOLVE_IN_ROOT: links and `..` stay inside; no magic links), and what is done is done to the
//! descriptor that came out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hyperstart_archive::open_resolved;
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, mkdirat, openat, readlinkat,
};
use rustix::io::{Errno, Result};

/// linux/magic.h
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// As many symbolic links as the kernel follows in one path (path_resolution(7)).
const LINKS_MAX: u32 = 40;

#[derive(Debug)]
pub struct Tree(OwnedFd);

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    Directory,
    File,
}

/// Whether a path may go through symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    Follow,
    Refuse,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// The caller's own root.
    pub fn of_root() -> Result<Self> {
        Ok(Self(openat(
            CWD,
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    pub fn open(&self, path: &str, flags: OFlags, links: Links) -> Result<OwnedFd> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if links == Links::Refuse {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        open_resolved(self.0.as_fd(), path.as_bytes(), flags, resolve)
    }

    /// The place that `path` names, for mounting on or making things in.
    pub fn locate(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH, Links::Follow)
    }

    /// Locates `path`, and makes it and the directories above it where they are missing. A link that leads to nothing
    /// has its target made.
    pub fn create(&self, path: &str, leaf: Leaf) -> Result<OwnedFd> {
        self.create_within(path, leaf, LINKS_MAX)
    }

    fn create_within(&self, path: &str, leaf: Leaf, links: u32) -> Result<OwnedFd> {
        match self.locate(path) {
            Err(Errno::NOENT) => {}
            done => return done,
        }
        let (parent, name) = split(path).ok_or(Errno::NOENT)?;
        let parent_fd = self.create_within(parent, Leaf::Directory, links)?;
        match make(parent_fd.as_fd(), name, leaf) {
            Err(Errno::EXIST) => {
                let Some(target) = link_target(parent_fd.as_fd(), name)? else {
                    return self.locate(path); // somebody else has just made it
                };
                let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                self.create_within(&join(parent, &target), leaf, links)
            }
            Err(errno) => Err(errno),
            Ok(()) => enter(parent_fd.as_fd(), name),
        }
    }

    /// The directory that holds `path`, made if missing, and the name in it.
    pub fn create_parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str)> {
        let (parent, name) = split(path).ok_or(Errno::INVAL)?;
        Ok((self.create(parent, Leaf::Directory)?, name))
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The path of the parent and the last name; nothing for the root, which always exists.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (!name.is_empty()).then_some((if parent.is_empty() { "/" } else { parent }, name))
}

fn join(parent: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("{parent}/{target}") }
}

fn make(parent: BorrowedFd<'_>, name: &str, leaf: Leaf) -> Result<()> {
    match leaf {
        Leaf::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Leaf::File => {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

fn link_target(parent: BorrowedFd<'_>, name: &str) -> Result<Option<String>> {
    match readlinkat(parent, name, Vec::new()) {
        Ok(target) => target.into_string().map(Some).map_err(|_| Errno::ILSEQ),
        Err(Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// One name in a directory, and not through a link.
fn enter(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

pub fn is_on_proc(fd: BorrowedFd<'_>) -> Result<bool> {
    has_magic(fd, PROC_SUPER_MAGIC)
}

pub fn has_magic(fd: BorrowedFd<'_>, magic: u64) -> Result<bool> {
    Ok(u64::try_from(fstatfs(fd)?.f_type) == Ok(magic))
}

#[cfg(test)]
mod tests;
