//! The VM that is asked for: flags, defaults and the guest's files, put together as a [`Machine`].

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use hyperstart_vmm::{Boot, Machine, MachineKind, ShareKind, TransportKind, virtiofs};
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Result};
use crate::flags::limits::ResourceFlags;
use crate::guest::GuestDir;
use crate::pod::state::Vm;

#[derive(Clone, Debug, clap::Args, Deserialize, Serialize)]
#[command(next_help_heading = "Virtual machine")]
pub struct MachineFlags {
    /// Guest memory; 1g is 1024 [default: 64, and --memory more]
    #[arg(long, value_name = "MiB", value_parser = memory_mib)]
    vm_memory: Option<u32>,
    /// Virtual CPUs [default: --cpus rounded up, or 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    vm_cpus: Option<u32>,
    /// Board [default: microvm; q35 with --boot dax or --rootfs]
    #[arg(long, value_name = "microvm|q35|pc", hide_possible_values = true)]
    machine: Option<Board>,
    /// Where the guest's own root comes from [default: dax on a q35 or pc, which have persistent memory; else initrd]
    #[arg(long, value_name = "initrd|dax", hide_possible_values = true)]
    boot: Option<BootMode>,
    /// vsock, vhost-user-vsock or serial [default: the first that works here]
    #[arg(long, value_name = "KIND", hide_possible_values = true)]
    transport: Option<TransportFlag>,
    /// Places for images of further containers (`run --pod`) on a q35 or pc; they cost each boot some ms
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=24))]
    slots: u32,
    /// How directories of this host (-v) get there [default: virtio-fs, and 9p where that cannot be]
    #[arg(long, value_name = "virtio-fs|9p", hide_possible_values = true)]
    share: Option<ShareFlag>,
    /// Guest kernel [default: vmlinux of the guest's files]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initrd, for --boot initrd [default: initrd.img of the guest's files]
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Root image, for --boot dax; its .json says if it is checked (dm-verity) [default: rootfs.erofs of the guest's files]
    #[arg(long, visible_alias = "image", value_name = "FILE")]
    rootfs: Option<PathBuf>,
    /// More words for the kernel's command line, such as agent.log=debug
    #[arg(long, value_name = "WORDS")]
    append: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Board {
    /// No PCI, no ACPI: the fastest boot
    Microvm,
    Q35,
    Pc,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// An archive in guest memory
    Initrd,
    /// An image in host memory, shared by all guests
    Dax,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TransportFlag {
    /// The host kernel's vhost-vsock
    Vsock,
    /// vsock by the vhost-device-vsock daemon
    VhostUserVsock,
    /// A virtio-serial port; needs nothing
    Serial,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
pub enum ShareFlag {
    /// By the daemon virtiofsd
    VirtioFs,
    /// By QEMU
    #[value(name = "9p")]
    NineP,
}

impl MachineFlags {
    /// How directories are shared: what was asked for, or the best that this host can.
    pub fn share_kind(&self) -> Result<ShareKind> {
        let usable = virtiofs::usable();
        match (self.share, usable) {
            (Some(ShareFlag::NineP), _) => Ok(ShareKind::NineP),
            (Some(ShareFlag::VirtioFs) | None, Ok(_)) => Ok(ShareKind::VirtioFs),
            (Some(ShareFlag::VirtioFs), Err(reason)) => {
                Err(Error::new(format!("--share virtio-fs: {reason}"))
                    .hint("leave it out: 9p needs nothing"))
            }
            (None, Err(reason)) => {
                log::info!("directories are shared by 9p: {reason}");
                Ok(ShareKind::NineP)
            }
        }
    }

    /// The machine, with room for a container of these limits unless its size is said.
    pub fn machine(&self, limits: &ResourceFlags) -> Result<Machine> {
        let (boot, kernel) =
            (self.boot()?, self.file(self.kernel.as_deref(), "vmlinux", "kernel")?);
        let mut machine = Machine::new(kernel, boot);
        if let Some(board) = self.machine {
            machine.kind = board.kind();
        }
        machine.memory_mib = match self.vm_memory {
            Some(memory_mib) => memory_mib,
            None => memory_for(machine.memory_mib, limits)?,
        };
        let needed = limits.whole_cpus().and_then(|cpus| u32::try_from(cpus).ok());
        machine.cpus = self.vm_cpus.or(needed).unwrap_or(machine.cpus);
        machine.slots = self.slots;
        machine.transport = self.transport.map(TransportFlag::kind);
        let words = self.append.iter().flat_map(|words| words.split_whitespace());
        machine.cmdline.extend(words.map(str::to_string));
        machine.check().map_err(|err| Error::new(err.to_string()))?;
        Ok(machine)
    }

    /// The same for people, as `ps` and `inspect` show it.
    pub fn describe(&self, machine: &Machine) -> Vm {
        let boot = match &machine.boot {
            Boot::Initrd(_) => "initrd",
            Boot::Rootfs(_) => "dax",
        };
        Vm {
            machine: machine.kind.name().into(),
            boot: boot.into(),
            transport: None, // what it came to is known when the VM is launched
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            slots: machine.slots,
        }
    }

    /// The mode that was asked for, or that the files and the board suggest.
    fn boot_mode(&self) -> BootMode {
        let board_with_pmem = matches!(self.machine, Some(Board::Q35 | Board::Pc));
        let suggested = match (&self.initrd, &self.rootfs) {
            (Some(_), None) => BootMode::Initrd,
            (None, Some(_)) => BootMode::Dax,
            (None, None) | (Some(_), Some(_)) if board_with_pmem => BootMode::Dax,
            (None, None) | (Some(_), Some(_)) => BootMode::Initrd,
        };
        self.boot.unwrap_or(suggested)
    }

    fn boot(&self) -> Result<Boot> {
        match (self.boot_mode(), &self.initrd, &self.rootfs) {
            (BootMode::Initrd, _, Some(_)) => Err(contradiction("--rootfs", "--boot dax")),
            (BootMode::Dax, Some(_), _) => Err(contradiction("--initrd", "--boot initrd")),
            (BootMode::Initrd, initrd, None) => {
                self.file(initrd.as_deref(), "initrd.img", "initrd").map(Boot::Initrd)
            }
            (BootMode::Dax, None, rootfs) => {
                self.file(rootfs.as_deref(), "rootfs.erofs", "rootfs").map(Boot::Rootfs)
            }
        }
    }

    /// The file that was named, else the one among the guest's files. Absolute: a detached host leaves our directory.
    fn file(&self, named: Option<&Path>, default: &str, what: &str) -> Result<PathBuf> {
        match named {
            Some(path) => fs::canonicalize(path).context(|| format!("find {what} {path:?}")),
            None => GuestDir::locate()?.file(default, what),
        }
    }
}

/// The guest's own memory, and as much as the container may use.
fn memory_for(own_mib: u32, limits: &ResourceFlags) -> Result<u32> {
    let container_mib = limits.memory_mib().unwrap_or(0);
    let sum = u32::try_from(container_mib).ok().and_then(|mib| own_mib.checked_add(mib));
    sum.ok_or_else(|| {
        Error::new(format!("--memory {container_mib}m: no VM is that large"))
            .hint("--vm-memory MiB gives the VM less than its container may use")
    })
}

/// MiB, with or without docker's `m`, or GiB as `g`.
fn memory_mib(text: &str) -> std::result::Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.parse::<u32>().ok().filter(|number| *number > 0);
    let unit = text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase();
    let mib = match unit.as_str() {
        "" | "m" | "mb" | "mib" => number,
        "g" | "gb" | "gib" => number.and_then(|number| number.checked_mul(1024)),
        _ => None,
    };
    mib.ok_or_else(|| "a number of MiB, such as 64, or 1g".to_string())
}

fn contradiction(flag: &str, needed: &str) -> Error {
    Error::new(format!("{flag}: it is used with {needed} only"))
        .hint(format!("add {needed}, or leave {flag} out"))
}

impl Board {
    fn kind(self) -> MachineKind {
        match self {
            Board::Microvm => MachineKind::Microvm,
            Board::Q35 => MachineKind::Q35,
            Board::Pc => MachineKind::Pc,
        }
    }
}

impl TransportFlag {
    fn kind(self) -> TransportKind {
        match self {
            TransportFlag::Vsock => TransportKind::VhostVsock,
            TransportFlag::VhostUserVsock => TransportKind::VhostUserVsock,
            TransportFlag::Serial => TransportKind::Serial,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: MachineFlags,
        #[command(flatten)]
        limits: ResourceFlags,
    }

    fn machine(extra: &[&str]) -> Result<(Machine, Vm)> {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, root) = (dir.path().join("k"), dir.path().join("r"));
        fs::write(&kernel, "k").unwrap();
        fs::write(&root, "r").unwrap();
        let (kernel, root) = (kernel.to_str().unwrap(), root.to_str().unwrap());
        let root_flag = if extra.contains(&"dax") { "--rootfs" } else { "--initrd" };
        let words = ["x", "--kernel", kernel, root_flag, root].into_iter();
        let line = Line::try_parse_from(words.chain(extra.iter().copied())).unwrap();
        let Line { flags, limits } = line;
        let machine = flags.machine(&limits)?;
        let vm = flags.describe(&machine);
        Ok((machine, vm))
    }

    #[test]
    fn the_defaults_are_one_cpu_64_mib_microvm_initrd() {
        let (machine, vm) = machine(&[]).unwrap();
        assert_eq!((machine.cpus, machine.memory_mib), (1, 64));
        assert_eq!((vm.machine.as_str(), vm.boot.as_str()), ("microvm", "initrd"));
        assert_eq!(machine.transport, None);
    }

    #[test]
    fn dax_brings_a_board_that_can_do_it() {
        assert_eq!(machine(&["--boot", "dax"]).unwrap().0.kind, MachineKind::Q35);
        assert!(machine(&["--boot", "dax", "--machine", "microvm"]).is_err());
    }

    #[test]
    fn a_board_with_persistent_memory_brings_dax() {
        let flags = |words: &[&str]| {
            Line::try_parse_from(["x"].iter().chain(words)).unwrap().flags.boot_mode()
        };
        for board in ["q35", "pc"] {
            assert_eq!(flags(&["--machine", board]), BootMode::Dax);
            assert_eq!(flags(&["--machine", board, "--initrd", "/i"]), BootMode::Initrd);
            assert_eq!(flags(&["--machine", board, "--boot", "initrd"]), BootMode::Initrd);
        }
        assert_eq!(flags(&["--rootfs", "/r"]), BootMode::Dax);
        assert_eq!(flags(&["--machine", "microvm"]), BootMode::Initrd);
        assert_eq!(flags(&[]), BootMode::Initrd);
    }

    #[test]
    fn flags_reach_the_machine() {
        let words =
            ["--vm-cpus", "2", "--vm-memory", "256", "--transport", "serial", "--machine", "pc"];
        let (machine, _) =
            machine(&[&words[..], &["--append", "a b", "--append", "c"]].concat()).unwrap();
        assert_eq!((machine.cpus, machine.memory_mib), (2, 256));
        assert_eq!(machine.kind, MachineKind::Pc);
        assert_eq!(machine.transport, Some(TransportKind::Serial));
        assert_eq!(machine.cmdline, ["a", "b", "c"]);
    }

    #[test]
    fn the_machine_has_room_for_its_container() {
        let (roomy, _) = machine(&["--memory", "100m", "--cpus", "1.5"]).unwrap();
        assert_eq!((roomy.memory_mib, roomy.cpus), (164, 2));
        let said = ["--memory", "100m", "--cpus", "1.5", "--vm-memory", "80", "--vm-cpus", "1"];
        let (said, _) = machine(&said).unwrap();
        assert_eq!((said.memory_mib, said.cpus), (80, 1));
        let err = machine(&["--memory", "9000000g"]).unwrap_err().to_string();
        assert!(err.contains("--vm-memory"), "{err}");
    }

    #[test]
    fn memory_is_in_mib_unless_it_says_otherwise() {
        assert_eq!(memory_mib("64"), Ok(64));
        assert_eq!(memory_mib("96M"), Ok(96));
        assert_eq!(memory_mib("2g"), Ok(2048));
        for bad in ["", "0", "-1", "1k", "m", "1.5g", "4194304g"] {
            assert!(memory_mib(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_for_the_other_boot_mode_is_refused() {
        let err = machine(&["--rootfs", "/r"]).unwrap_err().to_string();
        assert!(err.contains("--rootfs") && err.contains("--boot dax"), "{err}");
    }
}
