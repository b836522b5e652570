//! A VM that outlives its owner: what is kept of it for an heir, and how an heir takes it over.
//!
//! ```text
//! launched: vm.json ── owner killed ──► adopt: processes by pid and mark, control by the second monitor,
//!                                              console by its pipe, serial line made again ──► (in use)
//! ```
//! `vm.json` is written when QEMU answers; a VM whose owner dies before that never ran and is ended ([`end_remains`]).
//! A pid may be another's by now, so each process also has a mark in its environment. Events that were told to nobody
//! are asked for again: whether the guest stands still, which disks are plugged in.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::accel::Accel;
use crate::console::create_private;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::mark::end_marked;
use crate::plug::{Plugged, Plugs};
use crate::process::Process;
use crate::qemu::{DiskDevice, Slot};
use crate::qmp::Qmp;
use crate::rundir::RunDir;
use crate::serial::SerialPort;
use crate::virtiofs;
use crate::vm::{AgentAddress, DIRECTORY, Parts, Readiness, Vm};
use crate::vsock::Daemon;

/// Names in the VM's directory.
pub(crate) const MONITOR: &str = "heir.sock";
pub(crate) const CONSOLE_PIPE: &str = "console";
pub(crate) const SERIAL: &str = "serial.sock";
const FILE: &str = "vm.json";
/// The drivers that a disk can have: the names are this program's own.
const DRIVERS: [&str; 3] = ["mmioblk", "blk", "virtio-pmem"];

/// What an heir cannot find out by itself.
pub(crate) struct Kept {
    pub(crate) qemu: u32,
    pub(crate) daemon: Option<u32>,
    /// Of shares: those that have a daemon, in their order.
    pub(crate) share_daemons: Vec<(usize, u32)>,
    pub(crate) memory_mib: u32,
    pub(crate) accel: Accel,
    pub(crate) address: AgentAddress,
    pub(crate) disks: Vec<DiskDevice>,
    pub(crate) slots: Vec<Slot>,
}

impl Kept {
    /// Writes it as a whole.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let (path, beside) = (dir.join(FILE), dir.join("vm.json.new"));
        let write = || {
            let mut file = create_private(&beside)?;
            file.write_all(self.to_json().to_string().as_bytes())?;
            fs::rename(&beside, &path)
        };
        write().map_err(Error::io(format!("write {path:?}")))
    }

    fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let operation = || format!("read {path:?}");
        let text = fs::read(&path).map_err(Error::io(operation()))?;
        let value = serde_json::from_slice(&text).ok();
        let kept = value.as_ref().and_then(Self::from_json);
        kept.ok_or_else(|| Error::io(operation())(io::ErrorKind::InvalidData.into()))
    }

    fn to_json(&self) -> Value {
        let address = match &self.address {
            AgentAddress::Vsock { cid, port } => json!({"cid": cid, "port": port}),
            AgentAddress::Hybrid { path, port } => json!({"path": path, "port": port}),
            AgentAddress::Unix { path } => json!({"path": path}),
        };
        let disk = |disk: &DiskDevice| json!([disk.driver, disk.source, disk.path]);
        let slot = |slot: &Slot| json!([slot.bus, slot.address, slot.pci_path]);
        json!({
            "qemu": self.qemu, "daemon": self.daemon, "share_daemons": self.share_daemons, "memory_mib": self.memory_mib,
            "accel": self.accel.name(), "address": address,
            "disks": self.disks.iter().map(disk).collect::<Vec<_>>(),
            "slots": self.slots.iter().map(slot).collect::<Vec<_>>(),
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let disks = value.get("disks")?.as_array()?.iter().map(disk).collect::<Option<_>>()?;
        let slots = value.get("slots")?.as_array()?.iter().map(slot).collect::<Option<_>>()?;
        let accel = match value.get("accel")?.as_str()? {
            "kvm" => Accel::Kvm,
            _ => Accel::Tcg,
        };
        Some(Self {
            qemu: number(value.get("qemu")?)?,
            daemon: value.get("daemon").and_then(number),
            share_daemons: serde_json::from_value(value.get("share_daemons")?.clone()).ok()?,
            memory_mib: number(value.get("memory_mib")?)?,
            accel,
            address: address(value.get("address")?)?,
            disks,
            slots,
        })
    }
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn address(value: &Value) -> Option<AgentAddress> {
    let path = value.get("path").and_then(Value::as_str).map(PathBuf::from);
    let port = value.get("port").and_then(number);
    Some(match (path, port) {
        (Some(path), Some(port)) => AgentAddress::Hybrid { path, port },
        (Some(path), None) => AgentAddress::Unix { path },
        (None, Some(port)) => AgentAddress::Vsock { cid: number(value.get("cid")?)?, port },
        (None, None) => return None,
    })
}

fn disk(value: &Value) -> Option<DiskDevice> {
    let text = |index: usize| value.get(index)?.as_str().map(str::to_owned);
    let driver = text(0)?;
    let driver = DRIVERS.into_iter().find(|known| *known == driver)?;
    Some(DiskDevice { driver, source: text(1)?, path: text(2)? })
}

fn slot(value: &Value) -> Option<Slot> {
    let text = |index: usize| value.get(index)?.as_str().map(str::to_owned);
    Some(Slot { bus: text(0)?, address: number(value.get(1)?)?, pci_path: text(2)? })
}

impl Vm {
    /// Takes over a VM that has outlived its owner, by what that one left in `run_dir`, and the disks that are plugged in.
    /// Wait for it by [`Vm::ready`], as after a launch. The uptime counts from here. There is no deadline: a QEMU that
    /// lives is waited for. One that is given up (an error, a dropped future) is killed.
    ///
    /// # Errors
    /// [`Error::VmEnded`] or [`Error::GuestPanicked`] if QEMU has ended, [`Error::Daemon`] if its daemon has;
    /// [`Error::Io`] if what was kept of it cannot be used.
    pub async fn adopt(run_dir: &Path) -> Result<(Self, Vec<Plugged>)> {
        let dir = run_dir.join(DIRECTORY);
        let path = |name: &str| dir.join(name);
        let kept = Kept::load(&dir)?;
        let Some(process) = Process::adopt("qemu", kept.qemu, &dir)? else {
            return Err(crate::instance::explain_ended(run_dir, kept.memory_mib));
        };
        let qemu = Instance::adopt(process, run_dir, kept.memory_mib, &path(CONSOLE_PIPE))?;
        let daemon = kept.daemon.map(|pid| Daemon::adopt(pid, &dir)).transpose()?;
        let of_share = |(index, pid): &(usize, u32)| virtiofs::Daemon::adopt(*pid, &dir, *index);
        let share_daemons = kept.share_daemons.iter().map(of_share).collect::<Result<_>>()?;
        let plugs = async |qmp: &Qmp| Plugs::adopt(qmp, kept.slots.clone()).await;
        let (qmp, (plugs, plugged)) = qemu.reconnect(&path(MONITOR), plugs).await?;
        let readiness = match &kept.address {
            AgentAddress::Unix { path: agent } => {
                remove_socket(agent)?;
                Readiness::Serial(SerialPort::connect(&path(SERIAL), agent, true)?)
            }
            AgentAddress::Vsock { .. } | AgentAddress::Hybrid { .. } => Readiness::Ready,
        };
        let Kept { disks, address, accel, .. } = kept;
        let dir = RunDir::inherit(dir);
        let parts = Parts {
            qemu,
            qmp,
            readiness,
            daemon,
            share_daemons,
            disks,
            plugs,
            address,
            accel,
            dir,
        };
        Ok((Self::of(parts), plugged))
    }
}

/// Our predecessor's.
fn remove_socket(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {path:?}"))(err))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Ends the processes of a VM that may outlive its owner; an owner that lives sees it.
///
/// # Errors
/// [`Error::Io`] if one does not end.
pub fn end_processes(run_dir: &Path) -> Result<()> {
    end_marked(&run_dir.join(DIRECTORY))
}

/// Ends what is left of a VM that has outlived its owner, whatever state it is in, and removes its directory. The logs
/// stay. Waits for the processes, so not to be called where others are served.
///
/// # Errors
/// [`Error::Io`] if a process does not end or the directory cannot be removed.
pub fn end_remains(run_dir: &Path) -> Result<()> {
    let dir = run_dir.join(DIRECTORY);
    end_marked(&dir)?;
    match fs::remove_dir_all(&dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {dir:?}"))(err))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = [
            AgentAddress::Vsock { cid: 7, port: 1024 },
            AgentAddress::Hybrid { path: "/run/vsock.sock".into(), port: 1024 },
            AgentAddress::Unix { path: "/run/agent.sock".into() },
        ];
        for address in addresses {
            let kept = Kept {
                qemu: 12,
                daemon: Some(13),
                share_daemons: vec![(1, 14)],
                memory_mib: 64,
                accel: Accel::Kvm,
                address: address.clone(),
                disks: vec![DiskDevice {
                    driver: "blk",
                    source: "05".into(),
                    path: "/dev/vda".into(),
                }],
                slots: vec![Slot { bus: "slot0".into(), address: 1, pci_path: "06/00".into() }],
            };
            kept.save(dir.path()).unwrap();
            let found = Kept::load(dir.path()).unwrap();
            assert_eq!((found.qemu, found.daemon, found.memory_mib), (12, Some(13), 64));
            assert_eq!(found.share_daemons, [(1, 14)]);
            assert_eq!((found.accel, &found.address), (Accel::Kvm, &address));
            assert_eq!((found.disks, found.slots), (kept.disks, kept.slots));
        }
        fs::write(dir.path().join(FILE), "{\"qemu\": 1").unwrap();
        assert!(Kept::load(dir.path()).is_err(), "half a file");
    }
}
