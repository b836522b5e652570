//! Where things are in the guest: PCI slots, names of disks, and which of them are mapped as persistent memory.

use crate::machine::{Boot, Disk, Machine, MachineKind, PmemKind};

use super::wiring::{DiskFacts, Wiring};

/// Where a disk is in the guest, in the words of a Kata storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDevice {
    /// The storage driver: `mmioblk`, `blk` or `virtio-pmem`.
    pub driver: &'static str,
    /// The storage's source: a PCI path for `blk` (`"05"`), else the same as `path`.
    pub source: String,
    /// The device node in the guest, such as `/dev/vda` or `/dev/pmem1`.
    pub path: String,
}

impl DiskDevice {
    /// Whether a filesystem on it can be used in place (`dax=always`).
    pub fn is_pmem(&self) -> bool {
        self.path.starts_with("/dev/pmem")
    }
}

/// A place for a disk that comes while the VM runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where QEMU is told to put it.
    pub bus: String,
    /// The PCI slot on that bus.
    pub address: u32,
    /// The PCI path by which the guest finds it.
    pub pci_path: String,
}

/// What persistent memory must be a multiple of.
pub const PMEM_ALIGN: u64 = 2 << 20;
/// The first PCI slot that is ours: 0 is the host bridge, 1 the older board's ISA bridge.
pub(super) const FIRST_SLOT: u32 = 2;
const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
/// What the guest's kernel keeps for each page of persistent memory (`struct page`).
const PAGE_MAP_ENTRY: u64 = 64;
/// The part of guest memory that may be spent so on disks: an eighth, 512 MiB of disks for 64 MiB of memory.
const PAGE_MAP_SHARE: u64 = 8;

/// Where each of the machine's disks is in the guest, in their order.
pub fn disk_devices(machine: &Machine, wiring: &Wiring) -> Vec<DiskDevice> {
    let mut slot = FIRST_SLOT + root_slots(machine);
    let mut next_pmem = u32::from(matches!(machine.boot, Boot::Rootfs(_)));
    let mut letters = 'a'..='z';
    let device = |pmem: bool| {
        let path = if pmem {
            format!("/dev/pmem{next_pmem}")
        } else {
            format!("/dev/vd{}", letters.next().unwrap_or('?')) // Machine::check allows fewer than 26
        };
        let (driver, source) = match (machine.kind, pmem) {
            (MachineKind::Microvm, _) => ("mmioblk", path.clone()),
            (MachineKind::Q35 | MachineKind::Pc, true) => ("virtio-pmem", path.clone()),
            (MachineKind::Q35 | MachineKind::Pc, false) => ("blk", format!("{slot:02x}")),
        };
        next_pmem += u32::from(pmem);
        slot += 1;
        DiskDevice { driver, source, path }
    };
    mapped(machine, wiring).into_iter().map(device).collect()
}

/// The machine's slots, which come after all that it has from the start.
pub fn slots(machine: &Machine, wiring: &Wiring) -> Vec<Slot> {
    let count = |list: usize| u32::try_from(list).unwrap_or(u32::MAX); // Machine::check allows 24
    let devices = [machine.disks.len(), machine.shares.len(), machine.nics.len()];
    let devices = devices.map(count).iter().sum::<u32>();
    let channel_and_rng = 1 + u32::from(wiring.needs_rng);
    let first = FIRST_SLOT + root_slots(machine) + devices + channel_and_rng;
    let slot = |index: u32| match machine.kind {
        MachineKind::Q35 => Slot {
            bus: format!("slot{index}"),
            address: 0,
            pci_path: format!("{:02x}/00", first + index),
        },
        MachineKind::Pc | MachineKind::Microvm => Slot {
            bus: "pci.0".to_owned(),
            address: first + index,
            pci_path: format!("{:02x}", first + index),
        },
    };
    (0..machine.slots).map(slot).collect()
}

/// Which of the machine's disks are mapped rather than read. The guest's kernel keeps 64 bytes in guest memory for each
/// page of what is mapped: disks for which that would be too much are read.
pub(super) fn mapped(machine: &Machine, wiring: &Wiring) -> Vec<bool> {
    let mut left = (u64::from(machine.memory_mib) << 20) / PAGE_MAP_SHARE;
    let is_mapped = |(disk, facts): (&Disk, &DiskFacts)| {
        let page_map = facts.bytes / PAGE * PAGE_MAP_ENTRY;
        let mapped = can_be_pmem(machine, disk, facts) && page_map <= left;
        left -= if mapped { page_map } else { 0 };
        mapped
    };
    machine.disks.iter().zip(&wiring.disks).map(is_mapped).collect()
}

/// A read-only image can be mapped, in the boot mode that is about that, if its size allows it. Never beside an NVDIMM:
/// QEMU lists several of those to the guest in no order that can be known.
fn can_be_pmem(machine: &Machine, disk: &Disk, facts: &DiskFacts) -> bool {
    matches!(machine.boot, Boot::Rootfs(_))
        && machine.pmem == PmemKind::VirtioPmem
        && machine.kind.has_pci()
        && disk.read_only
        && !facts.block_device
        && facts.bytes > 0
        && facts.bytes.is_multiple_of(PMEM_ALIGN)
}

/// How many PCI slots the root takes: they come before those of the disks.
pub(super) fn root_slots(machine: &Machine) -> u32 {
    u32::from(matches!(machine.boot, Boot::Rootfs(_)) && machine.pmem == PmemKind::VirtioPmem)
}

/// How much address space persistent memory takes, from 4 GiB on; `None` if there is none. Each device is aligned by
/// QEMU as it sees fit: up to a GiB each.
pub(super) fn pmem_space_gib(machine: &Machine, wiring: &Wiring) -> Option<u64> {
    let Boot::Rootfs(_) = machine.boot else { return None };
    let mapped = wiring.disks.iter().zip(mapped(machine, wiring)).filter(|(_, mapped)| *mapped);
    let sizes = mapped.map(|(facts, _)| facts.bytes).chain([wiring.rootfs_bytes]);
    Some(sizes.map(|bytes| bytes.div_ceil(GIB)).sum::<u64>() + 1)
}
