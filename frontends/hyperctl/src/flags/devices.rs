//! Devices: nodes of the *guest's* /dev. The host's devices are not in the VM; what was attached to it is there under the
//! guest's names, and the guest looks their numbers up.

use hyperstart::GuestDevice;
use serde::{Deserialize, Serialize};

const ALL_ACCESS: &str = "rwm";

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct DeviceFlags {
    /// A device of the guest (not of the host), such as /dev/fuse, /dev/net/tun, /dev/vdb; a directory is all in it
    #[arg(long = "device", value_name = "DEV[:DEV][:rwm]", value_parser = device)]
    pub devices: Vec<DeviceFlag>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct DeviceFlag {
    guest_path: String,
    path: String,
    access: String,
}

impl DeviceFlag {
    /// The guest's whole /dev.
    pub fn all() -> DeviceFlag {
        DeviceFlag { guest_path: "/dev".into(), path: "/dev".into(), access: ALL_ACCESS.into() }
    }

    pub fn to_guest(&self) -> GuestDevice {
        let DeviceFlag { guest_path, path, access } = self.clone();
        GuestDevice { guest_path, path, access }
    }
}

/// `/dev/fuse`, `/dev/fuse:r`, `/dev/vdb:/dev/data`, `/dev/vdb:/dev/data:rw`: docker's forms.
fn device(text: &str) -> Result<DeviceFlag, String> {
    let is_access = |word: &str| !word.is_empty() && word.chars().all(|c| ALL_ACCESS.contains(c));
    let words: Vec<&str> = text.split(':').collect();
    let (guest_path, path, access) = match words.as_slice() {
        [one] => (*one, *one, ALL_ACCESS),
        [one, access] if is_access(access) => (*one, *one, *access),
        [one, other] => (*one, *other, ALL_ACCESS),
        [one, other, access] if is_access(access) => (*one, *other, *access),
        _ => return Err("DEV[:DEV][:ACCESS], where ACCESS is of r, w and m".into()),
    };
    if !guest_path.starts_with("/dev/") && guest_path != "/dev" {
        return Err(format!("{guest_path:?} is not below /dev of the guest"));
    }
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("{path:?} is not the absolute path of a device in the container"));
    }
    Ok(DeviceFlag { guest_path: guest_path.into(), path: path.into(), access: access.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_forms_are_understood() {
        for (text, guest_path, path, access) in [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:r", "/dev/fuse", "/dev/fuse", "r"),
            ("/dev/vdb:/dev/data", "/dev/vdb", "/dev/data", "rwm"),
            ("/dev/vdb:/dev/data:rw", "/dev/vdb", "/dev/data", "rw"),
        ] {
            let expected = DeviceFlag {
                guest_path: guest_path.into(),
                path: path.into(),
                access: access.into(),
            };
            assert_eq!(device(text), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_device_of_the_guest_is_refused() {
        for bad in
            ["", "fuse", "/etc/passwd", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/b:r:w", "/dev/a:"]
        {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
