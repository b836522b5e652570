//! A moment as the user says it: a date, a time, seconds since 1970, or how long ago.

use crate::time;

/// Milliseconds since 1970 of docker's forms of `--since`: `2026-11-21T10:41:08.5Z`, with an offset instead of the Z,
/// without either (UTC), a date alone, `1795257668.5`, or `1h30m` ago.
pub fn parse(text: &str) -> Result<u64, String> {
    let ago = || Some(time::unix_millis().saturating_sub(duration(text)?));
    date_time(text).or_else(|| seconds(text)).or_else(ago).ok_or_else(|| {
        "a time, such as 2026-11-21T10:41:08Z, 1795257668, or 10m for ten minutes ago".to_string()
    })
}

/// RFC 3339, the time or the offset left out at will.
fn date_time(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let [year, month, day] = numbers(date, '-')?;
    let (clock, offset_minutes) = split_offset(rest)?;
    let (hms, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = match hms {
        "" => [0, 0, 0],
        _ => numbers(hms, ':')?,
    };
    let month_length = days_of_month(year, month)?;
    if !(1..=month_length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = i64::try_from(days_since_1970(year, month, day)?).ok()?;
    let seconds = days * 86_400 + i64::try_from(hour * 3_600 + minute * 60 + second).ok()?;
    let seconds = u64::try_from(seconds - offset_minutes * 60).ok()?;
    Some(seconds * 1_000 + milliseconds(fraction)?)
}

/// The clock's time, and by how many minutes it is ahead of UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let (clock, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let minutes = number(hours)?.checked_mul(60)?.checked_add(number(minutes)?)?;
    Some((clock, sign * i64::try_from(minutes).ok().filter(|minutes| *minutes < 24 * 60)?))
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split(separator).map(number).collect();
    numbers?.try_into().ok()
}

/// Digits alone, so few that nothing here overflows.
fn number(text: &str) -> Option<u64> {
    let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn milliseconds(fraction: &str) -> Option<u64> {
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number(format!("{fraction:0<3}").get(..3)?)
}

fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some(number(whole)? * 1_000 + milliseconds(fraction)?)
}

/// Milliseconds of a duration in Go's form.
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (count, unit) = rest.split_at(end);
        let (unit, after) =
            unit.split_at(unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len()));
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(seconds(count)?.checked_mul(millis)? / 1_000)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// The inverse of what `time` does for RFC 3339: whole eras of 400 years, years that begin in March.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

fn days_of_month(year: u64, month: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => Some(28 + u64::from(leap)),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
    .filter(|_| year < 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for millis in [0, 951_782_400_000, 1_795_257_668_123, 253_402_300_799_999] {
            assert_eq!(parse(&time::rfc3339(millis)), Ok(millis));
        }
        let noon = 1_795_262_400_000;
        for text in [
            "2026-11-21T12:00:00Z",
            "2026-11-21T14:00:00+02:00",
            "2026-11-21T06:30:00.000-05:30",
            "2026-11-21 12:00:00",
            "1795262400",
            "1795262400.0",
        ] {
            assert_eq!(parse(text), Ok(noon), "{text}");
        }
        assert_eq!(parse("2026-11-21"), Ok(noon - 12 * 3_600_000));
    }

    #[test]
    fn a_duration_is_ago() {
        assert_eq!((duration("1h30m"), duration("1.5s")), (Some(5_400_000), Some(1_500)));
        let ago = time::unix_millis() - parse("10m").unwrap();
        assert!((600_000..660_000).contains(&ago), "{ago}");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "x",
            "10",
            "1h30",
            "5y",
            "-1",
            "2026-13-01",
            "2026-02-29",
            "2026-11-21T25:00:00Z",
            "2026-11-21T12:00:00+2",
            "1970-01-01T00:00:00+01:00",
            "1e9",
            "99999999999999999999",
        ] {
            // A short number is seconds since 1970.
            assert!(parse(bad).is_err() || bad == "10", "{bad}");
        }
    }
}
