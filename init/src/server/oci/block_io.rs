//! OCI `linux.resources.blockIO`.

use hyperstart_protocol::oci;

use super::{bounded, invalid, refuse_for};
use crate::container::spec::{DeviceNumber, IoLimit, Limit, Resources};
use crate::error::Result;

const FIELD: &str = "linux.resources.blockIO";
/// Of each list.
const DEVICES_MAX: usize = 256;
const NO_LEAVES: &str = "cgroup v2 has no weight of leaves";

pub fn set(resources: &mut Resources, wire: &oci::LinuxBlockIO) -> Result<()> {
    refuse_for(wire.LeafWeight != 0, &format!("{FIELD}.leafWeight"), NO_LEAVES)?;
    resources.io_weight = weight(wire.Weight, &format!("{FIELD}.weight"))?;
    bounded(wire.WeightDevice.len(), DEVICES_MAX, &format!("{FIELD}.weightDevice"))?;
    for (at, device) in wire.WeightDevice.iter().enumerate() {
        let field = format!("{FIELD}.weightDevice[{at}]");
        refuse_for(device.LeafWeight != 0, &format!("{field}.leafWeight"), NO_LEAVES)?;
        if let Some(weight) = weight(device.Weight, &format!("{field}.weight"))? {
            let number = number(device.Major, device.Minor, &field)?;
            resources.io_device_weights.push((number, weight));
        }
    }
    for (name, what, list) in [
        ("throttleReadBpsDevice", "rbps", &wire.ThrottleReadBpsDevice),
        ("throttleWriteBpsDevice", "wbps", &wire.ThrottleWriteBpsDevice),
        ("throttleReadIOPSDevice", "riops", &wire.ThrottleReadIOPSDevice),
        ("throttleWriteIOPSDevice", "wiops", &wire.ThrottleWriteIOPSDevice),
    ] {
        bounded(list.len(), DEVICES_MAX, &format!("{FIELD}.{name}"))?;
        for (at, throttle) in list.iter().enumerate() {
            let field = format!("{FIELD}.{name}[{at}]");
            let device = number(throttle.Major, throttle.Minor, &field)?;
            // In version 1 a rate of 0 takes a limit away.
            let rate = if throttle.Rate == 0 { Limit::Max } else { Limit::Of(throttle.Rate) };
            resources.io_limits.push(IoLimit { device, what, rate });
        }
    }
    Ok(())
}

/// 0 is not said.
fn weight(weight: u32, field: &str) -> Result<Option<u32>> {
    match weight {
        0 => Ok(None),
        10..=1000 => Ok(Some(weight)),
        _ => invalid(field, &format!("{weight} is not in 10 to 1000")),
    }
}

fn number(major: i64, minor: i64, field: &str) -> Result<DeviceNumber> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => invalid(field, &format!("{major}:{minor} is not a device number")),
    }
}
