//! The guest's clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_REALTIME in nanoseconds.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// A clock before 1970 is not set: 0.
fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
