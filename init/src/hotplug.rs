//! Processors and memory that the host has plugged in: brought into use through sysfs.
//!
//! The kernel finds them by itself (ACPI); a processor then waits to be told. Memory comes online by itself where the
//! kernel is built so. cgroups need no refresh: what a cpuset may use grows with the processors that are online.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Context, Error, Result};
use crate::offload;
use crate::reaper::Reaper;
use crate::textfile;

const CPUS: &str = "/sys/devices/system/cpu";
const MEMORY: &str = "/sys/devices/system/memory";
/// For the kernel to start a processor, or to take blocks of memory in.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many processors the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus {
    pub online: u32,
    /// Plugged in, online or not.
    pub present: u32,
    /// The most that can be plugged in.
    pub possible: u32,
}

impl Cpus {
    pub fn count() -> Result<Self> {
        let count = |file: &str| -> Result<u32> {
            Ok(list_length(&textfile::read(&Path::new(CPUS).join(file))?))
        };
        let (online, present) = (count("online")?, count("present")?);
        Ok(Self { online, present, possible: count("possible")? })
    }
}

/// cpuset(7), "List format": `0-3,7`.
fn list_length(list: &str) -> u32 {
    let range = |range: &str| -> Option<u32> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    list.trim().split(',').filter_map(range).fold(0, u32::saturating_add)
}

/// Brings every processor that is there online, and with `memory` every block of memory.
pub async fn bring_online(memory: bool, reaper: &Reaper) -> Result<()> {
    offload::run(reaper, DEADLINE, || {
        bring(Path::new(CPUS), "cpu", "online", ("0", "1"))?;
        if memory && Path::new(MEMORY).exists() {
            bring(Path::new(MEMORY), "memory", "state", ("offline", "online"))?;
        }
        Ok(())
    })
    .await
}

/// Turns the `file` of each `PREFIX<number>` from one word to the other. A first processor may have none.
fn bring(directory: &Path, prefix: &str, file: &str, (from, to): (&str, &str)) -> Result<()> {
    for entry in fs::read_dir(directory).context(|| format!("read {directory:?}"))? {
        let entry = entry.context(|| format!("read {directory:?}"))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)).unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let file = entry.path().join(file);
        if textfile::read_optional(&file).trim() == from {
            fs::write(&file, to).context(|| format!("write {to:?} to {file:?}"))?;
        }
    }
    Ok(())
}

/// Whether the kernel has to be told of memory (arm64); x86's finds it.
pub fn probes_memory() -> bool {
    probe_file().exists()
}

fn probe_file() -> PathBuf {
    Path::new(MEMORY).join("probe")
}

/// Tells the kernel of blocks of memory by their physical addresses.
pub async fn probe_memory(addresses: &[u64], reaper: &Reaper) -> Result<()> {
    let file = probe_file();
    if !probes_memory() {
        let message = format!(
            "probe memory: not supported by this guest: its kernel has no {file:?}, and finds memory by itself"
        );
        return Err(Error::new(Code::Unimplemented, message));
    }
    offload::run(reaper, DEADLINE, || {
        addresses.iter().try_for_each(|address| {
            fs::write(&file, format!("{address:#x}"))
                .context(|| format!("probe memory {address:#x}"))
        })
    })
    .await
}

/// The unit of memory hot-plug; 0 where the kernel cannot take memory in at run time, which then has no blocks.
pub fn memory_block_bytes() -> Result<u64> {
    let file = Path::new(MEMORY).join("block_size_bytes");
    if !file.exists() {
        return Ok(0);
    }
    let text = textfile::read(&file)?;
    u64::from_str_radix(text.trim(), 16).map_err(|_err| {
        Error::new(Code::Internal, format!("read {file:?}: {text:?} is not a hexadecimal number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, length) in [
            ("0\n", 1),
            ("0-3", 4),
            ("0-1,4,6-7\n", 5),
            ("\n", 0),
            ("3-1", 0),
            ("x", 0),
            ("0-4294967295", 0),
        ] {
            assert_eq!(list_length(list), length, "{list:?}");
        }
    }
}
