//! Disks that come and go while the VM runs: which slot each is in, and how QEMU is told.
//!
//! ```text
//! free ──attach: blockdev-add, device_add──► used ──detach: device_del … DEVICE_DELETED, blockdev-del──► free
//! ```
//! A slot stays used until the guest has let its disk go. Every plugging has ids of its own, so that no late event is
//! taken for another's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::machine::Disk;
use crate::plan::disk_facts;
use crate::qemu::{DiskDevice, Slot};
use crate::qmp::Qmp;

/// How the id of a plugging begins; the slot's number follows.
const ID: &str = "plug";

impl Slot {
    fn device(&self) -> DiskDevice {
        DiskDevice { driver: "blk", source: self.pci_path.clone(), path: String::new() }
    }
}

/// The slots of a VM.
#[derive(Debug)]
pub(crate) struct Plugs {
    slots: Vec<Slot>,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    used: Vec<bool>,
    pluggings: u64,
}

/// A disk that was added while the VM ran.
#[derive(Debug)]
pub struct Plugged {
    index: usize,
    id: String,
    device: DiskDevice,
}

impl Plugged {
    /// One that an earlier owner has added; `None` if the id is none of ours.
    fn known(id: &str, slots: &[Slot]) -> Option<Self> {
        let (index, _) = id.strip_prefix(ID)?.split_once('-')?;
        let index: usize = index.parse().ok()?;
        let device = slots.get(index)?.device();
        Some(Self { index, id: id.to_owned(), device })
    }

    /// Where it is in the guest: a storage's driver and source. It has no path that is known.
    pub fn device(&self) -> &DiskDevice {
        &self.device
    }

    fn node(&self) -> String {
        format!("{}-file", self.id)
    }
}

impl Plugs {
    pub(crate) fn new(slots: Vec<Slot>) -> Self {
        let used = vec![false; slots.len()];
        Self { slots, table: Mutex::new(Table { used, pluggings: 0 }) }
    }

    /// Those of a VM that another owner has had, and what is in them. Later ids are not those of that owner's either: the
    /// clock says how many there may have been.
    pub(crate) async fn adopt(qmp: &Qmp, slots: Vec<Slot>) -> Result<(Self, Vec<Plugged>)> {
        let devices = qmp.execute("qom-list", json!({"path": "/machine/peripheral"})).await?;
        let plugs = Self::new(slots);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        plugs.table().pluggings = since_1970.as_secs();
        let mut found = Vec::new();
        for device in devices.as_array().into_iter().flatten() {
            let id = device.get("name").and_then(Value::as_str).unwrap_or_default();
            let Some(plugged) = Plugged::known(id, &plugs.slots) else { continue };
            if let Some(used) = plugs.table().used.get_mut(plugged.index) {
                *used = true;
            }
            found.push(plugged);
        }
        Ok((plugs, found))
    }

    pub(crate) async fn attach(&self, qmp: &Qmp, disk: &Disk) -> Result<Plugged> {
        let facts = disk_facts(disk)?;
        let (slot, plugged) = self.take()?;
        let driver = if facts.block_device { "host_device" } else { "file" };
        let file = json!({"driver": driver, "filename": disk.path, "read-only": disk.read_only});
        let node = json!({
            "driver": "raw", "node-name": plugged.node(), "read-only": disk.read_only, "file": file,
        });
        let device = json!({
            "driver": "virtio-blk-pci", "id": plugged.id, "drive": plugged.node(), "bus": slot.bus,
            "addr": format!("{:#x}", slot.address),
        });
        let added = async {
            qmp.execute("blockdev-add", node).await?;
            let added = qmp.execute("device_add", device).await;
            if added.is_err() {
                self.close(qmp, &plugged).await?;
            }
            added
        };
        match added.await {
            Ok(_) => Ok(plugged),
            Err(err) => {
                self.free(plugged.index);
                Err(err)
            }
        }
    }

    pub(crate) async fn detach(&self, qmp: &Qmp, plugged: Plugged) -> Result<()> {
        qmp.execute("device_del", json!({"id": plugged.id})).await?;
        qmp.deleted(&plugged.id).await?;
        self.close(qmp, &plugged).await?;
        self.free(plugged.index);
        Ok(())
    }

    async fn close(&self, qmp: &Qmp, plugged: &Plugged) -> Result<()> {
        qmp.execute("blockdev-del", json!({"node-name": plugged.node()})).await.map(drop)
    }

    fn take(&self) -> Result<(&Slot, Plugged)> {
        let mut table = self.table();
        let Table { used, pluggings } = &mut *table;
        let free = used.iter_mut().zip(&self.slots).enumerate().find(|(_, (used, _))| !**used);
        let Some((index, (used, slot))) = free else {
            return Err(Error::NoSlot { slots: self.slots.len() });
        };
        *used = true;
        *pluggings += 1;
        let id = format!("{ID}{index}-{pluggings}");
        Ok((slot, Plugged { index, id, device: slot.device() }))
    }

    fn free(&self, index: usize) {
        if let Some(used) = self.table().used.get_mut(index) {
            *used = false;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_disk_at_a_time_and_ids_are_not_used_twice() {
        let slot = |bus: &str| Slot { bus: bus.into(), address: 0, pci_path: "04/00".into() };
        let plugs = Plugs::new(vec![slot("a"), slot("b")]);
        let (first, plugged) = plugs.take().unwrap();
        assert_eq!((first.bus.as_str(), plugged.id.as_str()), ("a", "plug0-1"));
        assert_eq!(plugged.device().source, "04/00");
        let (second, other) = plugs.take().unwrap();
        assert_eq!(second.bus, "b");
        assert_eq!(Plugged::known(&other.id, &plugs.slots).unwrap().index, 1);
        for strange in ["disk0", "plug9-1", "plugx", "plug1"] {
            assert!(Plugged::known(strange, &plugs.slots).is_none(), "{strange}");
        }
        assert!(matches!(plugs.take(), Err(Error::NoSlot { slots: 2 })));
        plugs.free(plugged.index);
        let (again, plugged) = plugs.take().unwrap();
        assert_eq!((again.bus.as_str(), plugged.id.as_str()), ("a", "plug0-3"));
    }
}
