//! How much a source may ask for, and which devices. Sources come from outside, so everything that grows with them is counted before it
//! is stored: an archive of a few kilobytes can unpack to petabytes.

use crate::error::{Error, Result};
use crate::tree::DeviceClass;

/// The devices that container runtimes give to every container, or to those that ask for them: null, zero, full, random,
/// urandom, tty, console, ptmx, net/tun, fuse.
const USUAL_DEVICES: [(u32, u32); 10] =
    [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (10, 229)];

/// The most that one image may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of file contents, and of layers once decompressed.
    pub content: u64,
    /// Files, directories and links, those that later layers remove included.
    pub entries: u64,
    /// Bytes of names, link targets and attributes: what is held in memory.
    pub metadata: u64,
    /// Layers in one image.
    pub layers: usize,
    /// Whether there may be device nodes beside those that every container has: a disk's or memory's opens what lies
    /// outside of the container, if nothing else forbids it.
    pub is_any_device: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            content: 16 << 30,
            entries: 1 << 20,
            metadata: 256 << 20,
            layers: 512,
            is_any_device: false,
        }
    }
}

/// What is left of the limits.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    limits: Limits,
    content: u64,
    entries: u64,
    metadata: u64,
}

impl Budget {
    pub fn new(limits: Limits) -> Budget {
        Budget { limits, content: 0, entries: 0, metadata: 0 }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many more bytes of contents there may be.
    pub fn content_left(&self) -> u64 {
        self.limits.content.saturating_sub(self.content)
    }

    /// Accounts for the contents of a file.
    pub fn take_content(&mut self, bytes: u64) -> Result<()> {
        self.content = self.content.saturating_add(bytes);
        match self.content > self.limits.content {
            true => Err(content_error(self.limits.content)),
            false => Ok(()),
        }
    }

    /// Refuses a device node that no image needs.
    pub fn check_device(&self, class: DeviceClass, major: u32, minor: u32) -> Result<()> {
        let is_usual = class == DeviceClass::Char && USUAL_DEVICES.contains(&(major, minor));
        match is_usual || self.limits.is_any_device {
            true => Ok(()),
            false => Err(Error::refused(format!(
                "{} device {major}:{minor}: not one that containers have (--any-device takes it)",
                match class {
                    DeviceClass::Char => "character",
                    DeviceClass::Block => "block",
                }
            ))),
        }
    }

    /// Accounts for one entry with so many bytes of names and attributes.
    pub fn take_entry(&mut self, metadata: usize) -> Result<()> {
        self.entries += 1;
        self.metadata = self.metadata.saturating_add(metadata as u64);
        if self.entries > self.limits.entries {
            return Err(Error::too_large(format!("more than {} files", self.limits.entries)));
        }
        if self.metadata > self.limits.metadata {
            let limit = self.limits.metadata;
            return Err(Error::too_large(format!(
                "more than {limit} bytes of names and attributes"
            )));
        }
        Ok(())
    }
}

/// The one message for contents over the limit.
pub fn content_error(limit: u64) -> Error {
    let limit = crate::progress::size(limit);
    Error::too_large(format!("more than {limit} of content (--max-size raises this limit)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_kept_and_named() {
        let limits =
            Limits { content: 10, entries: 2, metadata: 8, layers: 1, is_any_device: false };
        let mut budget = Budget::new(limits);
        budget.take_content(10).unwrap();
        assert!(budget.take_content(1).unwrap_err().to_string().contains("--max-size"));
        assert!(budget.take_content(u64::MAX).is_err());
        budget.take_entry(4).unwrap();
        assert!(budget.take_entry(5).unwrap_err().to_string().contains("names and attributes"));
        assert!(budget.take_entry(0).unwrap_err().to_string().contains("more than 2 files"));
    }

    #[test]
    fn only_the_devices_of_every_container_are_taken() {
        let mut limits = Limits::default();
        let budget = Budget::new(limits);
        budget.check_device(DeviceClass::Char, 1, 3).unwrap();
        for (class, major, minor) in
            [(DeviceClass::Block, 1, 3), (DeviceClass::Char, 1, 1), (DeviceClass::Block, 8, 0)]
        {
            let err = budget.check_device(class, major, minor).unwrap_err().to_string();
            assert!(err.contains(&format!("device {major}:{minor}: not one")), "{err}");
        }
        limits.is_any_device = true;
        Budget::new(limits).check_device(DeviceClass::Block, 8, 0).unwrap();
    }
}
