//! OCI `linux`, what is not in its `resources`.

use std::collections::HashMap;

use hyperstart_protocol::{GUEST_NODE, agent, oci};

use super::{absolute, bounded, invalid, resources, unsupported};
use crate::container::spec::{Access, Device, DeviceKind, GuestDevice, Namespace, Namespaces};
use crate::container::{OwnSysctls, check_sysctl};
use crate::error::Result;

const DEVICES_MAX: usize = 1024;
const SYSCTLS_MAX: usize = 256;

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

/// Those of a namespace that the spec asks for. Kata's runtimes set the sandbox's through any container of it.
pub fn sysctls(
    map: HashMap<String, String>,
    namespaces: &Namespaces,
    as_listed: bool,
) -> Result<Vec<(String, String)>> {
    bounded(map.len(), SYSCTLS_MAX, "linux.sysctl")?;
    let mut list: Vec<(String, String)> = map.into_iter().collect();
    list.sort();
    let own = OwnSysctls {
        ipc: !as_listed || namespaces.ipc != Namespace::Sandbox,
        network: namespaces.network != Namespace::Sandbox,
        uts: !as_listed || namespaces.uts != Namespace::Sandbox,
    };
    list.iter().try_for_each(|(name, _)| check_sysctl(name, own))?;
    Ok(list)
}
