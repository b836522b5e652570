//! Whether the guest is short of memory: the kernel's pressure stall information (PSI), by a trigger on
//! /proc/pressure/memory (Documentation/accounting/psi.rst).
//!
//! A trigger costs the kernel a thread, so there is one only once somebody listens to events.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use tokio::io::Interest;
use tokio::time::sleep;

use crate::error::{Context, Result};
use crate::sys::event;

const PRESSURE: &str = "/proc/pressure/memory";

/// Some task was held up for 150 ms in a second. The zero byte ends it for the kernel.
const TRIGGER: &[u8] = b"some 150000 1000000\0";

/// Between two that are told: a guest that stays short of memory is one piece of news.
const PAUSE: Duration = Duration::from_secs(10);

/// The file's two lines have some hundred bytes.
const TEXT_MAX: usize = 512;

/// Tells what the kernel says of the pressure each time that it is too high, for as long as the guest lives.
pub async fn watch(tell: impl Fn(String)) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(PRESSURE, flags, Mode::empty()).context(|| format!("open {PRESSURE:?}"))?;
    rustix::io::write(file.as_fd(), TRIGGER)
        .context(|| format!("set a trigger on {PRESSURE:?}"))?;
    let trigger = event::register_for(file, Interest::PRIORITY)?;
    loop {
        trigger.ready(Interest::PRIORITY).await?.clear_ready();
        let mut text = fs::read_to_string(PRESSURE).context(|| format!("read {PRESSURE:?}"))?;
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        tell(text);
        sleep(PAUSE).await;
    }
}
