//! Block devices: by their name in /dev, or by the PCI path that a Kata runtime knows them by.
//!
//! A PCI path is the slot on each bus from the root down, in hexadecimal: `02/03` is slot 3 behind the bridge in
//! slot 2. The bus behind a bridge gets its number from the guest's kernel, so sysfs is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::uevent::Uevents;

const PCI_ROOT: &str = "/sys/devices/pci0000:00";
/// Bridges behind bridges, at the most.
const DEPTH_MAX: usize = 8;

/// Checks that `source` is the name of a device node and nothing else.
pub fn device_path(source: &str) -> Result<PathBuf> {
    let name = source.strip_prefix("/dev/").unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("source {source:?}: not a device such as \"/dev/vda\""),
        ));
    }
    Ok(PathBuf::from(source))
}

/// Waits for the virtio-blk device at a PCI path (or of a name), and says its node.
pub async fn wait_for(source: &str, uevents: &Uevents, deadline: Duration) -> Result<String> {
    if source.starts_with("/dev/") {
        let device = device_path(source)?;
        uevents.wait_for_path(&device, deadline).await?;
        return Ok(source.to_owned());
    }
    let slots = parse_pci_path(source)?;
    let object = format!("block device at PCI path {source:?}");
    uevents.wait_for(&object, deadline, || find_disk(Path::new(PCI_ROOT), &slots)).await
}

fn parse_pci_path(source: &str) -> Result<Vec<u8>> {
    let slots: Option<Vec<u8>> = source
        .split('/')
        .map(|slot| {
            u8::from_str_radix(slot, 16).ok().filter(|number| *number < 32 && slot.len() == 2)
        })
        .collect();
    slots.filter(|slots| slots.len() <= DEPTH_MAX).ok_or_else(|| {
        Error::new(
            Code::InvalidArgument,
            format!("source {source:?}: not a PCI path such as \"02/03\""),
        )
    })
}

fn find_disk(root: &Path, slots: &[u8]) -> Option<String> {
    let mut directory = root.to_path_buf();
    let mut bus = "0000:00".to_owned();
    let (last, bridges) = slots.split_last()?;
    for slot in bridges {
        directory.push(format!("{bus}:{slot:02x}.0"));
        bus = only_entry(&directory.join("pci_bus"))?;
    }
    directory.push(format!("{bus}:{last:02x}.0"));
    let virtio = fs::read_dir(&directory)
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("virtio")))?;
    let disk = only_entry(&virtio.path().join("block"))?;
    let node = format!("/dev/{disk}");
    Path::new(&node).exists().then_some(node) // sysfs is a moment ahead of devtmpfs
}

fn only_entry(directory: &Path) -> Option<String> {
    let entry = fs::read_dir(directory).ok()?.flatten().next()?;
    entry.file_name().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_paths_are_slots_in_hexadecimal() {
        assert_eq!(parse_pci_path("02/1f").unwrap(), [2, 31]);
        for bad in ["", "2/3", "20", "0g", "02//03", "../02", "01/01/01/01/01/01/01/01/01"] {
            assert!(parse_pci_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn device_names_are_names_and_not_paths() {
        device_path("/dev/vda").unwrap();
        for bad in ["vda", "/dev/", "/dev/../etc/passwd", "/dev/mapper/x", ""] {
            assert!(device_path(bad).is_err(), "{bad}");
        }
    }
}
