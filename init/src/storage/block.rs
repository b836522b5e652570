//! Block devices: by their name in /dev, or by the PCI path that a Kata runtime knows them by.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};
use crate::pci::PciPath;
use crate::reaper::Reaper;
use crate::uevent::{self, Uevents};
use crate::{log, offload};

const RESCAN: &str = "/sys/bus/pci/rescan";
/// ACPI tells of a device within milliseconds of its coming.
const TOLD: Duration = Duration::from_secs(1);
/// For the kernel to look at every slot, and drivers to take what they find.
const RESCAN_DEADLINE: Duration = Duration::from_secs(30);

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

/// Waits for the virtio-blk device at a PCI path (or of a name), and says its node. A board that tells of no device that
/// comes (no ACPI) is asked to look when nothing was told for a while.
pub async fn wait_for(
    source: &str,
    uevents: &Uevents,
    deadline: Duration,
    reaper: &Reaper,
) -> Result<String> {
    if source.starts_with("/dev/") {
        let device = device_path(source)?;
        uevents.wait_for_path(&device, deadline).await?;
        return Ok(source.to_owned());
    }
    let path = PciPath::parse(source).context(|| "source".to_owned())?;
    let object = format!("block device at PCI path {source:?}");
    let find = || find_disk(&path);
    let told = deadline.min(TOLD);
    if let Some(node) = uevents.find_within(told, find).await {
        return Ok(node);
    }
    let rescan = || fs::write(RESCAN, "1").context(|| format!("write {RESCAN:?}"));
    if let Err(err) = offload::run(reaper, RESCAN_DEADLINE, rescan).await {
        log::warn!("{err}"); // the device may come all the same
    }
    let found = uevents.find_within(deadline.saturating_sub(told), find).await;
    found.ok_or_else(|| uevent::not_there(&object, deadline))
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
