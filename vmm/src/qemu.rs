//! How QEMU is told what a [`Machine`] is: a pure function from the description to an argument list.
//!
//! Nothing is started or looked at here; what had to be found out first (accelerator, sockets, sizes) comes in as
//! [`Wiring`]. The list is compatible with QEMU 7.2 to 10. Choices worth a reason:
//!
//! - QEMU is the *client* of its control and serial sockets: no polling for sockets to appear, and a QEMU that starts
//!   after its owner has died finds nobody listening and ends.
//! - A VM that outlives its owner is the server of a second control socket and of its serial one, for an heir. The
//!   first control socket still is ours, so that nothing starts for an owner that has died.
//! - The console is QEMU's stdout: its end of file says that all output was seen.
//! - Every PCI device is given its slot, so that disks have the same names in the guest whatever else there is.
//! - Slots for later disks are root ports on q35, whose bus 0 takes none, and free places of bus 0 on pc. ACPI tells the
//!   guest of both: by a root port's own hot-plug (acpi=off) a guest under QEMU 7.2 hears nothing of a new disk.
//! - A kernel that can be told the frequencies of its clocks boots a microvm without PIT and PIC, in a fifth of the
//!   time.
//! - The PCI boards use the microvm's firmware, qboot, which comes with QEMU: it does less than SeaBIOS, and as much
//!   as a direct kernel needs.
//! - A microvm's disks get their names in the order of their arguments: QEMU fills its slots from the last, and lists
//!   them to the kernel in the order in which they were filled.
//! - `-cpu max` has RDRAND, so that the kernel's first random bytes cost nothing; virtio-rng only where it has not.
//! - `panic=-1` with `-no-reboot` makes QEMU end when the kernel panics, `reboot=t` when init reboots, with no
//!   firmware.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hyperstart_protocol::SERIAL_PORT_NAME;

use crate::accel::Accel;
use crate::machine::{Boot, Disk, Machine, MachineKind, Network, Nic, PmemKind, Share, ShareKind};
use crate::root::{self, Verity};

/// What had to be found out before QEMU can be told.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// What runs guest code.
    pub accel: Accel,
    /// Whether the guest's CPU has no RDRAND, so that it needs an entropy device.
    pub needs_rng: bool,
    /// Whether QEMU confines itself by seccomp.
    pub sandbox: bool,
    /// How the guest's kernel learns the frequencies of its clocks.
    pub clocks: Clocks,
    /// The socket on which we wait for QEMU's control connection.
    pub qmp: PathBuf,
    /// The socket on which QEMU waits for an heir's control connection, if the VM outlives its owner.
    pub monitor: Option<PathBuf>,
    /// How bytes reach the agent.
    pub channel: Channel,
    /// The size of the rootfs image in bytes; 0 with an initrd.
    pub rootfs_bytes: u64,
    /// How the root's blocks are checked, if they are.
    pub verity: Option<Verity>,
    /// One for each of the machine's disks.
    pub disks: Vec<DiskFacts>,
    /// Whether we may change file owners, so that a share can keep them.
    pub privileged: bool,
    /// The directory of the sockets at which virtiofsd listens: see [`share_socket`].
    pub share_sockets: PathBuf,
}

/// Where the daemon of the share of this index listens.
pub fn share_socket(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("fs{index}.sock"))
}

/// How the guest's kernel learns the frequencies of its clocks. It measures against a PIT what it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// It measures both: any kernel can.
    Measured,
    /// It is told its timer's and measures the time stamp counter's: needs the patch that is named [`TIMER_PATCH`].
    TimerTold,
    /// It is told both, and needs no PIT.
    Told {
        /// The time stamp counter's frequency; `None` under KVM, where the guest asks KVM's own clock.
        tsc_khz: Option<u32>,
    },
}

/// The kernel patch, as the kernel's manifest names it, that makes the kernel take its timer's frequency from us.
pub const TIMER_PATCH: &str = "timer-frequencies";
/// The frequency of the time stamp counter when one instruction is one nanosecond.
pub const ICOUNT_TSC_KHZ: u32 = 1_000_000;

/// How bytes reach the agent, with what QEMU must know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The kernel's vsock, at this context id; the guest says ready to this port of ours.
    VhostVsock {
        /// The guest's context id.
        cid: u32,
        /// The host's port for READY.
        ready_port: u32,
    },
    /// A daemon's vsock, behind its vhost-user socket.
    VhostUserVsock {
        /// The daemon's socket for QEMU.
        socket: PathBuf,
        /// The host's port for READY.
        ready_port: u32,
    },
    /// A virtio-serial port, whose host side is a socket.
    Serial {
        /// The socket.
        socket: PathBuf,
        /// QEMU listens there and takes one connection after the other; else we listen, and QEMU connects once.
        listens: bool,
    },
}

impl Channel {
    /// The socket at which QEMU listens, if it does.
    pub(crate) fn listener(&self) -> Option<&PathBuf> {
        match self {
            Self::Serial { socket, listens: true } => Some(socket),
            Self::Serial { listens: false, .. }
            | Self::VhostVsock { .. }
            | Self::VhostUserVsock { .. } => None,
        }
    }
}

/// What is known of a disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Whether it is a block device of the host, not a file.
    pub block_device: bool,
    /// Its size in bytes, if it is a file.
    pub bytes: u64,
}

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
const FIRST_SLOT: u32 = 2;
/// `rtc=on`: without one, the kernel waits a second for it.
const MICROVM: &str = "microvm,rtc=on,isa-serial=on,x-option-roms=off";
const Q35: &str = "q35,smm=off,vmport=off,hpet=off,sata=off,smbus=off,usb=off,i8042=off";
const PC: &str = "pc,smm=off,vmport=off,hpet=off,usb=off,i8042=off";
const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
/// What the guest's kernel keeps for each page of persistent memory (`struct page`).
const PAGE_MAP_ENTRY: u64 = 64;
/// The part of guest memory that may be spent so on disks: an eighth, 512 MiB of disks for 64 MiB of memory.
const PAGE_MAP_SHARE: u64 = 8;
/// The bus clock of QEMU's local APIC timer, under KVM as under TCG.
const LAPIC_TIMER_KHZ: u32 = 1_000_000;
/// `noreplace-smp`: patching LOCK prefixes out costs 4 M guest instructions, and saves less under TCG.
const KERNEL_WORDS: [&str; 4] = ["console=ttyS0", "quiet", "reboot=t", "noreplace-smp"];
/// `spawn`: QEMU never starts a program for us.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// QEMU's arguments, without the program.
pub fn arguments(machine: &Machine, wiring: &Wiring) -> Vec<OsString> {
    let mut args = Args { list: Vec::new(), kind: machine.kind, next_slot: FIRST_SLOT };
    args.process(wiring);
    args.board(machine, wiring);
    args.kernel(machine, wiring);
    args.console_and_control(wiring);
    args.disks(machine, wiring);
    args.channel(&wiring.channel);
    for (index, share) in machine.shares.iter().enumerate() {
        args.share(index, share, wiring);
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        args.nic(index, nic);
    }
    if wiring.needs_rng {
        let rng = args.device("virtio-rng").text("");
        args.add("-device", rng);
    }
    args.slots(machine);
    args.bench(machine);
    args.list.extend(machine.qemu_args.iter().cloned());
    args.list
}

/// Whether QEMU ended because it was built without seccomp, or the host does not let it use it.
pub fn cannot_confine_itself(stderr: &str) -> bool {
    stderr.contains("sandbox") || stderr.contains("seccomp")
}

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

/// The kernel's command line.
pub fn kernel_command_line(machine: &Machine, wiring: &Wiring) -> String {
    let mut words: Vec<String> = KERNEL_WORDS.map(str::to_owned).into();
    if !machine.has_acpi() {
        words.push("acpi=off".to_owned()); // the kernel need not look
    }
    if matches!(machine.boot, Boot::Rootfs(_)) {
        words.extend(root::words(wiring.verity.as_ref()));
    }
    if let (Some(gib), false) = (pmem_space_gib(machine, wiring), machine.has_acpi()) {
        // Without ACPI the kernel does not know that persistent memory is there, and puts PCI BARs over it.
        words.push(format!("memmap={gib}G$4G"));
        // The firmware's table of interrupts is wrong for some of q35's slots, and virtio-pmem, alone among our devices, has
        // no MSI: a guest that powers off would wait for ever for the answer to its last flush.
        words.push("irqfixup".to_owned());
    }
    words.extend(clock_words(machine, wiring));
    match &wiring.channel {
        Channel::VhostVsock { ready_port, .. } | Channel::VhostUserVsock { ready_port, .. } => {
            words.push(format!("hyperstart.ready={ready_port}"));
        }
        Channel::Serial { .. } => {}
    }
    words.extend(machine.cmdline.iter().cloned());
    words.join(" ")
}

/// What the kernel is told of its clocks. A counter that is compared with another clock, or between CPUs, must be called
/// reliable: QEMU's threads wait for the host, and the kernel takes that for drift.
fn clock_words(machine: &Machine, wiring: &Wiring) -> Vec<String> {
    let lapic = || format!("lapic_timer_khz={LAPIC_TIMER_KHZ}");
    let mut words = match wiring.clocks {
        Clocks::Measured => vec!["no_timer_check".to_owned()],
        Clocks::TimerTold => vec!["no_timer_check".to_owned(), lapic()],
        Clocks::Told { .. } => vec![lapic()],
    };
    let tsc_khz = match wiring.clocks {
        Clocks::Told { tsc_khz } => tsc_khz,
        Clocks::Measured | Clocks::TimerTold => machine.icount.then_some(ICOUNT_TSC_KHZ),
    };
    words.extend(tsc_khz.map(|khz| format!("tsc_early_khz={khz}")));
    let only_clock = machine.kind == MachineKind::Microvm && machine.cpus == 1;
    if !only_clock || tsc_khz.is_none() {
        words.push("tsc=reliable".to_owned());
    }
    words
}

/// Which of the machine's disks are mapped rather than read. The guest's kernel keeps 64 bytes in guest memory for each
/// page of what is mapped: disks for which that would be too much are read.
fn mapped(machine: &Machine, wiring: &Wiring) -> Vec<bool> {
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
fn root_slots(machine: &Machine) -> u32 {
    u32::from(matches!(machine.boot, Boot::Rootfs(_)) && machine.pmem == PmemKind::VirtioPmem)
}

struct Args {
    list: Vec<OsString>,
    kind: MachineKind,
    next_slot: u32,
}

impl Args {
    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.list.extend([OsString::from(option), value.into()]);
    }

    fn process(&mut self, wiring: &Wiring) {
        self.list.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        self.add("-display", "none");
        if wiring.sandbox {
            self.add("-sandbox", SANDBOX);
        }
    }

    fn board(&mut self, machine: &Machine, wiring: &Wiring) {
        let shared =
            matches!(wiring.channel, Channel::VhostUserVsock { .. }) || machine.has_virtiofs();
        let board = Opt::new(match machine.kind {
            MachineKind::Microvm => match wiring.clocks {
                Clocks::Measured | Clocks::TimerTold => MICROVM.to_owned(),
                Clocks::Told { .. } => format!("{MICROVM},pit=off,pic=off"),
            },
            MachineKind::Q35 => Q35.to_owned(),
            MachineKind::Pc => PC.to_owned(),
        });
        if machine.kind.has_pci() {
            self.add("-bios", "qboot.rom");
        }
        let board = if machine.has_acpi() { board } else { board.text("acpi=off") };
        let nvdimm = machine.kind.has_pci() && machine.pmem == PmemKind::Nvdimm;
        let board = if nvdimm { board.text("nvdimm=on") } else { board };
        let board = if shared { board.text("memory-backend=memory") } else { board };
        self.add("-machine", board);
        let single = if machine.icount { ",thread=single" } else { "" };
        self.add("-accel", format!("{}{single}", wiring.accel.name()));
        self.add(
            "-cpu",
            match wiring.accel {
                Accel::Kvm => "max",
                // TCG spends an instruction on each byte of a `rep stosb`: the kernel clears pages otherwise then.
                Accel::Tcg => "max,erms=off,fsrm=off",
            },
        );
        self.add("-smp", machine.cpus.to_string());
        self.add("-m", memory(machine, wiring));
        if shared {
            // A daemon reads and writes the guest's queues: it must map the same memory.
            let backend =
                format!("memory-backend-memfd,id=memory,share=on,size={}M", machine.memory_mib);
            self.add("-object", backend);
        }
    }

    fn kernel(&mut self, machine: &Machine, wiring: &Wiring) {
        self.add("-kernel", &machine.kernel);
        if let Boot::Initrd(initrd) = &machine.boot {
            self.add("-initrd", initrd);
        }
        self.add("-append", kernel_command_line(machine, wiring));
    }

    fn console_and_control(&mut self, wiring: &Wiring) {
        self.add("-chardev", "stdio,id=console,signal=off");
        self.add("-serial", "chardev:console");
        if let Some(monitor) = &wiring.monitor {
            // Before the other: a QEMU that has connected to its owner can be reached by an heir.
            let listens = Opt::new("socket,id=heir,server=on,wait=off").path("path", monitor);
            self.add("-chardev", listens);
            self.add("-mon", "chardev=heir,mode=control");
        }
        self.add("-chardev", Opt::new("socket,id=qmp,server=off").path("path", &wiring.qmp));
        self.add("-mon", "chardev=qmp,mode=control");
    }

    fn disks(&mut self, machine: &Machine, wiring: &Wiring) {
        if let Boot::Rootfs(rootfs) = &machine.boot {
            self.pmem("root", rootfs, wiring.rootfs_bytes, machine.pmem);
        }
        let mapped = mapped(machine, wiring);
        let disks = machine.disks.iter().zip(&wiring.disks).zip(mapped);
        for (index, ((disk, facts), mapped)) in disks.enumerate() {
            let id = format!("disk{index}");
            if mapped {
                self.pmem(&id, &disk.path, facts.bytes, PmemKind::VirtioPmem);
            } else {
                self.block(&id, disk, facts);
            }
        }
    }

    /// `share=on`: the guest sees the host's page cache, not a copy of it; `readonly=on`: it cannot write there.
    fn pmem(&mut self, id: &str, path: &Path, bytes: u64, kind: PmemKind) {
        let backend =
            Opt::new(format!("memory-backend-file,id={id}-file,share=on,readonly=on,size={bytes}"));
        self.add("-object", backend.path("mem-path", path));
        let device = match kind {
            PmemKind::VirtioPmem => self.device("virtio-pmem"),
            PmemKind::Nvdimm => Opt::new("nvdimm,unarmed=on"),
        };
        self.add("-device", device.text(&format!("id={id},memdev={id}-file")));
    }

    fn block(&mut self, id: &str, disk: &Disk, facts: &DiskFacts) {
        let driver = if facts.block_device { "host_device" } else { "file" };
        let read_only = on_off(disk.read_only);
        let node = format!(
            "driver=raw,node-name={id}-file,read-only={read_only},file.driver={driver},file.read-only={read_only}"
        );
        self.add("-blockdev", Opt::new(node).path("file.filename", &disk.path));
        let device = self.device("virtio-blk").text(&format!("id={id},drive={id}-file"));
        self.add("-device", device);
    }

    fn channel(&mut self, channel: &Channel) {
        match channel {
            Channel::VhostVsock { cid, .. } => {
                let device = self.device("vhost-vsock").text(&format!("guest-cid={cid}"));
                self.add("-device", device);
            }
            Channel::VhostUserVsock { socket, .. } => {
                self.add("-chardev", Opt::new("socket,id=vsock,server=off").path("path", socket));
                let device = self.device("vhost-user-vsock").text("chardev=vsock");
                self.add("-device", device);
            }
            Channel::Serial { socket, listens } => {
                let server = if *listens { "server=on,wait=off" } else { "server=off" };
                let chardev = Opt::new(format!("socket,id=agent,{server}")).path("path", socket);
                self.add("-chardev", chardev);
                let bus = self.device("virtio-serial").text("id=serial,max_ports=2");
                self.add("-device", bus);
                self.add(
                    "-device",
                    format!("virtserialport,bus=serial.0,chardev=agent,name={SERIAL_PORT_NAME}"),
                );
            }
        }
    }

    fn share(&mut self, index: usize, share: &Share, wiring: &Wiring) {
        match share.kind {
            ShareKind::NineP => self.ninep(index, share, wiring.privileged),
            ShareKind::VirtioFs => {
                let socket = share_socket(&wiring.share_sockets, index);
                let chardev = Opt::new(format!("socket,id=share{index}-fs,server=off"));
                self.add("-chardev", chardev.path("path", &socket));
                let device = self.device("vhost-user-fs").text(&format!("chardev=share{index}-fs"));
                self.add("-device", device.path("tag", Path::new(&share.tag)));
            }
        }
    }

    /// Who may not change owners gives the guest files with those that they have.
    fn ninep(&mut self, index: usize, share: &Share, privileged: bool) {
        let model = if privileged { "passthrough" } else { "none" };
        let read_only = on_off(share.read_only);
        let fsdev = Opt::new(format!(
            "local,id=share{index}-dir,security_model={model},multidevs=remap,readonly={read_only}"
        ));
        self.add("-fsdev", fsdev.path("path", &share.path));
        let device = self.device("virtio-9p").text(&format!("fsdev=share{index}-dir"));
        self.add("-device", device.path("mount_tag", Path::new(&share.tag)));
    }

    /// `romfile=`: nothing boots from it.
    fn nic(&mut self, index: usize, nic: &Nic) {
        let Nic { network, mac, mtu } = nic;
        let Network::User { restricted } = network;
        let restrict = on_off(*restricted);
        self.add("-netdev", format!("user,id=nic{index}-net,restrict={restrict}"));
        let rom = if self.kind.has_pci() { "romfile=" } else { "" };
        let device = self.device("virtio-net").text(rom);
        let device = device.text(&format!("id=nic{index},netdev=nic{index}-net,mac={mac}"));
        let mtu = mtu.map(|mtu| format!("host_mtu={mtu}")).unwrap_or_default();
        self.add("-device", device.text(&mtu));
    }

    /// Each root port has a number of its own in its chassis.
    fn slots(&mut self, machine: &Machine) {
        if machine.kind != MachineKind::Q35 {
            return;
        }
        for index in 0..machine.slots {
            let address = self.next_slot;
            self.next_slot += 1;
            let port = format!(
                "pcie-root-port,addr={address:#x},id=slot{index},chassis={chassis}",
                chassis = index + 1
            );
            self.add("-device", port);
        }
    }

    fn bench(&mut self, machine: &Machine) {
        if machine.icount {
            self.add("-icount", "shift=0,sleep=off");
        }
        if let Some(plugin) = &machine.plugin {
            self.add("-plugin", plugin);
        }
    }

    /// The next slot's device: `NAME-device` on virtio-mmio, `NAME-pci` on PCI.
    fn device(&mut self, name: &str) -> Opt {
        if self.kind.has_pci() {
            let slot = self.next_slot;
            self.next_slot += 1;
            Opt::new(format!("{name}-pci,addr={slot:#x}"))
        } else {
            Opt::new(format!("{name}-device"))
        }
    }
}

/// Guest memory, and the address space above it in which persistent memory appears.
fn memory(machine: &Machine, wiring: &Wiring) -> String {
    let base = machine.memory_mib;
    let Some(space_gib) = pmem_space_gib(machine, wiring) else {
        return format!("{base}M");
    };
    let slots = match machine.pmem {
        PmemKind::VirtioPmem => "",
        PmemKind::Nvdimm => ",slots=1",
    };
    format!("{base}M{slots},maxmem={}M", u64::from(base) + space_gib * 1024)
}

/// How much address space persistent memory takes, from 4 GiB on; `None` if there is none. Each device is aligned by
/// QEMU as it sees fit: up to a GiB each.
fn pmem_space_gib(machine: &Machine, wiring: &Wiring) -> Option<u64> {
    let Boot::Rootfs(_) = machine.boot else { return None };
    let mapped = wiring.disks.iter().zip(mapped(machine, wiring)).filter(|(_, mapped)| *mapped);
    let sizes = mapped.map(|(facts, _)| facts.bytes).chain([wiring.rootfs_bytes]);
    Some(sizes.map(|bytes| bytes.div_ceil(GIB)).sum::<u64>() + 1)
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A value of comma-separated parts, in which a comma inside a path is doubled, as QEMU reads it.
struct Opt(OsString);

impl Opt {
    fn new(start: impl Into<OsString>) -> Self {
        Self(start.into())
    }

    fn text(mut self, part: &str) -> Self {
        if !part.is_empty() {
            self.0.push(",");
            self.0.push(part);
        }
        self
    }

    fn path(mut self, key: &str, path: &Path) -> Self {
        self.0.push(format!(",{key}="));
        self.0.push(double_commas(path.as_os_str()));
        self
    }
}

impl From<Opt> for OsString {
    fn from(opt: Opt) -> Self {
        opt.0
    }
}

fn double_commas(text: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests;
