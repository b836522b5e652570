//! Block devices: by their name in /dev, or by the PCI path that a Kata runtime knows them by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};
use crate::pci::PciPath;
use crate::uevent::Uevents;

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
    let path = PciPath::parse(source).context(|| "source".to_owned())?;
    let object = format!("block device at PCI path {source:?}");
    uevents.wait_for(&object, deadline, || find_disk(&path)).await
}

fn find_disk(path: &PciPath) -> Option<String> {
    let (disk, _directory) = path.find_virtio("block")?;
    let node = format!("/dev/{disk}");
    Path::new(&node).exists().then_some(node) // sysfs is a moment ahead of devtmpfs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_names_and_not_paths() {
        device_path("/dev/vda").unwrap();
        for bad in ["vda", "/dev/", "/dev/../etc/passwd", "/dev/mapper/x", ""] {
            assert!(device_path(bad).is_err(), "{bad}");
        }
    }
}
