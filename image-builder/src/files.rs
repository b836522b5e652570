//! The files that an image is delivered in: a directory (an OCI layout), or an archive of one (`docker save`,
//! `podman save`, `skopeo copy`), which is indexed once and never unpacked.
//!
//! Names in it are hostile. In a directory they are opened beneath it, so that no link leads out; in an archive links
//! are resolved in its index alone, and one that climbs out is refused.

use crate::error::{Context, Error, Result};
use crate::limits::Budget;
use crate::stream::Blob;
use crate::tar::{Archive, EntryKind};
use crate::tree::{Name, Path, shown};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// How many links may lead to one file.
const LINKS_MAX: usize = 8;

pub enum Files {
    Directory(OwnedFd),
    Archive { archive: Blob, members: BTreeMap<Path, Member> },
}

/// A file in an archive.
pub enum Member {
    File {
        offset: u64,
        length: u64,
    },
    Link(Path),
    /// A name that is of no use here; its bytes cannot be asked for.
    Other,
}

impl Files {
    pub fn directory(path: &std::path::Path) -> Result<Files> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).context(|| format!("open {path:?}"))?;
        Ok(Files::Directory(fd))
    }

    /// Indexes an uncompressed archive.
    pub fn archive(archive: Blob, budget: &mut Budget) -> Result<Files> {
        let mut members = BTreeMap::new();
        let mut entries = Archive::new(archive.reader());
        while let Some(entry) = entries.next_entry()? {
            let operation = || format!("archive entry {:?}", shown(&entry.path));
            budget.take_entry(entry.path.len() + entry.target.len()).context(operation)?;
            let path = Path::parse(&entry.path).context(operation)?;
            let member = match entry.kind {
                EntryKind::File if entry.sparse.is_none() => {
                    let offset = archive.offset + entry.offset;
                    Member::File { offset, length: entry.size }
                }
                EntryKind::Symlink => {
                    Member::Link(beside(&path, &entry.target).context(operation)?)
                }
                EntryKind::HardLink => Member::Link(Path::parse(&entry.target).context(operation)?),
                EntryKind::Directory => continue,
                EntryKind::File | EntryKind::Device { .. } | EntryKind::Fifo => Member::Other,
            };
            if members.insert(path, member).is_some() {
                return Err(Error::refused("a second entry of this name")).context(operation);
            }
        }
        entries.check_end_mark()?;
        Ok(Files::Archive { archive, members })
    }

    /// Whether there is something of this name.
    pub fn has(&self, name: &str) -> bool {
        self.blob(name).is_ok()
    }

    /// The file of this name.
    pub fn blob(&self, name: &str) -> Result<Blob> {
        let path = Path::parse(name.as_bytes())?;
        match self {
            Files::Directory(directory) => open_beneath(directory, &path),
            Files::Archive { archive, members } => find(archive, members, &path),
        }
        .context(|| format!("open {name:?} of the image"))
    }

    /// A small file, whole.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        self.blob(name)?.read_all(limit).context(|| format!("read {name:?} of the image"))
    }
}

fn open_beneath(directory: &OwnedFd, path: &Path) -> Result<Blob> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let name = path.to_bytes();
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file =
        File::from(openat2(directory, OsStr::from_bytes(&name), flags, Mode::empty(), resolve)?);
    let stat = file.metadata()?;
    match stat.is_file() {
        true => Ok(Blob { file: Rc::new(file), offset: 0, length: stat.len() }),
        false => Err(Error::refused("not a regular file")),
    }
}

fn find(archive: &Blob, members: &BTreeMap<Path, Member>, path: &Path) -> Result<Blob> {
    let mut path = path;
    for _ in 0..LINKS_MAX {
        match members.get(path) {
            Some(Member::File { offset, length }) => {
                let end = archive.offset + archive.length;
                return match offset.checked_add(*length).is_some_and(|last| last <= end) {
                    true => Ok(Blob {
                        file: Rc::clone(&archive.file),
                        offset: *offset,
                        length: *length,
                    }),
                    false => Err(Error::refused("the archive is cut off in it")),
                };
            }
            Some(Member::Link(target)) => path = target,
            Some(Member::Other) => return Err(Error::refused("not a regular file")),
            None => return Err(Error::refused("the archive has no such file")),
        }
    }
    Err(Error::refused("too many links lead to it"))
}

/// Where a symbolic link at `path` points: beside it, and never above the top of the archive.
fn beside(path: &Path, target: &[u8]) -> Result<Path> {
    let out = || Error::refused(format!("it links to {:?}, outside the archive", shown(target)));
    if target.first() == Some(&b'/') {
        return Err(out());
    }
    let mut names: Vec<Name> =
        path.split().map(|(parent, _)| parent.names().to_vec()).unwrap_or_default();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop().ok_or_else(out)?),
            part => names.push(Name::new(part)?),
        }
    }
    Ok(names.into_iter().fold(Path::default(), |path, name| path.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_archive() {
        let path = Path::parse(b"a/b/layer.tar").unwrap();
        assert_eq!(beside(&path, b"../../c.tar").unwrap().to_bytes(), b"c.tar");
        assert_eq!(beside(&path, b"./c.tar").unwrap().to_bytes(), b"a/b/c.tar");
        for out in [&b"../../../etc/passwd"[..], b"/etc/passwd"] {
            assert!(beside(&path, out).unwrap_err().to_string().contains("outside the archive"));
        }
    }

    #[test]
    fn a_link_in_a_directory_cannot_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("in")).unwrap();
        let files = Files::directory(dir.path()).unwrap();
        assert_eq!(files.read("in", 9).unwrap(), b"x");
        assert!(!files.has("out"));
        assert!(files.read("f", 0).is_err());
    }
}
