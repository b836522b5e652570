//! PCI devices by the path that a Kata runtime knows them by.
//!
//! A PCI path is the slot on each bus from the root down, in hexadecimal: `02/03` is slot 3 behind the bridge in
//! slot 2. The bus behind a bridge gets its number from the guest's kernel, so sysfs is asked.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

const ROOT: &str = "/sys/devices/pci0000:00";
/// Bridges behind bridges, at the most.
const DEPTH_MAX: usize = 8;

/// The slots from the root bus down to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciPath(Vec<u8>);

impl PciPath {
    pub fn parse(text: &str) -> Result<Self> {
        let slots: Option<Vec<u8>> = text
            .split('/')
            .map(|slot| {
                u8::from_str_radix(slot, 16).ok().filter(|number| *number < 32 && slot.len() == 2)
            })
            .collect();
        slots.filter(|slots| slots.len() <= DEPTH_MAX).map(Self).ok_or_else(|| {
            let message = format!("{text:?}: not a PCI path such as \"02/03\"");
            Error::new(Code::InvalidArgument, message)
        })
    }

    /// The only thing of class `class` (`block`, `net`) that the virtio device at this path brings: its name and its
    /// directory in sysfs. None: it is not there yet.
    pub fn find_virtio(&self, class: &str) -> Option<(String, PathBuf)> {
        let virtio =
            fs::read_dir(self.directory(Path::new(ROOT))?).ok()?.flatten().find(|entry| {
                entry.file_name().to_str().is_some_and(|name| name.starts_with("virtio"))
            })?;
        let directory = virtio.path().join(class);
        let name = only_entry(&directory)?;
        let path = directory.join(&name);
        Some((name, path))
    }

    fn directory(&self, root: &Path) -> Option<PathBuf> {
        let mut directory = root.to_path_buf();
        let mut bus = "0000:00".to_owned();
        let (last, bridges) = self.0.split_last()?;
        for slot in bridges {
            directory.push(format!("{bus}:{slot:02x}.0"));
            bus = only_entry(&directory.join("pci_bus"))?;
        }
        directory.push(format!("{bus}:{last:02x}.0"));
        Some(directory)
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, slot) in self.0.iter().enumerate() {
            write!(f, "{}{slot:02x}", if depth == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
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
        assert_eq!(PciPath::parse("02/1f").unwrap(), PciPath(vec![2, 31]));
        for bad in ["", "2/3", "20", "0g", "02//03", "../02", "01/01/01/01/01/01/01/01/01"] {
            assert!(PciPath::parse(bad).is_err(), "{bad}");
        }
    }
}
