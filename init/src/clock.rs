//! The guest's clocks.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::error::{Code, Context, Error, Result};

const SECOND_NS: u64 = 1_000_000_000;

/// CLOCK_REALTIME in nanoseconds.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// Sets CLOCK_REALTIME, and so the time of all containers. The kernel refuses a time before the boot, and one that is too
/// far away to go on from (EINVAL).
pub fn set(seconds: i64, microseconds: i64) -> Result<()> {
    let what = || format!("set clock to {seconds} s and {microseconds} us");
    if seconds < 0 || !(0..1_000_000).contains(&microseconds) {
        return Err(Error::new(Code::InvalidArgument, format!("{}: no time of day", what())));
    }
    let time = Timespec { tv_sec: seconds, tv_nsec: microseconds * 1000 };
    clock_settime(ClockId::Realtime, time).context(what)
}

/// A clock before 1970 is not set: 0.
fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * SECOND_NS + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// `2026-11-21T17:53:51.000000000Z`.
pub fn rfc3339(time_ns: u64) -> String {
    let (seconds, nanoseconds) = (time_ns / SECOND_NS, time_ns % SECOND_NS);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// The Gregorian date of a day since 1970. Years begin in March, so that a leap day ends one; 400 of them are an era.
fn date(day: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    let day = day + 719_468; // since the first of March of the year 0
    let (era, day) = (day / ERA_DAYS, day % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // since March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_written_as_rfc_3339_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_795_283_631, "2026-11-21T17:53:51"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(seconds * SECOND_NS + 7), format!("{text}.000000007Z"));
        }
    }
}
