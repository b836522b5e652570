//! A PID 1 that does nothing: says when it began and what memory is used, and stops the machine.
//!
//! No guest with this kernel can boot in fewer instructions or less memory, so its numbers are the limit that the
//! bench puts beside ours. It is not part of any guest.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

fn main() -> io::Result<()> {
    let tsc = time_stamp_counter();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    if !fs::exists("/dev/console")? {
        mount(Some("dev"), "/dev", Some("devtmpfs"), MsFlags::empty(), None::<&str>)?;
    }
    let used_kib = field("MemTotal")? - field("MemAvailable")?;
    let total_kib = field("MemTotal")?;
    let mut console = OpenOptions::new().write(true).open("/dev/console")?;
    writeln!(console, "limit: tsc={tsc} used_kib={used_kib} total_kib={total_kib}")?;
    // Without ACPI there is no power to cut; a reset ends a VMM that was told not to reboot.
    let how =
        if fs::exists("/proc/acpi")? { RebootMode::RB_POWER_OFF } else { RebootMode::RB_AUTOBOOT };
    match reboot(how)? {}
}

/// A field of proc_meminfo(5), in KiB.
fn field(name: &str) -> io::Result<u64> {
    fs::read_to_string("/proc/meminfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok()
        })
        .ok_or_else(|| io::Error::other(format!("no {name} in /proc/meminfo")))
}

#[allow(unsafe_code)] // an instruction of the processor, which core marks unsafe
fn time_stamp_counter() -> u64 {
    // SAFETY: RDTSC reads a register; the kernel leaves it open to user mode (CR4.TSD clear).
    unsafe { core::arch::x86_64::_rdtsc() }
}
