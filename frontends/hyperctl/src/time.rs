//! Points in time: to wait for, and as people and programs read them (an age for `ps`, RFC 3339 in UTC for `inspect`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};

/// Waits until then; for ever, if there is no such moment.
pub async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Milliseconds since 1970, the form that a pod's state file keeps.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago `millis` was.
pub fn since(millis: u64) -> Duration {
    Duration::from_millis(unix_millis().saturating_sub(millis))
}

/// One unit, rounded down: `5 seconds`, `1 minute`, `3 days`.
pub fn rough(age: Duration) -> String {
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0 => return "less than a second".into(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        172_800.. => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// The same in a table's column: `5s`, `119s`, `2m`, `47h`, `3d`.
pub fn short(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        172_800.. => format!("{}d", seconds / 86_400),
    }
}

/// `2026-11-21T10:41:08.123Z`
pub fn rfc3339(millis: u64) -> String {
    let (seconds, fraction) = (millis / 1_000, millis % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// The Gregorian date of a day counted from 1970-01-01, by whole eras of 400 years that begin in March, so that the
/// leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_257_668_123), "2026-11-21T10:41:08.123Z");
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(rough(Duration::from_millis(400)), "less than a second");
        assert_eq!(rough(Duration::from_secs(1)), "1 second");
        assert_eq!(rough(Duration::from_secs(119)), "1 minute");
        assert_eq!(rough(Duration::from_secs(7_200)), "2 hours");
        assert_eq!(rough(Duration::from_secs(3 * 86_400)), "3 days");
    }
}
