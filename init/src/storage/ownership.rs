//! The group that a volume's files belong to: Kubernetes' fsGroup for what the host attached, Kata's `fsgid=` for a
//! directory that was just made.
//!
//! What is on a volume may have been made by a container, so no name in it is followed: each entry is opened by itself,
//! beneath the volume, through no link and into no other mount.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chmod, chownat, fstat,
    openat, openat2,
};

use crate::error::{Code, Context, Error, Result};

/// Who may read and, where it can be written, write (Kubernetes' SetVolumeOwnership).
const READ: u32 = 0o440;
const WRITE: u32 = 0o220;
const ENTER: u32 = 0o110;
const SETGID: u32 = 0o2000;

/// When to change what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Always,
    /// Only if the root of the volume is not as it would be made.
    OnRootMismatch,
}

/// `Storage.fs_group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsGroup {
    pub gid: u32,
    pub policy: Policy,
}

/// A group, and how much of a mount it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// A directory that was just made, by its id.
    Root(u32),
    Tree {
        group: FsGroup,
        read_only: bool,
    },
}

/// Gives what is mounted at `path` its group; blocks for as long as the tree is large.
pub fn give(path: &Path, group: Group) -> Result<()> {
    let given = match group {
        Group::Root(gid) => give_root(path, gid),
        Group::Tree { group, read_only } => give_tree(path, group, read_only),
    };
    given.context(|| format!("give {path:?} its group"))
}

fn give_root(path: &Path, gid: u32) -> Result<()> {
    let root = open_root(path)?;
    let mode = fstat(&root)?.st_mode & 0o7777;
    change(&root, gid, mode | SETGID)
}

fn give_tree(path: &Path, FsGroup { gid, policy }: FsGroup, read_only: bool) -> Result<()> {
    let root = open_root(path)?;
    let stat = fstat(&root)?;
    if policy == Policy::OnRootMismatch && is_as_made(&stat, gid, read_only) {
        return Ok(());
    }
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        let directory = if below.as_os_str().is_empty() {
            openat(&root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?
        } else {
            beneath(&root, &below, OFlags::RDONLY | OFlags::DIRECTORY)?
        };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let node = openat(
                &directory,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .context(|| format!("open {:?}", below.join(name)))?;
            let stat = fstat(&node)?;
            give_node(&node, &stat, gid, read_only)
                .context(|| format!("change {:?}", below.join(name)))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push(below.join(name));
            }
        }
    }
    // Last: it says that all below it is done.
    give_node(&root, &stat, gid, read_only)
}

fn give_node(node: &OwnedFd, stat: &Stat, gid: u32, read_only: bool) -> Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Ok(chownat(node, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?);
    }
    let mode = stat.st_mode & 0o7777; // read before: a change of group takes set-id bits away
    change(node, gid, mode | wanted(kind == FileType::Directory, read_only))
}

fn change(node: &OwnedFd, gid: u32, mode: u32) -> Result<()> {
    chownat(node, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    // The node itself, whatever its name is by now: fchmod(2) takes no O_PATH descriptor.
    let itself = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
    Ok(chmod(itself, Mode::from_raw_mode(mode))?)
}

fn wanted(directory: bool, read_only: bool) -> u32 {
    let files = if read_only { READ } else { READ | WRITE };
    if directory { files | ENTER | SETGID } else { files }
}

fn is_as_made(root: &Stat, gid: u32, read_only: bool) -> bool {
    let wanted = wanted(true, read_only);
    root.st_gid == gid && root.st_mode & wanted == wanted
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// Another mount in it has its own owner.
fn beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    opened.context(|| format!("open {path:?}"))
}

/// `fsgid=GID` among options; what is left of them.
pub fn take_option(options: &[String]) -> Result<(Option<u32>, Vec<String>)> {
    let mut gid = None;
    let mut others = Vec::with_capacity(options.len());
    for option in options.iter().flat_map(|option| option.split(',')) {
        match option.strip_prefix("fsgid=") {
            Some(value) => {
                let number = value.parse().ok().filter(|gid| *gid != u32::MAX);
                gid = Some(number.ok_or_else(|| {
                    let message = format!("option {option:?}: not a group's number");
                    Error::new(Code::InvalidArgument, message)
                })?);
            }
            None => others.push(option.to_owned()),
        }
    }
    Ok((gid, others))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("hyperstart-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn mode(&self, name: &str) -> u32 {
            fs::symlink_metadata(self.0.join(name)).unwrap().mode() & 0o7777
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// Our own group: another takes root.
    fn own() -> u32 {
        fs::metadata("/proc/self").unwrap().gid()
    }

    #[test]
    fn a_tree_gets_its_modes_and_links_are_not_followed() {
        let (scratch, outside) = (Scratch::new("owned"), Scratch::new("outside"));
        fs::write(outside.0.join("secret"), "x").unwrap();
        fs::set_permissions(outside.0.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(scratch.0.join("sub")).unwrap();
        fs::write(scratch.0.join("sub/file"), "x").unwrap();
        for (name, mode) in [("", 0o700), ("sub", 0o700), ("sub/file", 0o4600)] {
            fs::set_permissions(scratch.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink(outside.0.join("secret"), scratch.0.join("link")).unwrap();
        symlink(&outside.0, scratch.0.join("sub/dir")).unwrap();
        let group = FsGroup { gid: own(), policy: Policy::OnRootMismatch };
        give(&scratch.0, Group::Tree { group, read_only: false }).unwrap();
        assert_eq!((scratch.mode(""), scratch.mode("sub")), (0o2770, 0o2770));
        assert_eq!(scratch.mode("sub/file"), 0o4660);
        assert_eq!(outside.mode("secret"), 0o600);
        fs::set_permissions(scratch.0.join("sub/file"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&scratch.0, Group::Tree { group, read_only: false }).unwrap();
        assert_eq!(scratch.mode("sub/file"), 0o600, "the root is as it would be made");
        let always = FsGroup { policy: Policy::Always, ..group };
        give(&scratch.0, Group::Tree { group: always, read_only: true }).unwrap();
        assert_eq!(scratch.mode("sub/file"), 0o640);
    }

    #[test]
    fn a_link_is_no_volume() {
        let scratch = Scratch::new("link");
        symlink("/", scratch.0.join("link")).unwrap();
        let err = give(&scratch.0.join("link"), Group::Root(own())).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
    }

    #[test]
    fn the_group_is_taken_out_of_the_options() {
        let options = ["size=1m,fsgid=7".to_owned(), "ro".to_owned()];
        let (gid, others) = take_option(&options).unwrap();
        assert_eq!((gid, others), (Some(7), vec!["size=1m".to_owned(), "ro".to_owned()]));
        for bad in ["fsgid=", "fsgid=-1", "fsgid=4294967295", "fsgid=staff"] {
            assert!(take_option(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
