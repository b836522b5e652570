//! What `-v` and `--mount` come to: shares of the VM, disks, and mounts of the container.
//!
//! | said | the VM gets | the guest mounts |
//! |---|---|---|
//! | a directory, a named volume | a share of its own, read-only if every mount of it is | virtio-fs, or 9p |
//! | a file, read-only | a copy among the pod's files | 9p |
//! | a file or device with a file system (`type=block`) | a disk | ext4, XFS or EROFS, as it is found there |
//! | `type=tmpfs` | nothing | tmpfs |

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hyperstart::{ContainerId, Storage};
use hyperstart_vmm::{Disk, ShareKind};
use oci_spec::runtime::{Mount, Spec};

use crate::binds::Binds;
use crate::error::{Context as _, Error, Result};
use crate::flags::mounts::{MountFlag, Source};
use crate::pod::disks::Attached;
use crate::pod::state::Mounted;
use crate::volume::Volumes;

/// Docker's for a tmpfs.
const TMPFS_OPTIONS: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// What a container's `-v` and `--mount` need, beside its binds.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    mounts: Vec<Mount>,
    disks: Vec<BlockMount>,
    /// Of shares that the pod has already.
    shares: Vec<Storage>,
    /// For people and for the pod's record.
    pub record: Vec<Mounted>,
}

/// A disk with a file system, at a place.
#[derive(Clone, Debug)]
struct BlockMount {
    disk: Disk,
    fstype: &'static str,
    target: PathBuf,
}

/// Where directories get into the VM.
pub enum Shares<'a> {
    /// By shares that it is started with, of this kind.
    New { binds: &'a mut Binds, kind: ShareKind },
    /// By those that it was started with: what its first container mounts.
    OfPod(&'a [Mounted]),
}

impl Mounts {
    /// Finds what they name.
    pub fn find<'a>(
        flags: impl Iterator<Item = &'a MountFlag>,
        mut shares: Shares<'_>,
    ) -> Result<Mounts> {
        let mut found = Mounts::default();
        for flag in flags {
            found.add(flag, &mut shares).context(|| format!("mount {:?}", flag.target))?;
        }
        Ok(found)
    }

    fn add(&mut self, flag: &MountFlag, shares: &mut Shares<'_>) -> Result<()> {
        let MountFlag { source, target, read_only } = flag;
        match source {
            Source::Bind(path) => self.share(path, None, flag, shares),
            Source::Volume(name) => {
                let volumes = Volumes::open()?;
                let path = match shares {
                    Shares::New { .. } => volumes.find_or_create(name)?,
                    Shares::OfPod(_) => volumes.find(name)?.path,
                };
                self.share(&path, Some(name.clone()), flag, shares)
            }
            Source::Block(path) => {
                let disk = Disk { path: path.clone(), read_only: *read_only };
                let (fstype, target) = (file_system(path)?, target.clone());
                self.disks.push(BlockMount { disk, fstype, target });
                self.note(flag, "block", Some(path.clone()));
                Ok(())
            }
            Source::Tmpfs(options) => {
                self.mounts.push(tmpfs(target, options, *read_only));
                self.note(flag, "tmpfs", None);
                Ok(())
            }
        }
    }

    fn share(
        &mut self,
        path: &Path,
        volume: Option<String>,
        flag: &MountFlag,
        shares: &mut Shares<'_>,
    ) -> Result<()> {
        let MountFlag { target, read_only, .. } = flag;
        let path = fs::canonicalize(path).context(|| format!("find {path:?}"))?;
        let (place, driver, tag) = match shares {
            Shares::New { binds, kind } => {
                let place = binds.add_volume(&path, *read_only, *kind)?;
                match binds.tag_of(&path) {
                    Some(tag) => (place, kind.name(), Some(tag)),
                    None => (place, "copy", None),
                }
            }
            Shares::OfPod(mounts) => {
                let (storage, driver) = of_pod(mounts, &path, *read_only)?;
                let (place, tag) = (PathBuf::from(&storage.mount_point), storage.source.clone());
                self.shares.push(storage);
                (place, driver, Some(tag))
            }
        };
        self.mounts.push(bind(&place, target, *read_only));
        self.note_share(flag, driver, Some(path), (tag, volume));
        Ok(())
    }

    fn note(&mut self, flag: &MountFlag, driver: &str, source: Option<PathBuf>) {
        self.note_share(flag, driver, source, (None, None));
    }

    fn note_share(
        &mut self,
        flag: &MountFlag,
        driver: &str,
        source: Option<PathBuf>,
        (tag, volume): (Option<String>, Option<String>),
    ) {
        let (target, read_only) = (flag.target.clone(), flag.read_only);
        let driver = driver.to_owned();
        self.record.push(Mounted { source, target, driver, tag, volume, read_only });
    }

    /// The disks that the VM gets for them.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.iter().map(|mount| &mount.disk)
    }

    /// What the guest mounts for them; the disks are where `attached` says, in their order.
    pub fn storages(&self, id: &ContainerId, attached: &[Attached]) -> Vec<Storage> {
        let storage = |(index, (mount, attached)): (usize, (&BlockMount, &Attached))| {
            let name = disk_name(id, index);
            let read_only = mount.disk.read_only || mount.fstype == "erofs";
            Storage::disk(&attached.driver, &attached.source, mount.fstype, &name, read_only)
        };
        let disks = self.disks.iter().zip(attached).enumerate().map(storage);
        self.shares.iter().cloned().chain(disks).collect()
    }

    /// Puts them into the container's spec. A mount of the same place is replaced.
    pub fn edit_spec(&self, id: &ContainerId, spec: &mut Spec) {
        let disk = |(index, mount): (usize, &BlockMount)| {
            let place = Storage::disk("", "", "", &disk_name(id, index), false).mount_point;
            bind(Path::new(&place), &mount.target, mount.disk.read_only)
        };
        let all = self.mounts.iter().cloned().chain(self.disks.iter().enumerate().map(disk));
        let mounts = spec.mounts_mut().get_or_insert_default();
        for mount in all {
            mounts.retain(|there| there.destination() != mount.destination());
            mounts.push(mount);
        }
    }
}

/// A share that the pod was started with, as the guest has mounted it.
fn of_pod(mounts: &[Mounted], path: &Path, read_only: bool) -> Result<(Storage, &'static str)> {
    let of_path = |mount: &&Mounted| mount.tag.is_some() && mount.source.as_deref() == Some(path);
    let same: Vec<&Mounted> = mounts.iter().filter(of_path).collect();
    let tag = same.first().and_then(|mount| mount.tag.as_deref());
    let Some(tag) = tag else {
        return Err(Error::new(format!("{path:?}: the pod was not started with it"))
            .hint("a directory is shared from the start: say -v of it when the pod is run"));
    };
    let fixed = same.iter().all(|mount| mount.read_only);
    if fixed && !read_only {
        return Err(Error::new(format!("{path:?}: the pod shares it for reading"))
            .hint("add :ro, or share it for writing when the pod is run"));
    }
    let by_daemon = same.iter().any(|mount| mount.driver == ShareKind::VirtioFs.name());
    Ok(match by_daemon {
        true => (Storage::virtio_fs(tag, fixed), ShareKind::VirtioFs.name()),
        false => (Storage::share(tag, fixed), ShareKind::NineP.name()),
    })
}

fn disk_name(id: &ContainerId, index: usize) -> String {
    format!("{}-{index}", id.as_str())
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Mount {
    let mode = if read_only { "ro" } else { "rw" };
    let mut mount = Mount::default();
    mount
        .set_destination(target.to_owned())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(vec!["rbind".to_owned(), mode.to_owned()]));
    mount
}

fn tmpfs(target: &Path, options: &[String], read_only: bool) -> Mount {
    let said = options.iter().cloned().chain(read_only.then(|| "ro".to_owned()));
    let mut mount = Mount::default();
    mount
        .set_destination(target.to_owned())
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(TMPFS_OPTIONS.map(str::to_owned).into_iter().chain(said).collect()));
    mount
}

/// What is on a disk, by the mark of its superblock.
fn file_system(path: &Path) -> Result<&'static str> {
    const MARKS: [(usize, &[u8], &str); 3] = [
        (0x438, &[0x53, 0xef], "ext4"),
        (0, b"XFSB", "xfs"),
        (0x400, &[0xe2, 0xe1, 0xf5, 0xe0], "erofs"),
    ];
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
    read.context(|| format!("read {path:?}"))?;
    let is_there = |(at, mark, _): &&(usize, &[u8], &str)| {
        start.get(*at..).is_some_and(|rest| rest.starts_with(mark))
    };
    match MARKS.iter().find(is_there) {
        Some((_, _, name)) => Ok(name),
        None => Err(Error::new(format!("{path:?}: no ext4, XFS or EROFS is on it"))
            .hint(format!("make one: mkfs.ext4 {}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_known_by_its_superblock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        for (at, mark, name) in [
            (0x438, &b"\x53\xef"[..], "ext4"),
            (0, b"XFSB", "xfs"),
            (0x400, b"\xe2\xe1\xf5\xe0", "erofs"),
        ] {
            let mut bytes = vec![0; 8192];
            bytes[at..at + mark.len()].copy_from_slice(mark);
            fs::write(&path, bytes).unwrap();
            assert_eq!(file_system(&path).unwrap(), name);
        }
        fs::write(&path, [0; 100]).unwrap();
        let err = file_system(&path).unwrap_err().to_string();
        assert!(err.contains("no ext4, XFS or EROFS"), "{err}");
    }

    #[test]
    fn a_disk_becomes_a_storage_and_a_mount_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::write(&path, [&b"XFSB"[..], &[0; 4096]].concat()).unwrap();
        let flag = MountFlag {
            source: Source::Block(path.clone()),
            target: "/data".into(),
            read_only: true,
        };
        let mut binds = Binds::default();
        let shares = Shares::New { binds: &mut binds, kind: ShareKind::NineP };
        let mounts = Mounts::find([&flag].into_iter(), shares).unwrap();
        assert!(binds.storages().is_empty() && mounts.disks().count() == 1);
        let id = ContainerId::new("c").unwrap();
        let attached = Attached { driver: "blk".into(), source: "05".into(), name: "c".into() };
        let storages = mounts.storages(&id, &[attached]);
        assert_eq!(
            (storages[0].fstype.as_str(), storages[0].options.as_slice()),
            ("xfs", ["ro".to_owned()].as_slice())
        );
        let mut spec = Spec::default();
        mounts.edit_spec(&id, &mut spec);
        let mount =
            spec.mounts().iter().flatten().find(|mount| mount.destination() == Path::new("/data"));
        assert_eq!(mount.unwrap().source().as_deref(), Some(Path::new(&storages[0].mount_point)));
    }

    #[test]
    fn a_directory_becomes_a_share() {
        let dir = tempfile::tempdir().unwrap();
        let flag = |read_only| MountFlag {
            source: Source::Bind(dir.path().into()),
            target: "/data".into(),
            read_only,
        };
        let mut binds = Binds::default();
        let flags = [flag(true), flag(false)];
        let shares = Shares::New { binds: &mut binds, kind: ShareKind::VirtioFs };
        let mounts = Mounts::find(flags.iter(), shares).unwrap();
        let shares = binds.shares(dir.path()).unwrap();
        assert!(shares.len() == 1 && !shares[0].read_only && shares[0].kind == ShareKind::VirtioFs);
        assert_eq!(binds.storages()[0].driver, "virtio-fs");
        assert_eq!(mounts.record[0].driver, "virtio-fs");
        let again = Mounts::find(flags.iter(), Shares::OfPod(&mounts.record)).unwrap();
        assert_eq!(again.shares[0], binds.storages()[0]);
        let fixed = Shares::OfPod(&mounts.record[..1]);
        let err = Mounts::find(flags[1..].iter(), fixed).unwrap_err().to_string();
        assert!(err.contains("shares it for reading"), "{err}");
        let err = Mounts::find(flags.iter(), Shares::OfPod(&[])).unwrap_err().to_string();
        assert!(err.contains("not started with it"), "{err}");
    }
}
