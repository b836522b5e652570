//! Numbers as people read them: three digits and a unit.

use std::time::Duration;

const BINARY: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
const DECIMAL: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// Memory, in powers of 1024, as docker shows it: `5.25MiB`.
pub fn memory(bytes: u64) -> String {
    scaled(bytes, 1024.0, BINARY)
}

/// Traffic, in powers of 1000, as docker shows it: `1.2kB`.
pub fn traffic(bytes: u64) -> String {
    scaled(bytes, 1000.0, DECIMAL)
}

fn scaled(bytes: u64, base: f64, units: [&str; 5]) -> String {
    let mut number = bytes as f64;
    let mut units = units.into_iter().peekable();
    let mut unit = units.next().unwrap_or_default();
    // What would be rounded to the next unit is shown in it.
    while let Some(larger) = units.next_if(|_| number >= base - 0.5) {
        (number, unit) = (number / base, larger);
    }
    format!("{}{unit}", three_digits(number))
}

/// `1.25`, `12.5`, `125`; a whole number is shown as one.
fn three_digits(number: f64) -> String {
    let digits = match number {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let text = format!("{number:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// `12.50%`, as docker shows it.
pub fn percent(percent: f64) -> String {
    format!("{percent:.2}%")
}

/// Processor time, as ps(1) shows it: `1:02:03`, without hours `2:03`, and below a minute `3.05` seconds.
pub fn cpu_time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.2}", time.as_secs_f64()),
        60..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        3_600.. => format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
    }
}

/// A bar of `width` characters for a share of 0 to 1, in eighths of a character.
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let most = width * 8;
    let eighths = (0..most).filter(|eighth| *eighth as f64 + 0.5 <= share * most as f64).count();
    let part = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    let drawn = "█".repeat(eighths / 8) + part;
    format!("{drawn:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (5_505_024, "5.25MiB"),
            (64 << 20, "64MiB"),
            ((1 << 20) - 1, "1MiB"),
            (1 << 50, "1024TiB"),
        ] {
            assert_eq!(memory(bytes), text);
        }
        assert_eq!((traffic(999), traffic(1_250)), ("999B".into(), "1.25kB".into()));
        assert_eq!(traffic(u64::MAX), "18446744TB");
    }

    #[test]
    fn processor_time_is_as_in_ps() {
        let shown = |millis| cpu_time(Duration::from_millis(millis));
        assert_eq!((shown(50), shown(59_000)), ("0.05".into(), "59.00".into()));
        assert_eq!((shown(61_500), shown(3_723_000)), ("1:01".into(), "1:02:03".into()));
    }

    #[test]
    fn a_bar_keeps_its_width() {
        assert_eq!(bar(0.0, 4), "    ");
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.53, 4), "██▏ ");
        assert_eq!((bar(7.0, 4), bar(-1.0, 2)), ("████".into(), "  ".into()));
        assert_eq!(bar(f64::NAN, 2), "  ");
    }
}
