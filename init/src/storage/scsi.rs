//! SCSI disks by the address that a Kata runtime knows them by: `ID:LUN` on the first channel of whichever adapter has it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};
use crate::offload;
use crate::reaper::Reaper;
use crate::uevent::Uevents;

const HOSTS: &str = "/sys/class/scsi_host";
const DEVICES: &str = "/sys/bus/scsi/devices";
/// What virtio-scsi has (virtio 1.2, 5.6.4): 256 targets of 16384 units.
const ID_MAX: u32 = 255;
const LUN_MAX: u32 = 16_383;
/// For an adapter to ask whether there is such a disk.
const SCAN_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    id: u32,
    lun: u32,
}

impl Address {
    fn parse(source: &str) -> Result<Self> {
        let number = |text: &str, most: u32| text.parse().ok().filter(|number| *number <= most);
        let parsed = source.split_once(':').and_then(|(id, lun)| {
            Some(Self { id: number(id, ID_MAX)?, lun: number(lun, LUN_MAX)? })
        });
        parsed.ok_or_else(|| {
            let message = format!("source {source:?}: not a SCSI address such as \"0:1\" (id:lun)");
            Error::new(Code::InvalidArgument, message)
        })
    }

    /// Its node, once it is there.
    fn find(self) -> Option<String> {
        let wanted = format!(":0:{}:{}", self.id, self.lun);
        let device = fs::read_dir(DEVICES).ok()?.flatten().find(|entry| {
            let name = entry.file_name();
            let host = name.to_str().and_then(|name| name.strip_suffix(&wanted));
            host.is_some_and(|host| host.bytes().all(|byte| byte.is_ascii_digit()))
        })?;
        let disk = fs::read_dir(device.path().join("block")).ok()?.flatten().next()?;
        let node = format!("/dev/{}", disk.file_name().to_str()?);
        Path::new(&node).exists().then_some(node) // sysfs is a moment ahead of devtmpfs
    }
}

/// Waits for the disk at an address, and says its node. Adapters are asked to look once: what comes later they tell.
pub async fn wait_for(
    source: &str,
    uevents: &Uevents,
    deadline: Duration,
    reaper: &Reaper,
) -> Result<String> {
    let address = Address::parse(source)?;
    if let Some(node) = address.find() {
        return Ok(node);
    }
    offload::run(reaper, SCAN_DEADLINE, || scan(address)).await?;
    let object = format!("SCSI disk at {source:?}");
    uevents.wait_for(&object, deadline, || address.find()).await
}

fn scan(Address { id, lun }: Address) -> Result<()> {
    let Ok(hosts) = fs::read_dir(HOSTS) else { return Ok(()) }; // none yet
    for host in hosts.flatten() {
        let file = host.path().join("scan");
        fs::write(&file, format!("0 {id} {lun}")).context(|| format!("write {file:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_two_small_numbers() {
        assert_eq!(Address::parse("0:1").unwrap(), Address { id: 0, lun: 1 });
        assert_eq!(Address::parse("255:16383").unwrap(), Address { id: 255, lun: 16_383 });
        for bad in ["", "0", "0:", ":0", "0:1:2", "256:0", "0:16384", "-1:0", "0:x", "0:0:"] {
            assert_eq!(Address::parse(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }
}
