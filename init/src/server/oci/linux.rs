//! OCI `linux`, what is not in its `resources`.

use std::collections::{BTreeSet, HashMap};

use hyperstart_protocol::{GUEST_NODE, agent, oci};

use super::{absolute, bounded, invalid, refuse_if, resources, unsupported};
use crate::container::check_sysctl;
use crate::container::spec::{Access, Device, DeviceKind, GuestDevice, Network};
use crate::error::Result;

const DEVICES_MAX: usize = 1024;
const SYSCTLS_MAX: usize = 256;
/// A container has its mount, pid, ipc, uts and cgroup namespaces to itself whether the spec lists them or not.
pub fn network(namespaces: &[oci::LinuxNamespace]) -> Result<Network> {
    let mut seen = BTreeSet::new();
    for namespace in namespaces {
        let kind = namespace.Type.as_str();
        let field = format!("linux.namespaces[{kind}]");
        match kind {
            "mount" | "pid" | "ipc" | "uts" | "cgroup" | "network" => {}
            "user" | "time" => return unsupported(&field),
            _ => return invalid(&field, "no such namespace"),
        }
        refuse_if(!namespace.Path.is_empty(), &format!("{field}.path"))?;
        if !seen.insert(kind) {
            return invalid(&field, "listed twice");
        }
    }
    Ok(if seen.contains("network") { Network::Own } else { Network::Sandbox })
}

pub fn devices(list: Vec<oci::LinuxDevice>) -> Result<Vec<Device>> {
    bounded(list.len(), DEVICES_MAX, "linux.devices")?;
    list.into_iter()
        .enumerate()
        .map(|(at, device)| device_spec(&format!("linux.devices[{at}]"), device))
        .collect()
}

/// Kata's `devices`. Of its types only ours is served: the others name a device of the spec by where the host plugged it.
pub fn guest_devices(list: Vec<agent::Device>) -> Result<Vec<GuestDevice>> {
    bounded(list.len(), DEVICES_MAX, "devices")?;
    list.into_iter()
        .enumerate()
        .map(|(at, device)| {
            let field = format!("devices[{at}]");
            if device.type_ != GUEST_NODE {
                return unsupported(&format!("{field}.type {:?}", device.type_));
            }
            let access = match device.options.as_slice() {
                [] => Access::ALL,
                [text] => resources::access(text, &format!("{field}.options"))?,
                [_, _, ..] => return invalid(&format!("{field}.options"), "more than one"),
            };
            Ok(GuestDevice {
                guest_path: absolute(device.vm_path, &format!("{field}.vm_path"))?,
                path: absolute(device.container_path, &format!("{field}.container_path"))?,
                access,
            })
        })
        .collect()
}

/// Permissions of a node whose spec says none, as other runtimes have it.
const DEVICE_MODE: u32 = 0o666;

pub(super) fn device_spec(field: &str, device: oci::LinuxDevice) -> Result<Device> {
    let number = |value: i64| match u32::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => invalid(field, &format!("{value} is not a device number")),
    };
    let kind = match device.Type.as_str() {
        "c" | "u" => {
            DeviceKind::Character { major: number(device.Major)?, minor: number(device.Minor)? }
        }
        "b" => DeviceKind::Block { major: number(device.Major)?, minor: number(device.Minor)? },
        "p" => DeviceKind::Fifo,
        other => {
            return invalid(&format!("{field}.type"), &format!("{other:?} is not c, b, u or p"));
        }
    };
    let mode = match device.FileMode & 0o7777 {
        0 => DEVICE_MODE,
        mode => mode,
    };
    let path = absolute(device.Path, &format!("{field}.path"))?;
    Ok(Device { path, kind, mode, uid: device.UID, gid: device.GID })
}

pub fn sysctls(map: HashMap<String, String>, network: Network) -> Result<Vec<(String, String)>> {
    bounded(map.len(), SYSCTLS_MAX, "linux.sysctl")?;
    let mut list: Vec<(String, String)> = map.into_iter().collect();
    list.sort();
    list.iter().try_for_each(|(name, _)| check_sysctl(name, network))?;
    Ok(list)
}
