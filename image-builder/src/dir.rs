//! A host directory as a tree. No link is followed, not even when a name is swapped for one while we look: every
//! directory is opened beneath the one we were given. Contents are noted, and read when the image is written; a file
//! that is another one by then stops the build.
//!
//! What belongs to the host and not to the tree is left out: times (a copy of a directory must give the same image) and
//! the labels that the host's own security modules put on files.

use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::limits::Budget;
use crate::progress::Progress;
use crate::tree::{DeviceClass, Inode, InodeId, Kind, Meta, Name, Path, Time, Tree, shown};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

/// Attributes that a host puts on files by itself.
const HOST_XATTRS: [&[u8]; 4] =
    [b"security.selinux", b"security.SMACK64", b"security.ima", b"security.evm"];
/// Linux lets no list and no value be larger.
const XATTR_MAX: usize = 64 << 10;

/// Reads the directory at `path`.
pub fn read(path: &std::path::Path, budget: &mut Budget, progress: &dyn Progress) -> Result<Tree> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(path, flags, Mode::empty()).context(|| format!("open {path:?}"))?;
    let top = Rc::new(top);
    let stat = rustix::fs::fstat(&top).context(|| format!("stat {path:?}"))?;
    let xattrs = BTreeMap::new(); // filled below, as for every directory
    let mut reader = Reader {
        top: Rc::clone(&top),
        tree: Tree::new(meta(&stat, xattrs)),
        links: HashMap::new(),
        budget,
        progress,
    };
    progress.begin("listing files", 0);
    let mut waiting = vec![(Path::default(), InodeId::ROOT)];
    while let Some((directory, id)) = waiting.pop() {
        reader
            .directory(&directory, id, &mut waiting)
            .context(|| format!("read {directory:?} of {path:?}"))?;
    }
    progress.end();
    Ok(reader.tree)
}

struct Reader<'a> {
    top: Rc<OwnedFd>,
    tree: Tree,
    /// Inodes with several names, by device and inode number.
    links: HashMap<(u64, u64), InodeId>,
    budget: &'a mut Budget,
    progress: &'a dyn Progress,
}

impl Reader<'_> {
    fn directory(
        &mut self,
        path: &Path,
        id: InodeId,
        waiting: &mut Vec<(Path, InodeId)>,
    ) -> Result<()> {
        let fd = self.open(path)?;
        self.tree.inode_mut(id).meta.xattrs = xattrs(&fd, None)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).context(|| "list".into())? {
            let entry = entry.context(|| "list".into())?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(Name::new(name)?);
            }
        }
        names.sort_unstable();
        for name in names {
            let shown = format!("{name:?}");
            self.entry(path, id, &fd, name, waiting).context(|| shown)?;
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let bytes = path.to_bytes();
        let name = if bytes.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(&bytes) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.top, name, flags, Mode::empty(), resolve).context(|| "open".into())
    }

    fn entry(
        &mut self,
        directory: &Path,
        parent: InodeId,
        fd: &OwnedFd,
        name: Name,
        waiting: &mut Vec<(Path, InodeId)>,
    ) -> Result<()> {
        let os_name = OsStr::from_bytes(name.as_bytes());
        let stat = statat(fd, os_name, AtFlags::SYMLINK_NOFOLLOW).context(|| "stat".into())?;
        let identity = (stat.st_dev, stat.st_ino);
        let path = directory.join(name.clone());
        if path.to_bytes().len() > crate::tree::PATH_MAX {
            return Err(Error::refused("its path is over 4095 bytes"));
        }
        if let Some(id) = self.links.get(&identity) {
            return self.tree.link(parent, name, *id);
        }
        let kind = self.kind(&path, fd, os_name, &stat)?;
        let is_directory = matches!(kind, Kind::Directory(_));
        let xattrs = if is_directory { BTreeMap::new() } else { xattrs(fd, Some(os_name))? };
        let size: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.budget.take_entry(path.to_bytes().len() + size)?;
        let inode = Inode { meta: meta(&stat, xattrs), kind };
        let id = self.tree.add(parent, name, inode)?;
        match is_directory {
            true => waiting.push((path, id)),
            false if stat.st_nlink > 1 => drop(self.links.insert(identity, id)),
            false => {}
        }
        Ok(())
    }

    fn kind(&mut self, path: &Path, fd: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<Kind> {
        let device = |class| {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            match (class, major, minor) {
                (DeviceClass::Char, 0, 0) => Err(Error::refused(
                    "character device 0:0, a whiteout of overlayfs: give the merged directory",
                )),
                _ => {
                    self.budget.check_device(class, major, minor)?;
                    Ok(Kind::Device { class, major, minor })
                }
            }
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let length = u64::try_from(stat.st_size).unwrap_or_default();
                self.budget.take_content(length)?;
                self.progress.advance(length);
                let host = PathBuf::from(OsStr::from_bytes(&path.to_bytes()));
                let identity = (stat.st_dev, stat.st_ino);
                Ok(Kind::File(Content::beneath(&self.top, host, identity, length)))
            }
            FileType::Directory => Ok(Kind::directory()),
            FileType::Symlink => {
                let target = readlinkat(fd, name, Vec::new()).context(|| "read link".into())?;
                Ok(Kind::Symlink(target.into_bytes()))
            }
            FileType::CharacterDevice => device(DeviceClass::Char),
            FileType::BlockDevice => device(DeviceClass::Block),
            FileType::Fifo => Ok(Kind::Fifo),
            FileType::Socket => Ok(Kind::Socket),
            FileType::Unknown => Err(Error::unsupported("a file of an unknown type")),
        }
    }
}

fn meta(stat: &Stat, xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> Meta {
    let mode = u16::try_from(stat.st_mode & 0o7777).unwrap_or_default();
    Meta { mode, uid: stat.st_uid, gid: stat.st_gid, mtime: Time::default(), xattrs }
}

/// The attributes of a directory, or of a name in it. A link's own are read, not its target's.
fn xattrs(directory: &OwnedFd, name: Option<&OsStr>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(name.unwrap_or(OsStr::new("."))); // with ".", the link of /proc is followed and none else
    let mut names = match rustix::fs::llistxattr(&path, &mut [0u8; 0][..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Ok(_) => vec![0; XATTR_MAX],
        Err(err) => return Err(err).context(|| "list attributes".into()),
    };
    let size =
        rustix::fs::llistxattr(&path, &mut names[..]).context(|| "list attributes".into())?;
    names.truncate(size);
    let mut found = BTreeMap::new();
    let mut value = vec![0; XATTR_MAX];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if HOST_XATTRS.contains(&name) || !crate::erofs::can_store_xattr(name) {
            continue;
        }
        let size = rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut value[..])
            .context(|| format!("read attribute {:?}", shown(name)))?;
        found.insert(name.to_vec(), value.get(..size).unwrap_or_default().to_vec());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::progress::Silent;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn read_dir(path: &std::path::Path, limits: Limits) -> Result<Tree> {
        read(path, &mut Budget::new(limits), &Silent)
    }

    #[test]
    fn links_are_kept_as_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), "hello").unwrap();
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        symlink("/etc", dir.path().join("etc")).unwrap();
        let tree = read_dir(dir.path(), Limits::default()).unwrap();
        let at = |path: &str| tree.find(&Path::parse(path.as_bytes()).unwrap());
        assert_eq!(at("d/a"), at("b"));
        assert!(matches!(&tree.inode(at("etc").unwrap()).kind, Kind::Symlink(to) if to == b"/etc"));
        assert_eq!(at("etc/passwd"), None);
    }

    #[test]
    fn a_directory_over_the_limits_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::File::create(dir.path().join("big")).unwrap().set_len(1 << 40).unwrap();
        let err = read_dir(dir.path(), Limits::default()).unwrap_err();
        assert!(
            err.to_string().contains("\"big\"") && err.to_string().contains("--max-size"),
            "{err}"
        );
    }
}
