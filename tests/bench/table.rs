//! Rows, what is said of them, and how they are printed.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::budgets::{Budget, ROWS, Spec, Unit};
use crate::figures::{Figure, Figures};

/// A row with its figure.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    spec: Spec,
    figure: Figure,
}

/// Brings the figures into the table's order.
///
/// # Errors
/// A figure that has no row.
pub fn rows(figures: &Figures) -> Result<Vec<Row>> {
    for figure in figures.all() {
        if !ROWS.iter().any(|spec| spec.id == figure.id) {
            bail!("{}: measured, but budgets.rs has no such row", figure.id);
        }
    }
    let figure_of = |spec: &Spec| figures.all().iter().find(|figure| figure.id == spec.id).copied();
    Ok(ROWS
        .iter()
        .filter_map(|&spec| figure_of(&spec).map(|figure| Row { spec, figure }))
        .collect())
}

impl Row {
    /// The budget in the row's unit; none without a budget, or without the limit that it is over.
    fn budget(&self) -> Option<f64> {
        match self.spec.budget? {
            Budget::AtMost(bound) | Budget::AtLeast(bound) => Some(bound),
            Budget::OverLimit(more) => self.figure.limit.map(|limit| limit + more),
        }
    }

    fn verdict(&self) -> String {
        match self.spec.budget {
            Some(Budget::AtLeast(least)) => verdict_at_least(self.figure.value, least),
            Some(Budget::AtMost(_) | Budget::OverLimit(_)) | None => {
                verdict(self.figure.value, self.budget(), self.spec.goal)
            }
        }
    }

    fn cells(&self) -> [String; 8] {
        let number = |value: f64| shown(value, self.spec.unit);
        let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
        [
            self.spec.what.to_owned(),
            number(self.figure.value),
            unit_name(self.spec.unit).to_owned(),
            optional(self.figure.limit),
            optional(self.budget()),
            optional(self.spec.goal),
            self.figure.spread.map(shown_percent).unwrap_or_default(),
            self.verdict(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "id": self.spec.id,
            "name": self.spec.what.trim_start(),
            "unit": unit_name(self.spec.unit),
            "value": self.figure.value,
            "limit": self.figure.limit,
            "budget": self.budget(),
            "goal": self.spec.goal,
            "spread_percent": self.figure.spread,
            "verdict": self.verdict(),
        })
    }
}

/// What is said of a figure. Nothing of one that has neither budget nor goal.
fn verdict(value: f64, budget: Option<f64>, goal: Option<f64>) -> String {
    let over = |bound: f64| (value / bound - 1.0) * 100.0;
    match (budget, goal) {
        (Some(budget), _) if value > budget => {
            format!("misses the budget by {:.0} %", over(budget).max(1.0))
        }
        (_, Some(goal)) if value > goal => {
            format!("within, {:.0} % above the goal", over(goal).max(1.0))
        }
        (_, Some(_)) => "within, goal met".to_owned(),
        (Some(_), None) => "within".to_owned(),
        (None, None) => String::new(),
    }
}

/// The same where more is better.
fn verdict_at_least(value: f64, least: f64) -> String {
    if value >= least {
        return "within".to_owned();
    }
    format!("misses the budget by {:.0} %", ((1.0 - value / least) * 100.0).max(1.0))
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Mib => "MiB",
        Unit::Kib => "KiB",
        Unit::Mb => "MB",
        Unit::Minstr => "M instr",
        Unit::VirtualMs => "virtual ms",
        Unit::Ms => "ms, wall",
        Unit::Threads => "threads",
        Unit::MbPerSecond => "MB/s, wall",
        Unit::Times => "times",
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Mib | Unit::Mb | Unit::VirtualMs | Unit::Ms | Unit::Times => {
            format!("{value:.2}")
        }
        Unit::Minstr => format!("{value:.3}"),
        Unit::MbPerSecond => format!("{value:.1}"),
        Unit::Kib | Unit::Threads => format!("{value:.0}"),
    }
}

fn shown_percent(percent: f64) -> String {
    if percent < 10.0 { format!("{percent:.2} %") } else { format!("{percent:.0} %") }
}

const HEAD: [&str; 8] = ["what", "value", "unit", "limit", "budget", "goal", "spread", "verdict"];
/// Numbers are aligned at their ends, words at their starts.
const RIGHT: [bool; 8] = [false, true, false, true, true, true, true, false];

/// The table for people.
pub fn text(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned);
    let lines: Vec<[String; 8]> =
        std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [0; 8];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).zip(RIGHT).map(|((cell, width), right)| {
            if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The same for programs.
pub fn json(rows: &[Row]) -> String {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    format!("{:#}\n", json!({ "rows": rows }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_in_plain_words() {
        assert_eq!(verdict(1.0, Some(1.3), Some(1.0)), "within, goal met");
        assert_eq!(verdict(1.1, Some(1.3), Some(1.0)), "within, 10 % above the goal");
        assert_eq!(verdict(1.3, Some(1.3), None), "within");
        assert_eq!(verdict(44.8, Some(40.0), Some(24.0)), "misses the budget by 12 %");
        assert_eq!(verdict(5.0, None, None), "");
        assert_eq!(verdict_at_least(3.0, 3.0), "within");
        assert_eq!(verdict_at_least(2.999, 3.0), "misses the budget by 1 %");
        assert_eq!(verdict_at_least(1.5, 3.0), "misses the budget by 50 %");
    }

    /// A miss is never rounded away.
    #[test]
    fn a_small_miss_is_a_miss() {
        assert_eq!(verdict(100.1, Some(100.0), None), "misses the budget by 1 %");
        assert_eq!(verdict(100.1, Some(200.0), Some(100.0)), "within, 1 % above the goal");
    }

    #[test]
    fn a_budget_may_be_above_the_limit() {
        let mut figures = Figures::default();
        figures.beside("memory.initrd", &[19.0], Some(&[16.0])).unwrap();
        let rows = rows(&figures).unwrap();
        assert_eq!(rows.first().unwrap().budget(), Some(18.0));
        assert!(rows.first().unwrap().verdict().starts_with("misses the budget by 6 %"));
    }

    #[test]
    fn a_figure_without_a_row_is_an_error() {
        let mut figures = Figures::default();
        figures.once("size.nothing", 1.0);
        assert!(rows(&figures).is_err());
    }

    #[test]
    fn columns_are_aligned() {
        let mut figures = Figures::default();
        figures.once("size.init", 1.09);
        figures.once("size.vmlinux", 16.25);
        let text = text(&rows(&figures).unwrap());
        let at: Vec<_> =
            text.lines().skip(1).map(|line| line.find("MiB").or(line.find("MB"))).collect();
        assert_eq!(at.first(), at.get(1), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
