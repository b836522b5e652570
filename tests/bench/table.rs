//! Rows, how they are judged, and how they are shown.

use serde_json::{Value, json};

/// One thing that was measured. Less is better in every row.
#[derive(Clone, Debug)]
pub struct Row {
    pub group: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    /// The same of a guest that does nothing.
    pub limit: Option<f64>,
    /// The most that it may be.
    pub budget: Option<f64>,
    /// What it should become.
    pub goal: Option<f64>,
    /// How it varied or was found, where that matters.
    pub note: String,
}

impl Row {
    pub fn new(group: &'static str, name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            group,
            name,
            unit,
            value,
            limit: None,
            budget: None,
            goal: None,
            note: String::new(),
        }
    }

    pub fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn budget(mut self, budget: f64) -> Self {
        self.budget = Some(budget);
        self
    }

    pub fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// In plain words; empty where there is nothing to be judged by.
    fn verdict(&self) -> String {
        match (self.budget, self.goal) {
            (_, Some(goal)) if self.value <= goal => "goal reached".into(),
            (Some(budget), _) if self.value > budget => {
                let over = 100.0 * (self.value / budget - 1.0);
                format!("MISSED: {over:.1} % over the budget")
            }
            (Some(_), Some(_)) => "within budget, short of the goal".into(),
            (Some(_), None) => "within budget".into(),
            (None, Some(_)) => "short of the goal".into(),
            (None, None) => String::new(),
        }
    }
}

/// All rows, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    pub fn push(&mut self, row: Row) {
        eprintln!("bench: {}: {} {}", row.name, figure(row.value), row.unit);
        self.0.push(row);
    }

    pub fn text(&self) -> String {
        let mut lines =
            vec![["what", "measured", "limit", "budget", "goal", "verdict"].map(str::to_owned)];
        for row in &self.0 {
            let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
            let note = if row.note.is_empty() { String::new() } else { format!(" ({})", row.note) };
            lines.push([
                row.name.to_owned(),
                format!("{} {}", self::figure(row.value), row.unit),
                figure(row.limit),
                figure(row.budget),
                figure(row.goal),
                format!("{}{note}", row.verdict()),
            ]);
        }
        let widths: Vec<usize> = (0..6)
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        let show = |line: &[String; 6]| {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        lines.iter().map(show).collect()
    }

    pub fn json(&self) -> String {
        let row = |row: &Row| -> Value {
            json!({
                "group": row.group, "name": row.name, "unit": row.unit, "value": row.value, "limit": row.limit,
                "budget": row.budget, "goal": row.goal, "verdict": row.verdict(), "note": row.note,
            })
        };
        let rows: Vec<Value> = self.0.iter().map(row).collect();
        serde_json::to_string_pretty(&json!({ "rows": rows })).expect("numbers and text are JSON")
    }
}

/// Three digits or so.
fn figure(value: f64) -> String {
    match value {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ if value < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}
