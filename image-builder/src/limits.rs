//! How much a source may ask for. Sources come from outside, so everything that grows with them is counted before it
//! is stored: an archive of a few kilobytes can unpack to petabytes.

use crate::error::{Error, Result};

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
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { content: 16 << 30, entries: 1 << 20, metadata: 256 << 20, layers: 512 }
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
        let limits = Limits { content: 10, entries: 2, metadata: 8, layers: 1 };
        let mut budget = Budget::new(limits);
        budget.take_content(10).unwrap();
        assert!(budget.take_content(1).unwrap_err().to_string().contains("--max-size"));
        assert!(budget.take_content(u64::MAX).is_err());
        budget.take_entry(4).unwrap();
        assert!(budget.take_entry(5).unwrap_err().to_string().contains("names and attributes"));
        assert!(budget.take_entry(0).unwrap_err().to_string().contains("more than 2 files"));
    }
}
