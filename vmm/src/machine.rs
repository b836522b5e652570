//! What a VM is, said without QEMU's words.
//!
//! A [`Machine`] is plain data that the caller fills; [`Machine::check`] refuses what cannot work before anything is
//! started, so that the reason is ours and not a line of QEMU's stderr. How QEMU is told is `qemu`'s business.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::accel::Accel;
use crate::error::{Error, Result};

/// Which board the VM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// Devices on virtio-mmio, no PCI, no ACPI: the fastest boot. Boots an initrd only.
    Microvm,
    /// PCI Express; can have persistent memory.
    Q35,
    /// The older PCI board; can have persistent memory.
    Pc,
}

impl MachineKind {
    /// The name that QEMU and people use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
            Self::Pc => "pc",
        }
    }

    /// The most disks, shares and NICs together, beside two devices of our own: a microvm without ACPI has 8 virtio-mmio
    /// slots, a PCI bus 30 that are free.
    pub fn max_devices(self) -> usize {
        match self {
            Self::Microvm => 6,
            Self::Q35 | Self::Pc => 24,
        }
    }

    /// Whether devices hang on a PCI bus (else on virtio-mmio).
    pub fn has_pci(self) -> bool {
        match self {
            Self::Microvm => false,
            Self::Q35 | Self::Pc => true,
        }
    }
}

/// Where the guest's root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// A cpio archive that the kernel unpacks into memory.
    Initrd(PathBuf),
    /// An EROFS image, mapped as persistent memory and used in place (DAX): `root=/dev/pmem0`.
    Rootfs(PathBuf),
}

/// Which device shows persistent memory to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PmemKind {
    /// virtio-pmem-pci: any file whose size is a multiple of 2 MiB, with DAX.
    #[default]
    VirtioPmem,
    /// An ACPI NVDIMM, for the root alone: DAX only if the guest's kernel gives plain regions a page map.
    Nvdimm,
}

/// How bytes reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// The kernel's vhost-vsock: needs `/dev/vhost-vsock`.
    VhostVsock,
    /// virtio-vsock from user space: needs the `vhost-device-vsock` daemon.
    VhostUserVsock,
    /// One virtio-serial port, shared by all clients: needs nothing.
    Serial,
}

impl TransportKind {
    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::VhostVsock => "vhost-vsock",
            Self::VhostUserVsock => "vhost-user-vsock",
            Self::Serial => "serial",
        }
    }
}

/// A file or block device that the guest sees as a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A raw image, or a block device of the host.
    pub path: PathBuf,
    /// Whether the guest may only read it. Only read-only images are mapped as persistent memory.
    pub read_only: bool,
}

/// Who serves a directory to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShareKind {
    /// QEMU itself, by 9p.
    #[default]
    NineP,
    /// The daemon virtiofsd, by virtio-fs: see [`virtiofs::usable`](crate::virtiofs::usable). The host's page cache
    /// is closer, and QEMU does not open the files.
    VirtioFs,
}

impl ShareKind {
    /// The name of the file system, as people know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NineP => "9p",
            Self::VirtioFs => "virtio-fs",
        }
    }
}

/// A directory of the host that the guest can mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who serves it.
    pub kind: ShareKind,
    /// The directory.
    pub path: PathBuf,
    /// The name that the guest mounts: at most 31 bytes.
    pub tag: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// What is at the other end of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// QEMU's own network (10.0.2.0/24, fec0::/64), which needs no privileges.
    User {
        /// Whether nothing beyond it is reached: neither the host nor what the host reaches.
        restricted: bool,
    },
}

/// A virtio-net device, which the guest's agent knows by its hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// What is at its other end.
    pub network: Network,
    /// Its hardware address: `02:00:00:00:00:01`.
    pub mac: String,
    /// The largest packet that it takes, in bytes, as the guest is told; `None`: 1500, and the guest may ask for more.
    pub mtu: Option<u16>,
}

/// What a VM is. Made by [`Machine::new`], then adjusted field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The board.
    pub kind: MachineKind,
    /// What runs guest code; `None`: the best that works here (see `accel`), or `HYPERSTART_ACCEL`.
    pub accel: Option<Accel>,
    /// QEMU's binary; `None`: `HYPERSTART_QEMU`, or `qemu-system-x86_64` in `PATH`.
    pub qemu: Option<PathBuf>,
    /// The guest's kernel: a PVH `vmlinux` or a `bzImage`.
    pub kernel: PathBuf,
    /// The guest's root.
    pub boot: Boot,
    /// Guest memory, in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// How bytes reach the agent; `None`: the best available, in the order of [`TransportKind`].
    pub transport: Option<TransportKind>,
    /// How persistent memory is shown to the guest, on a board that can have it.
    pub pmem: PmemKind,
    /// Disks, besides the root. Find them in the guest by `Vm::disk_device`.
    pub disks: Vec<Disk>,
    /// Places for disks that come while the VM runs ([`Vm::attach`](crate::Vm::attach)); they cost each boot.
    pub slots: u32,
    /// Directories shared with the guest.
    pub shares: Vec<Share>,
    /// NICs; without one the guest has no network but its own.
    pub nics: Vec<Nic>,
    /// More words for the kernel's command line; they come last and so win.
    pub cmdline: Vec<String>,
    /// One instruction is one nanosecond of guest time: repeatable counts for benches. TCG only, slow.
    pub icount: bool,
    /// A TCG plugin, as QEMU's `-plugin` takes it. TCG only.
    pub plugin: Option<String>,
    /// The VM lives on when its owner is killed, for an heir that takes it over ([`Vm::adopt`](crate::Vm::adopt)); else
    /// it dies with its owner. Dropping the [`Vm`](crate::Vm) ends it in any case.
    pub outlives_owner: bool,
    /// More arguments for QEMU, unchecked: for tests and benches.
    pub qemu_args: Vec<OsString>,
}

/// The longest kernel command line that x86 takes (COMMAND_LINE_SIZE), less its end and what QEMU adds for virtio-mmio.
const MAX_CMDLINE_BYTES: usize = 2048 - 1 - 512;
/// As much RAM as lies below the PCI hole on each board, in MiB.
const MAX_LOW_MEMORY_MIB: u32 = 2048;
/// As virtio-net has it (virtio 1.3, 5.1.4.1), and IPv4 (RFC 791).
const MIN_MTU: u16 = 68;
/// The longest 9p tag (QEMU's MAX_TAG_LEN - 1).
const MAX_TAG_BYTES: usize = 31;

impl Machine {
    /// A machine of 1 CPU and 64 MiB: a microvm for an initrd, a q35 for a rootfs image.
    pub fn new(kernel: impl Into<PathBuf>, boot: Boot) -> Self {
        let kind = match boot {
            Boot::Initrd(_) => MachineKind::Microvm,
            Boot::Rootfs(_) => MachineKind::Q35,
        };
        Self {
            kind,
            accel: None,
            qemu: None,
            kernel: kernel.into(),
            boot,
            memory_mib: 64,
            cpus: 1,
            transport: None,
            pmem: PmemKind::default(),
            disks: Vec::new(),
            slots: 0,
            shares: Vec::new(),
            nics: Vec::new(),
            cmdline: Vec::new(),
            icount: false,
            plugin: None,
            outlives_owner: false,
            qemu_args: Vec::new(),
        }
    }

    /// How many more disks, shares and NICs it can have.
    pub fn room(&self) -> usize {
        let slots = usize::try_from(self.slots).unwrap_or(usize::MAX);
        self.kind.max_devices().saturating_sub(self.devices().saturating_add(slots))
    }

    fn devices(&self) -> usize {
        self.disks.len() + self.shares.len() + self.nics.len()
    }

    /// Whether a daemon serves a directory, which needs the guest's memory.
    pub(crate) fn has_virtiofs(&self) -> bool {
        self.shares.iter().any(|share| share.kind == ShareKind::VirtioFs)
    }

    /// Whether the board has ACPI. It is left out where nothing needs it, because it costs the guest's kernel 14 M
    /// instructions on q35 and 140 ms on pc. An NVDIMM is found by it alone; and only ACPI says where persistent memory
    /// lies when there is RAM on both sides of the PCI hole (`qemu` reserves the place otherwise). It is also what
    /// tells of a disk that comes.
    pub fn has_acpi(&self) -> bool {
        match (self.kind, &self.boot) {
            (MachineKind::Microvm, _) => false,
            (MachineKind::Q35 | MachineKind::Pc, _) if self.slots > 0 => true,
            (MachineKind::Q35 | MachineKind::Pc, Boot::Initrd(_)) => false,
            (MachineKind::Q35 | MachineKind::Pc, Boot::Rootfs(_)) => {
                self.pmem == PmemKind::Nvdimm || self.memory_mib > MAX_LOW_MEMORY_MIB
            }
        }
    }

    /// Refuses what cannot work, from the description alone.
    ///
    /// # Errors
    /// [`Error::Machine`], with the field and the reason.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Machine { kind: self.kind, reason });
        if matches!(self.boot, Boot::Rootfs(_)) && !self.kind.has_pci() {
            return refuse(
                "it has no persistent memory to boot a rootfs from: use q35 or pc".into(),
            );
        }
        if self.memory_mib == 0 {
            return refuse("memory of 0 MiB".into());
        }
        if self.cpus == 0 || self.cpus > 64 {
            return refuse(format!("{} CPUs: 1 to 64 are possible", self.cpus));
        }
        if self.accel == Some(Accel::Kvm) && (self.icount || self.plugin.is_some()) {
            return refuse("icount and plugins need the accelerator tcg".into());
        }
        if self.icount && self.cpus != 1 {
            return refuse(format!("{} CPUs: icount needs 1", self.cpus));
        }
        if self.slots > 0 && !self.kind.has_pci() {
            return refuse("it has no slots for disks that come later: use q35 or pc".into());
        }
        let devices = self.devices();
        let most = self.kind.max_devices();
        let slots = usize::try_from(self.slots).unwrap_or(usize::MAX);
        if devices.saturating_add(slots) > most {
            return refuse(match slots {
                0 => format!("{devices} disks, shares and NICs: it has room for {most}"),
                _ => format!(
                    "{devices} disks, shares and NICs, {slots} slots: it has room for {most}"
                ),
            });
        }
        if self.cmdline.iter().map(|word| word.len() + 1).sum::<usize>() > MAX_CMDLINE_BYTES {
            return refuse(format!("kernel command line longer than {MAX_CMDLINE_BYTES} bytes"));
        }
        self.check_tags().and_then(|()| self.check_nics()).or_else(refuse)
    }

    fn check_nics(&self) -> std::result::Result<(), String> {
        for (index, nic) in self.nics.iter().enumerate() {
            let Nic { network: _, mac, mtu } = nic;
            if !is_station(mac) {
                return Err(format!(
                    "hardware address {mac:?}: \"02:00:00:00:00:01\" would be one"
                ));
            }
            let same = |earlier: &Nic| earlier.mac.eq_ignore_ascii_case(mac);
            if self.nics.iter().take(index).any(same) {
                return Err(format!("hardware address {mac:?}: used twice"));
            }
            if mtu.is_some_and(|mtu| mtu < MIN_MTU) {
                return Err(format!("MTU of NIC {mac}: less than {MIN_MTU}"));
            }
        }
        Ok(())
    }

    fn check_tags(&self) -> std::result::Result<(), String> {
        for (index, Share { tag, .. }) in self.shares.iter().enumerate() {
            if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
                return Err(format!("share tag {tag:?}: 1 to {MAX_TAG_BYTES} bytes are possible"));
            }
            if self.shares.iter().take(index).any(|earlier| earlier.tag == *tag) {
                return Err(format!("share tag {tag:?}: used twice"));
            }
        }
        Ok(())
    }
}

/// Whether this is the hardware address of one machine: six pairs of digits, not a group's, not nobody's.
fn is_station(mac: &str) -> bool {
    let parts: Vec<_> = mac.split(':').collect();
    let digits = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let group = mac.as_bytes().get(1).is_some_and(|byte| b"13579bdfBDF".contains(byte));
    parts.len() == 6 && parts.iter().all(digits) && !group && mac != "00:00:00:00:00:00"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn microvm() -> Machine {
        Machine::new("/k", Boot::Initrd("/i".into()))
    }

    fn reason(machine: &Machine) -> String {
        machine.check().unwrap_err().to_string()
    }

    #[test]
    fn the_boot_mode_chooses_the_board() {
        assert_eq!(microvm().kind, MachineKind::Microvm);
        assert_eq!(Machine::new("/k", Boot::Rootfs("/r".into())).kind, MachineKind::Q35);
        microvm().check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let mut rootfs = Machine::new("/k", Boot::Rootfs("/r".into()));
        rootfs.kind = MachineKind::Microvm;
        assert!(reason(&rootfs).contains("use q35 or pc"));

        assert!(reason(&Machine { memory_mib: 0, ..microvm() }).contains("0 MiB"));
        assert!(reason(&Machine { cpus: 65, ..microvm() }).contains("65 CPUs"));
        assert!(reason(&Machine { cpus: 2, icount: true, ..microvm() }).contains("icount"));
        let kvm = Machine { accel: Some(Accel::Kvm), icount: true, ..microvm() };
        assert!(reason(&kvm).contains("tcg"));
        let disks = vec![Disk { path: "/d".into(), read_only: true }; 7];
        assert!(reason(&Machine { disks, ..microvm() }).contains("room for 6"));
        assert!(reason(&Machine { slots: 1, ..microvm() }).contains("q35 or pc"));
        let slots = Machine { kind: MachineKind::Q35, slots: 25, ..microvm() };
        assert!(reason(&slots).contains("room for 24"));
        let long = Machine { cmdline: vec!["x".repeat(3000)], ..microvm() };
        assert!(reason(&long).contains("command line"));
    }

    #[test]
    fn tags_are_short_and_unique() {
        let share = |tag: &str| Share {
            kind: ShareKind::NineP,
            path: "/d".into(),
            tag: tag.into(),
            read_only: false,
        };
        let twice = Machine { shares: vec![share("a"), share("a")], ..microvm() };
        assert!(reason(&twice).contains("used twice"));
        let long = Machine { shares: vec![share(&"x".repeat(32))], ..microvm() };
        assert!(reason(&long).contains("1 to 31 bytes"));
    }
    #[test]
    fn nics_are_one_station_each() {
        let nic = |mac: &str| Nic {
            network: Network::User { restricted: true },
            mac: mac.into(),
            mtu: None,
        };
        let with = |nics: Vec<Nic>| Machine { nics, ..microvm() };
        with(vec![nic("02:00:00:00:00:01"), nic("02:00:00:00:00:02")]).check().unwrap();
        for bad in ["", "02:00", "02:00:00:00:00:0g", "01:00:00:00:00:01", "00:00:00:00:00:00"] {
            assert!(reason(&with(vec![nic(bad)])).contains("hardware address"), "{bad}");
        }
        let twice = vec![nic("02:00:00:00:00:0a"), nic("02:00:00:00:00:0A")];
        assert!(reason(&with(twice)).contains("used twice"));
        let low = Nic { mtu: Some(67), ..nic("02:00:00:00:00:01") };
        assert!(reason(&with(vec![low])).contains("MTU"));
        let many = vec![nic("02:00:00:00:00:01"); 7];
        assert!(reason(&with(many)).contains("room for 6"));
    }
}
