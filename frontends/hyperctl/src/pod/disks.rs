//! The layers of images on a running pod's disks: which file is where in the guest, and how many containers use it.
//!
//! Those that were attached when the VM started stay. Another is plugged in for its first container and let go after
//! its last; two containers whose images have a layer in common share the disk, and the guest's mount of it. An heir
//! finds all of it in `disks.json`, and lets go what is plugged in and used by none.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyperstart::ContainerId;
use hyperstart_vmm::{Disk, DiskDevice, Error as VmError, Plugged, Vm};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::{Context as _, Error, Result};
use crate::pod::state::write_whole;

const FILE: &str = "disks.json";
/// For the guest to let a disk go.
const LET_GO: Duration = Duration::from_secs(10);

/// Where the guest finds a layer, and the name by which it is mounted there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Attached {
    pub driver: String,
    pub source: String,
    pub name: String,
}

impl Attached {
    pub fn of(device: &DiskDevice, name: &ContainerId) -> Attached {
        let (driver, source) = (device.driver.to_owned(), device.source.clone());
        Attached { driver, source, name: name.as_str().to_owned() }
    }
}

pub struct Disks {
    entries: RefCell<Vec<Entry>>,
    /// Held while a disk comes or goes: two who want the same image do not bring it twice, and who needs the slot of one
    /// that is going waits for it.
    plugging: Mutex<()>,
    pod: String,
    dir: PathBuf,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    file: FileId,
    attached: Attached,
    #[serde(default)]
    writable: bool,
    /// It was there when the VM started.
    fixed: bool,
    #[serde(skip)]
    plugged: Option<Plugged>,
    #[serde(skip)]
    users: usize,
}

/// The file itself: a new one of the same name is another image.
type FileId = (u64, u64);

impl Disks {
    /// `fixed`: the layers that the VM was started with, in the order of its disks.
    pub fn of(vm: &Vm, dir: &Path, pod: &str, fixed: &[PathBuf]) -> Result<Disks> {
        let mut entries = Vec::new();
        for (index, path) in fixed.iter().enumerate() {
            let Some(device) = vm.disk_device(index) else {
                return Err(Error::new(format!("attach {path:?}: the VM has no disk for it")));
            };
            let attached = Attached {
                driver: device.driver.into(),
                source: device.source.clone(),
                name: format!("{pod}-{index}"),
            };
            let file = file_id(path)?;
            let (fixed, writable) = (true, false);
            entries.push(Entry { file, attached, writable, fixed, plugged: None, users: 0 });
        }
        let (entries, plugging) = (RefCell::new(entries), Mutex::new(()));
        let disks = Disks { entries, plugging, pod: pod.into(), dir: dir.to_path_buf() };
        disks.save()?;
        Ok(disks)
    }

    /// Those of a host that was killed. `used` by the containers that there are.
    pub async fn adopt(
        vm: &Vm,
        dir: &Path,
        pod: &str,
        plugged: Vec<Plugged>,
        used: &[Attached],
    ) -> Result<Disks> {
        let mut entries = load(dir)?;
        for entry in &mut entries {
            entry.users = used.iter().filter(|attached| **attached == entry.attached).count();
        }
        for plugged in plugged {
            let source = &plugged.device().source;
            let is_it = |entry: &&mut Entry| entry.attached.source == *source && entry.users > 0;
            match entries.iter_mut().find(is_it) {
                Some(entry) => entry.plugged = Some(plugged),
                None => let_go(vm, plugged).await,
            }
        }
        entries.retain(|entry| entry.fixed || entry.plugged.is_some());
        let (entries, plugging) = (RefCell::new(entries), Mutex::new(()));
        let disks = Disks { entries, plugging, pod: pod.into(), dir: dir.to_path_buf() };
        disks.save()?;
        Ok(disks)
    }

    fn save(&self) -> Result<()> {
        let path = self.dir.join(FILE);
        let text = serde_json::to_vec(&*self.entries.borrow())?;
        write_whole(&path, &text).context(|| format!("write {path:?}"))
    }

    /// A layer's place for one more container; it is plugged in if it is not there. Given back by [`Disks::release`].
    pub async fn acquire(&self, vm: &Vm, path: &Path) -> Result<Attached> {
        self.acquire_disk(vm, &Disk { path: path.to_owned(), read_only: true }).await
    }

    /// The same of a disk that may be written to. One that is there for reading is not for writing too: QEMU says so.
    pub async fn acquire_disk(&self, vm: &Vm, disk: &Disk) -> Result<Attached> {
        let Disk { path, read_only } = disk;
        let file = file_id(path)?;
        let _plugging = self.plugging.lock().await;
        let is_it = |entry: &&mut Entry| entry.file == file && entry.writable != *read_only;
        if let Some(entry) = self.entries.borrow_mut().iter_mut().find(is_it) {
            entry.users += 1;
            return Ok(entry.attached.clone());
        }
        let plugged = vm.attach(disk).await.map_err(|err| explain(&err, path))?;
        let device = plugged.device();
        let attached = Attached {
            driver: device.driver.into(),
            source: device.source.clone(),
            name: format!("{}-{}", self.pod, device.source.replace('/', ".")),
        };
        let entry = Entry {
            file,
            attached: attached.clone(),
            writable: !read_only,
            fixed: false,
            plugged: Some(plugged),
            users: 1,
        };
        self.entries.borrow_mut().push(entry);
        self.save()?;
        Ok(attached)
    }

    /// One container less uses them. The last one's are let go, which is over when the guest has done so.
    pub async fn release(&self, vm: &Vm, attached: &[Attached]) {
        let _plugging = self.plugging.lock().await;
        for plugged in attached.iter().filter_map(|attached| self.give_back(attached)) {
            if let Err(err) = self.save() {
                log::warn!("{}", err.message()); // an heir finds nothing in the slot, and nobody who uses it
            }
            let_go(vm, plugged).await;
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

/// What another process sees of them.
pub struct Look {
    files: Vec<FileId>,
    /// How many came after the VM had started.
    pub plugged: usize,
}

impl Look {
    pub fn at(dir: &Path) -> Result<Look> {
        let entries = load(dir)?;
        let plugged = entries.iter().filter(|entry| !entry.fixed).count();
        Ok(Look { files: entries.into_iter().map(|entry| entry.file).collect(), plugged })
    }

    pub fn has(&self, layer: &Path) -> bool {
        file_id(layer).is_ok_and(|file| self.files.contains(&file))
    }
}

fn load(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(FILE);
    let operation = || format!("read {path:?}");
    let text = fs::read(&path).context(operation)?;
    serde_json::from_slice(&text).map_err(Error::from).context(operation)
}

async fn let_go(vm: &Vm, plugged: Plugged) {
    match timeout(LET_GO, vm.detach(plugged)).await {
        Ok(Ok(())) => {}
        // The VM is ending, or the slot stays used: the next plugging says so.
        Ok(Err(err)) => log::warn!("detach image: {err}"),
        Err(_) => log::warn!("detach image: the guest does not let it go"),
    }
}

fn file_id(path: &Path) -> Result<FileId> {
    let meta = fs::metadata(path).context(|| format!("find image {path:?}"))?;
    Ok((meta.dev(), meta.ino()))
}

/// The way out depends on nothing but what the pod was started with.
fn explain(err: &VmError, path: &Path) -> Error {
    let error = Error::new(format!("attach {path:?}: {err}"));
    match err {
        VmError::NoSlot { .. } => error.hint(
            "start the pod with `--machine q35 --slots N`, which takes images later, \
             or with `--attach-image IMAGE`, which has an image from the start",
        ),
        _ => error, // hyperstart_vmm::Error is non-exhaustive
    }
}
