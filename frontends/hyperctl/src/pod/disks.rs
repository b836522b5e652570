//! The images on a running pod's disks: which file is where in the guest, and how many containers use it.
//!
//! Images that were attached when the VM started stay. Another is plugged in for its first container and let go after
//! its last; two containers of one image share the disk, and the guest's mount of it.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyperstart_vmm::{Disk, Error as VmError, Plugged, Vm};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::{Context as _, Error, Result};

/// For the guest to let a disk go.
const LET_GO: Duration = Duration::from_secs(10);

/// Where the guest finds an image, and the name by which it is mounted there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Attached {
    pub driver: String,
    pub source: String,
    pub name: String,
}

pub struct Disks {
    entries: RefCell<Vec<Entry>>,
    /// Held while a disk comes or goes: two who want the same image do not bring it twice, and who needs the slot of one
    /// that is going waits for it.
    plugging: Mutex<()>,
    pod: String,
}

struct Entry {
    file: FileId,
    attached: Attached,
    /// `None`: it was there when the VM started.
    plugged: Option<Plugged>,
    users: usize,
}

/// The file itself: a new one of the same name is another image.
type FileId = (u64, u64);

impl Disks {
    /// `fixed`: the images that the VM was started with, in the order of its disks.
    pub fn of<'a>(vm: &Vm, pod: &str, fixed: impl Iterator<Item = &'a PathBuf>) -> Result<Disks> {
        let mut entries = Vec::new();
        for (index, path) in fixed.enumerate() {
            let Some(device) = vm.disk_device(index) else {
                return Err(Error::new(format!(
                    "attach image {path:?}: the VM has no disk for it"
                )));
            };
            let attached = Attached {
                driver: device.driver.into(),
                source: device.source.clone(),
                name: format!("{pod}-{index}"),
            };
            entries.push(Entry { file: file_id(path)?, attached, plugged: None, users: 0 });
        }
        Ok(Disks { entries: RefCell::new(entries), plugging: Mutex::new(()), pod: pod.into() })
    }

    /// The image's place for one more container; it is plugged in if it is not there. Given back by [`Disks::release`].
    pub async fn acquire(&self, vm: &Vm, path: &Path) -> Result<Attached> {
        let file = file_id(path)?;
        let _plugging = self.plugging.lock().await;
        if let Some(entry) = self.entries.borrow_mut().iter_mut().find(|entry| entry.file == file) {
            entry.users += 1;
            return Ok(entry.attached.clone());
        }
        let disk = Disk { path: path.to_owned(), read_only: true };
        let plugged = vm.attach(&disk).await.map_err(|err| explain(&err, path))?;
        let device = plugged.device();
        let attached = Attached {
            driver: device.driver.into(),
            source: device.source.clone(),
            name: format!("{}-{}", self.pod, device.source.replace('/', ".")),
        };
        let entry = Entry { file, attached: attached.clone(), plugged: Some(plugged), users: 1 };
        self.entries.borrow_mut().push(entry);
        Ok(attached)
    }

    /// One container less uses it. The last one's is let go, which is over when the guest has done so.
    pub async fn release(&self, vm: &Vm, attached: &Attached) {
        let _plugging = self.plugging.lock().await;
        let Some(plugged) = self.give_back(attached) else { return };
        match timeout(LET_GO, vm.detach(plugged)).await {
            Ok(Ok(())) => {}
            // The VM is ending, or the slot stays used: the next plugging says so.
            Ok(Err(err)) => log::warn!("detach image: {err}"),
            Err(_) => log::warn!("detach image: the guest does not let it go"),
        }
    }

    fn give_back(&self, attached: &Attached) -> Option<Plugged> {
        let mut entries = self.entries.borrow_mut();
        let index = entries.iter().position(|entry| entry.attached == *attached)?;
        let entry = entries.get_mut(index)?;
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 || entry.plugged.is_none() {
            return None;
        }
        entries.remove(index).plugged
    }
}

fn file_id(path: &Path) -> Result<FileId> {
    let meta = fs::metadata(path).context(|| format!("find image {path:?}"))?;
    Ok((meta.dev(), meta.ino()))
}

/// The way out depends on nothing but what the pod was started with.
fn explain(err: &VmError, path: &Path) -> Error {
    let error = Error::new(format!("attach image {path:?}: {err}"));
    match err {
        VmError::NoSlot { .. } => error.hint(
            "start the pod with `--machine q35 --slots N`, which takes images later, \
             or with `--attach-image IMAGE`, which has this one from the start",
        ),
        _ => error, // hyperstart_vmm::Error is non-exhaustive
    }
}
