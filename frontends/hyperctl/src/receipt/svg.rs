//! The boot receipt as a picture: a row a phase, time from left to right, dark on light.
//!
//! Plain SVG 1.1 with generic fonts and no style sheet, so that browsers, GitHub and converters draw it alike. Lengths
//! are to scale, and a phase too short to be seen is a line of two pixels with its number beside it.

use std::fmt::Write as _;

use super::{Bar, Side, Timeline, millis};

const WIDTH: u32 = 960;
/// Where the time axis begins and ends; labels stand to the left of it.
const LEFT: u32 = 176;
const RIGHT: u32 = WIDTH - 88;
const TOP: u32 = 92;
const ROW: u32 = 28;
const BAR: u32 = 18;
/// Axis, its numbers and a margin.
const BOTTOM: u32 = 52;

const INK: &str = "#1c2733";
const FAINT: &str = "#5d6b79";
const GRID: &str = "#e3e8ee";
const STRIPE: &str = "#f6f8fa";
const HOST: &str = "#3572b0";
const GUEST: &str = "#2e9e6b";

pub fn render(timeline: &Timeline) -> String {
    let scale = Scale::new(timeline.total_us());
    let rows = u32::try_from(timeline.bars.len()).unwrap_or(u32::MAX).min(1_000);
    let (foot, height) = (TOP + rows * ROW, TOP + rows * ROW + BOTTOM);
    let mut svg = String::new();
    open(&mut svg, height);
    heading(&mut svg, timeline);
    for (row, bar) in (0..rows).zip(&timeline.bars) {
        stripe(&mut svg, row);
        label(&mut svg, row, bar);
    }
    axis(&mut svg, &scale, foot);
    for (row, bar) in (0..rows).zip(&timeline.bars) {
        draw(&mut svg, &scale, row, bar);
    }
    svg.push_str("</svg>\n");
    svg
}

/// From microseconds to pixels.
struct Scale {
    total_us: u64,
    tick_us: u64,
}

impl Scale {
    fn new(total_us: u64) -> Scale {
        let total_us = total_us.max(1);
        Scale { total_us, tick_us: tick(total_us) }
    }

    fn x(&self, us: u64) -> f64 {
        f64::from(LEFT) + us as f64 / self.total_us as f64 * f64::from(RIGHT - LEFT)
    }
}

/// The smallest of 1, 2, 5, 10, 20, 50 ... that leaves no more than eight intervals.
fn tick(total_us: u64) -> u64 {
    let decades = std::iter::successors(Some(1u64), |decade| decade.checked_mul(10));
    decades
        .flat_map(|decade| [1, 2, 5].map(|step| decade.saturating_mul(step)))
        .find(|step| total_us / step <= 8)
        .unwrap_or(total_us)
}

fn open(svg: &mut String, height: u32) {
    push(
        svg,
        format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">
<rect width="{WIDTH}" height="{height}" fill="white"/>"#
        ),
    );
}

fn heading(svg: &mut String, timeline: &Timeline) {
    let (total, outcome) = (millis(timeline.total_us()), timeline.outcome());
    let title = format!("{}: {total} from start to {outcome}", timeline.title);
    text(svg, (24, 34), ("start", 18, INK), &title);
    text(svg, (24, 57), ("start", 12, FAINT), &timeline.subtitle);
    for (x, color, name) in [(WIDTH - 156, HOST, "host"), (WIDTH - 84, GUEST, "guest")] {
        push(
            svg,
            format_args!(r#"<rect x="{x}" y="46" width="12" height="12" rx="2" fill="{color}"/>"#),
        );
        text(svg, (x + 18, 57), ("start", 12, INK), name);
    }
}

fn stripe(svg: &mut String, row: u32) {
    if row.is_multiple_of(2) {
        let y = TOP + row * ROW;
        push(
            svg,
            format_args!(
                r#"<rect x="12" y="{y}" width="{}" height="{ROW}" rx="4" fill="{STRIPE}"/>"#,
                WIDTH - 24
            ),
        );
    }
}

fn label(svg: &mut String, row: u32, bar: &Bar) {
    text(svg, (LEFT - 14, TOP + row * ROW + 19), ("end", 13, INK), &bar.label);
}

fn axis(svg: &mut String, scale: &Scale, foot: u32) {
    let ticks = (0..=scale.total_us / scale.tick_us).map(|n| n * scale.tick_us);
    for us in ticks {
        let x = scale.x(us);
        push(
            svg,
            format_args!(
                r#"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{foot}" stroke="{GRID}"/>"#
            ),
        );
        push(
            svg,
            format_args!(
                r#"<text x="{x:.1}" y="{}" text-anchor="middle" font-size="12" fill="{FAINT}">{}</text>"#,
                foot + 20,
                axis_number(us)
            ),
        );
    }
    text(svg, (LEFT - 14, foot + 20), ("end", 12, FAINT), "ms");
    push(
        svg,
        format_args!(
            r#"<line x1="{LEFT}" y1="{foot}" x2="{RIGHT}" y2="{foot}" stroke="{FAINT}"/>"#
        ),
    );
}

/// Milliseconds without needless digits: ticks are round numbers.
fn axis_number(us: u64) -> String {
    let number = format!("{:.3}", us as f64 / 1_000.0);
    number.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The bar, and its length in numbers at its right; the widest bar leaves room for them.
fn draw(svg: &mut String, scale: &Scale, row: u32, bar: &Bar) {
    let (start, end) = (scale.x(bar.start_us), scale.x(bar.end_us));
    let width = (end - start).max(2.0);
    let y = TOP + row * ROW + (ROW - BAR) / 2;
    let color = match bar.side {
        Side::Host => HOST,
        Side::Guest => GUEST,
    };
    let round = if width > 6.0 { 3 } else { 0 };
    push(
        svg,
        format_args!(
            r#"<rect x="{start:.1}" y="{y}" width="{width:.1}" height="{BAR}" rx="{round}" fill="{color}"/>"#
        ),
    );
    push(
        svg,
        format_args!(
            r#"<text x="{:.1}" y="{}" font-size="12" fill="{INK}">{}</text>"#,
            start + width + 7.0,
            y + 13,
            millis(bar.length_us())
        ),
    );
}

fn text(svg: &mut String, (x, y): (u32, u32), (anchor, size, fill): (&str, u32, &str), text: &str) {
    let text = escape(text);
    push(
        svg,
        format_args!(
            r#"<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{text}</text>"#
        ),
    );
}

fn push(svg: &mut String, line: std::fmt::Arguments<'_>) {
    if writeln!(svg, "{line}").is_err() {
        svg.push('\n'); // a String takes all that is written to it
    }
}

/// A pod's name is safe, an image's path need not be.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '), // not allowed in XML at all
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_holds_every_phase_and_the_total() {
        let timeline = crate::receipt::tests::sample();
        let svg = render(&timeline);
        for bar in &timeline.bars {
            assert!(svg.contains(&format!(">{}</text>", bar.label)), "{}", bar.label);
        }
        assert!(svg.contains("468.0 ms from start to first output"));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(tick(468_000), 100_000);
        assert_eq!(tick(8_000), 1_000);
        assert_eq!(tick(1), 1);
        assert_eq!(axis_number(100_000), "100");
        assert_eq!(axis_number(500), "0.5");
        assert_eq!(axis_number(0), "0");
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(escape("<a & \"b\">\u{1}"), "&lt;a &amp; &quot;b&quot;&gt; ");
    }

    #[test]
    fn an_empty_receipt_is_a_picture_too() {
        let timeline = Timeline { title: "x".into(), subtitle: String::new(), bars: Vec::new() };
        assert!(render(&timeline).ends_with("</svg>\n"));
    }
}
