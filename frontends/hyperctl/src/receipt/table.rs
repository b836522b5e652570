//! The boot receipt as a table for a terminal: a row a phase, with its place in time drawn beside the numbers.

use super::{Side, Timeline, millis};
use crate::output;

/// Characters for the whole time.
const WIDTH: u64 = 40;

pub fn render(timeline: &Timeline) -> String {
    let total = timeline.total_us().max(1);
    let rows: Vec<[String; 5]> = timeline
        .bars
        .iter()
        .map(|bar| {
            let side = match bar.side {
                Side::Host => "host",
                Side::Guest => "guest",
            };
            let (start, time) = (millis(bar.start_us), millis(bar.length_us()));
            let drawn = draw(bar.start_us, bar.end_us, total);
            [side.into(), bar.label.clone(), format!("{start:>10}"), format!("{time:>10}"), drawn]
        })
        .collect();
    format!(
        "{}\n{}\n\n{}\n{} from start to {}\n",
        timeline.title,
        timeline.subtitle,
        output::table(["SIDE", "PHASE", "     START", "      TIME", ""], &rows),
        millis(total),
        timeline.outcome()
    )
}

/// A bar of at least one character, within the width.
fn draw(start_us: u64, end_us: u64, total_us: u64) -> String {
    let column = |us: u64| us.saturating_mul(WIDTH) / total_us;
    let start = column(start_us).min(WIDTH - 1);
    let length = column(end_us).saturating_sub(start).max(1);
    let repeat = |text: &str, count: u64| text.repeat(usize::try_from(count).unwrap_or(0));
    format!("{}{}", repeat(" ", start), repeat("█", length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_a_row_and_the_total_is_named() {
        let text = render(&crate::receipt::tests::sample());
        assert_eq!(text.lines().count(), 4 + 12 + 2, "{text}");
        assert!(text.contains("host   start QEMU           0.00 ms     21.0 ms  █\n"), "{text}");
        assert!(text.ends_with("\n468.0 ms from start to first output\n"), "{text}");
    }

    #[test]
    fn bars_stay_within_the_width() {
        assert_eq!(draw(0, 100, 100).chars().count(), 40);
        assert_eq!(draw(100, 100, 100).chars().count(), 40);
        assert_eq!(draw(0, 0, 100), "█");
    }
}
