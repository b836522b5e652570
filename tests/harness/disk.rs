//! Disks with a filesystem, made on the host and given to a guest to write to.

use std::path::{Path, PathBuf};
use std::process::Command;

use hyperstart::Storage;
use hyperstart_vmm::Disk;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guest;
use crate::vm::Vm;

/// Where [`DiskFile::storage`] is in the guest, and where [`mount`] shows it in a container.
pub const GUEST_PATH: &str = "/run/kata-containers/sandbox/disk";
const CONTAINER_PATH: &str = "/disk";

/// What is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    Ext4,
    Xfs,
    Swap,
}

/// A sparse file, removed when it is dropped.
pub struct DiskFile {
    path: PathBuf,
    filesystem: Filesystem,
    _directory: TempDir,
}

/// Makes a disk of so many bytes with a filesystem on it.
pub fn disk(filesystem: Filesystem, bytes: u64) -> DiskFile {
    let directory = tempfile::Builder::new().prefix("disk").tempdir_in(guest::scratch());
    let directory = directory.expect("make a directory for a disk");
    let path = directory.path().join("disk.img");
    let file = std::fs::File::create(&path).expect("make a disk's file");
    file.set_len(bytes).expect("give a disk its size");
    let (program, words): (&str, &[&str]) = match filesystem {
        Filesystem::Ext4 => ("mke2fs", &["-q", "-F", "-t", "ext4"]),
        Filesystem::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        Filesystem::Swap => ("mkswap", &["--quiet"]),
    };
    make(program, words, &path);
    DiskFile { path, filesystem, _directory: directory }
}

/// The tools of root are in sbin, which is not in everybody's PATH.
fn make(program: &str, words: &[&str], path: &Path) {
    let search = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
    let made = Command::new(program).args(words).arg(path).env("PATH", search).output();
    let made = made.unwrap_or_else(|err| panic!("{program}: {err}: run `make setup`"));
    assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
}

impl DiskFile {
    /// For a machine's list of disks, or to be plugged in.
    pub fn attached(&self) -> Disk {
        Disk { path: self.path.clone(), read_only: false }
    }

    /// The machine's disk of that index, mounted at [`GUEST_PATH`].
    pub fn storage(&self, vm: &Vm, index: usize) -> Storage {
        let device = vm.machine().disk_device(index).expect("the disk is attached");
        let fstype = match self.filesystem {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
            Filesystem::Swap => "swap",
        };
        Storage {
            driver: device.driver.to_owned(),
            source: device.source.clone(),
            fstype: fstype.to_owned(),
            mount_point: GUEST_PATH.to_owned(),
            ..Storage::default()
        }
    }
}

/// The OCI mount of it, at `/disk`.
pub fn mount() -> Value {
    json!({
        "destination": CONTAINER_PATH, "type": "bind", "source": GUEST_PATH, "options": ["rbind"],
    })
}
