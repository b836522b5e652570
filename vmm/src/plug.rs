//! Disks that come and go while the VM runs: which slot each is in, and how QEMU is told.
//!
//! ```text
//! free ──attach: blockdev-add, device_add──► used ──detach: device_del … DEVICE_DELETED, blockdev-del──► free
//! ```
//! A slot stays used until the guest has let its disk go. Every plugging has ids of its own, so that no late event is
//! taken for another's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::error::{Error, Result};
use crate::machine::Disk;
use crate::plan::disk_facts;
use crate::qemu::{DiskDevice, Slot};
use crate::qmp::Qmp;

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
        let device =
            DiskDevice { driver: "blk", source: slot.pci_path.clone(), path: String::new() };
        Ok((slot, Plugged { index, id: format!("plug{pluggings}"), device }))
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
        assert_eq!((first.bus.as_str(), plugged.id.as_str()), ("a", "plug1"));
        assert_eq!(plugged.device().source, "04/00");
        assert_eq!(plugs.take().unwrap().0.bus, "b");
        assert!(matches!(plugs.take(), Err(Error::NoSlot { slots: 2 })));
        plugs.free(plugged.index);
        let (again, plugged) = plugs.take().unwrap();
        assert_eq!((again.bus.as_str(), plugged.id.as_str()), ("a", "plug3"));
    }
}
