//! What must be found out before anything is started, and what is refused then.
//!
//! A missing file, an accelerator that does not work, a transport without its daemon: each is known without QEMU, and
//! is said better without it. The result is a [`Plan`]: the machine's description made definite for this host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::accel::{self, Accel, Host};
use crate::error::{Error, Result};
use crate::guest_files::{self, check_config, check_initrd, check_kernel, check_rootfs};
use crate::machine::{Boot, Disk, Machine, TransportKind};
use crate::program::{find_program, search_path};
use crate::qemu::{Clocks, DiskFacts, ICOUNT_TSC_KHZ, PMEM_ALIGN, TIMER_PATCH};
use crate::root::Verity;
use crate::{virtiofs, vsock};

/// The environment variable that names QEMU's binary.
const QEMU_OVERRIDE: &str = "HYPERSTART_QEMU";
const QEMU: &str = "qemu-system-x86_64";
/// The largest manifest of a kernel that is read, in bytes: ours has 1 KiB.
const MAX_MANIFEST: u64 = 64 << 10;

/// What was found out before anything is started.
#[derive(Debug)]
pub(crate) struct Plan {
    /// QEMU's binary.
    pub(crate) qemu: PathBuf,
    /// What runs guest code.
    pub(crate) accel: Accel,
    /// Whether the guest's CPU has no RDRAND.
    pub(crate) needs_rng: bool,
    /// Whether QEMU confines itself; cleared when it cannot.
    pub(crate) sandbox: bool,
    /// How the kernel learns its frequencies.
    pub(crate) clocks: Clocks,
    /// How bytes reach the agent.
    pub(crate) transport: Transport,
    /// The size of the rootfs image; 0 with an initrd.
    pub(crate) rootfs_bytes: u64,
    /// How the root's blocks are checked, if they are.
    pub(crate) verity: Option<Verity>,
    /// One for each disk.
    pub(crate) disks: Vec<DiskFacts>,
    /// The daemon's program, if a share needs it.
    pub(crate) virtiofsd: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) enum Transport {
    VhostVsock,
    VhostUserVsock { daemon: PathBuf },
    Serial,
}

impl Plan {
    /// Finds it all out.
    pub(crate) fn make(machine: &Machine) -> Result<Self> {
        let (rootfs_bytes, verity) = check_guest_files(machine)?;
        let disks = machine.disks.iter().map(disk_facts).collect::<Result<_>>()?;
        check_shares(machine)?;
        let host = Host::probe();
        let accel = accel::choose(
            &host,
            asked_accel(machine),
            std::env::var(accel::OVERRIDE).ok().as_deref(),
        )?;
        check_memory(machine.memory_mib)?;
        Ok(Self {
            qemu: find_qemu(machine)?,
            accel,
            needs_rng: !host.gives_rdrand(accel),
            sandbox: true,
            clocks: choose_clocks(machine, accel, &host),
            transport: choose_transport(machine.transport)?,
            rootfs_bytes,
            verity,
            disks,
            virtiofsd: find_virtiofsd(machine)?,
        })
    }
}

fn asked_accel(machine: &Machine) -> Option<Accel> {
    let needs_tcg = machine.icount || machine.plugin.is_some();
    machine.accel.or(needs_tcg.then_some(Accel::Tcg))
}

/// Opens what the guest is made of, and gives the size of a rootfs and how it is checked.
fn check_guest_files(machine: &Machine) -> Result<(u64, Option<Verity>)> {
    let kernel = &machine.kernel;
    let refuse_kernel = |cause| guest_file("kernel", kernel, cause);
    open_file(kernel).and_then(|_| check_kernel(kernel)).map_err(refuse_kernel)?;
    let (bytes, unpacks, verity) = match &machine.boot {
        Boot::Initrd(path) => {
            let unpacks = open_file(path).and_then(|_| check_initrd(path));
            (0, unpacks.map_err(|cause| guest_file("initrd", path, cause))?, None)
        }
        Boot::Rootfs(path) => {
            let (bytes, verity) =
                root_image(path).map_err(|cause| guest_file("rootfs", path, cause))?;
            (bytes, None, verity)
        }
    };
    let is_ours = read_manifest(kernel).is_ok();
    let needs = guest_files::needs(machine, unpacks, verity.is_some());
    check_config(machine, is_ours, &needs).map_err(refuse_kernel)?;
    Ok((bytes, verity))
}

fn root_image(path: &Path) -> io::Result<(u64, Option<Verity>)> {
    let bytes = open_file(path)?;
    check_rootfs(path)?;
    if bytes == 0 || !bytes.is_multiple_of(PMEM_ALIGN) {
        return Err(io::Error::other(format!("{bytes} bytes are not a multiple of 2 MiB")));
    }
    Ok((bytes, Verity::of_image(path, bytes)?))
}

fn guest_file(part: &'static str, path: &Path, cause: io::Error) -> Error {
    Error::GuestFile { part, path: path.to_owned(), cause }
}

/// The size of a file that can be read.
fn open_file(path: &Path) -> io::Result<u64> {
    let metadata = File::open(path)?.metadata()?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(io::Error::other("not a file")) }
}

pub(crate) fn disk_facts(disk: &Disk) -> Result<DiskFacts> {
    let refuse = |cause| Error::Attachment { part: "disk", path: disk.path.clone(), cause };
    let opened = OpenOptions::new().read(true).write(!disk.read_only).open(&disk.path);
    let metadata = opened.and_then(|file| file.metadata()).map_err(refuse)?;
    let block_device = metadata.file_type().is_block_device();
    if !block_device && !metadata.is_file() {
        return Err(refuse(io::Error::other("neither a file nor a block device")));
    }
    Ok(DiskFacts { block_device, bytes: metadata.len() })
}

fn check_shares(machine: &Machine) -> Result<()> {
    for share in &machine.shares {
        fs::read_dir(&share.path).map_err(|cause| Error::Attachment {
            part: "share",
            path: share.path.clone(),
            cause,
        })?;
    }
    Ok(())
}

fn find_virtiofsd(machine: &Machine) -> Result<Option<PathBuf>> {
    if !machine.has_virtiofs() {
        return Ok(None);
    }
    let unusable = |detail| Error::Daemon { name: "virtiofsd", detail, stderr: String::new() };
    virtiofs::usable().map(Some).map_err(unusable)
}

/// Refuses a guest that is larger than the host. One that is larger than what is free may still use less.
fn check_memory(memory_mib: u32) -> Result<()> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default(); // unknown: QEMU will say
    match host_memory_mib(&meminfo) {
        Some(total) if u64::from(memory_mib) > total => Err(Error::HostMemory {
            memory_mib,
            detail: format!("it has {total} MiB, swap included"),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Memory and swap of the host, from /proc/meminfo.
fn host_memory_mib(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    Some((kib("MemTotal:")? + kib("SwapTotal:").unwrap_or(0)) / 1024)
}

fn find_qemu(machine: &Machine) -> Result<PathBuf> {
    let named = std::env::var_os(QEMU_OVERRIDE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let binary = machine.qemu.clone().or(named).unwrap_or_else(|| QEMU.into());
    find_program(&binary, search_path()).ok_or(Error::QemuMissing { binary })
}

fn choose_transport(asked: Option<TransportKind>) -> Result<Transport> {
    let unusable =
        |kind: TransportKind, reason: String| Error::Transport { transport: kind.name(), reason };
    match asked {
        Some(kind @ TransportKind::VhostVsock) => match vsock::vhost_usable() {
            Ok(()) => Ok(Transport::VhostVsock),
            Err(err) => Err(unusable(
                kind,
                format!("open \"/dev/vhost-vsock\": {err}: load the module vhost_vsock"),
            )),
        },
        Some(kind @ TransportKind::VhostUserVsock) => match vsock::find_daemon() {
            Some(daemon) => Ok(Transport::VhostUserVsock { daemon }),
            None => {
                Err(unusable(kind, "vhost-device-vsock is not installed: run `make setup`".into()))
            }
        },
        Some(TransportKind::Serial) => Ok(Transport::Serial),
        None if vsock::vhost_usable().is_ok() => Ok(Transport::VhostVsock),
        None => Ok(match vsock::find_daemon() {
            Some(daemon) => Transport::VhostUserVsock { daemon },
            None => Transport::Serial,
        }),
    }
}

/// A kernel is told its frequencies if it can be, and as far as they are known: without a PIT it hangs otherwise.
fn choose_clocks(machine: &Machine, accel: Accel, host: &Host) -> Clocks {
    if !has_timer_patch(&machine.kernel) {
        return Clocks::Measured;
    }
    let tsc_khz = if machine.icount { Some(ICOUNT_TSC_KHZ) } else { host.tsc_khz() };
    match (accel, tsc_khz) {
        (Accel::Kvm, _) => Clocks::Told { tsc_khz: None },
        (Accel::Tcg, Some(_)) => Clocks::Told { tsc_khz },
        (Accel::Tcg, None) => Clocks::TimerTold,
    }
}

/// Whether `kernel.json` beside the kernel is about this kernel, and names the patch. Any other kernel measures.
fn has_timer_patch(kernel: &Path) -> bool {
    match read_manifest(kernel) {
        Ok(manifest) => {
            let patches = manifest.get("patches").and_then(Value::as_str).unwrap_or_default();
            patches.contains(TIMER_PATCH)
        }
        Err(err) => {
            log::debug!("kernel {kernel:?}: no manifest: {err}");
            false
        }
    }
}

/// The manifest, if the size that it has for this file is the file's.
fn read_manifest(kernel: &Path) -> io::Result<Value> {
    let path = kernel.with_file_name("kernel.json");
    if fs::metadata(&path)?.len() > MAX_MANIFEST {
        return Err(io::Error::other("too large"));
    }
    let manifest: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let name = kernel.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let described = manifest.get("files").and_then(|files| files.get(name)?.get("bytes")?.as_u64());
    if described != Some(fs::metadata(kernel)?.len()) {
        return Err(io::Error::other("it is about another file"));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_memory_is_read_with_its_swap() {
        let meminfo = "MemTotal:       2048000 kB\nMemFree: 1 kB\nSwapTotal:       1024 kB\n";
        assert_eq!(host_memory_mib(meminfo), Some(2001));
        assert_eq!(host_memory_mib("MemTotal: 1024 kB\n"), Some(1));
        assert_eq!(host_memory_mib(""), None);
    }

    #[test]
    fn only_a_kernel_that_says_so_is_told_its_frequencies() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("vmlinux");
        fs::write(&kernel, "0123456789").unwrap();
        assert!(!has_timer_patch(&kernel), "no manifest");
        let write = |patches: &str, bytes: u32| {
            let manifest =
                serde_json::json!({"patches": patches, "files": {"vmlinux": {"bytes": bytes}}});
            fs::write(dir.path().join("kernel.json"), manifest.to_string()).unwrap();
        };
        write("0001-timer-frequencies.patch 0002-other.patch", 10);
        assert!(has_timer_patch(&kernel));
        write("0002-other.patch", 10);
        assert!(!has_timer_patch(&kernel), "without the patch");
        write("0001-timer-frequencies.patch", 11);
        assert!(!has_timer_patch(&kernel), "another kernel's manifest");
        fs::write(dir.path().join("kernel.json"), "{").unwrap();
        assert!(!has_timer_patch(&kernel), "broken");
    }

    #[test]
    fn frequencies_are_told_only_when_they_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("vmlinux");
        fs::write(&kernel, "x").unwrap();
        let manifest =
            r#"{"patches": "0001-timer-frequencies.patch", "files": {"vmlinux": {"bytes": 1}}}"#;
        fs::write(dir.path().join("kernel.json"), manifest).unwrap();
        let machine = Machine::new(&kernel, Boot::Initrd("/i".into()));
        let host = |flags: &str| Host {
            arch: "x86_64",
            cpu_flags: flags.into(),
            cpu_mhz: "2000.000".into(),
            kvm: Ok(()),
        };
        let (known, unknown) = (host("hypervisor constant_tsc"), host(""));
        assert_eq!(
            choose_clocks(&machine, Accel::Tcg, &known),
            Clocks::Told { tsc_khz: Some(2_000_000) }
        );
        assert_eq!(choose_clocks(&machine, Accel::Tcg, &unknown), Clocks::TimerTold);
        assert_eq!(choose_clocks(&machine, Accel::Kvm, &unknown), Clocks::Told { tsc_khz: None });
        let counted = Machine { icount: true, ..machine };
        let told = Clocks::Told { tsc_khz: Some(ICOUNT_TSC_KHZ) };
        assert_eq!(choose_clocks(&counted, Accel::Tcg, &unknown), told);
    }
}
