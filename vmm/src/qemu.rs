//! How QEMU is told what a [`Machine`] is: a pure function from the description to an argument list.
//!
//! Nothing is started or looked at here; what had to be found out first (accelerator, sockets, sizes) comes in as
//! [`Wiring`]; where things will be in the guest is in `places`. The list is compatible with QEMU 7.2 to 10. Choices worth a reason:
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

mod kernel_words;
mod places;
mod wiring;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use hyperstart_protocol::SERIAL_PORT_NAME;

use crate::accel::Accel;
use crate::machine::{Boot, Disk, Machine, MachineKind, Network, Nic, PmemKind, Share, ShareKind};
use kernel_words::kernel_command_line;
pub use places::{DiskDevice, PMEM_ALIGN, Slot, disk_devices, slots};
use places::{FIRST_SLOT, mapped, pmem_space_gib};
pub use wiring::{Channel, Clocks, DiskFacts, ICOUNT_TSC_KHZ, TIMER_PATCH, Wiring, share_socket};

/// `rtc=on`: without one, the kernel waits a second for it.
const MICROVM: &str = "microvm,rtc=on,isa-serial=on,x-option-roms=off";
const Q35: &str = "q35,smm=off,vmport=off,hpet=off,sata=off,smbus=off,usb=off,i8042=off";
const PC: &str = "pc,smm=off,vmport=off,hpet=off,usb=off,i8042=off";
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
