//! The rows of docs/oci.md.

use crate::pages::quoted;

pub const PAGE: &str = include_str!("../../docs/oci.md");

pub const HEADER: &str = "| field | status | how, limits, why | case | wrong twin |";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Honoured,
    Refused,
    NotApplicable,
}

#[derive(Clone, Debug)]
pub struct Row {
    /// In full.
    pub fields: Vec<String>,
    pub status: Status,
    pub how: String,
    /// Tests that show it.
    pub cases: Vec<String>,
    /// Tests that show that its absence is noticed.
    pub twins: Vec<String>,
}

/// All rows of all tables; the error is the line that is none.
pub fn rows(page: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in page.lines() {
        match line {
            HEADER => in_table = true,
            _ if !line.starts_with('|') => in_table = false,
            _ if !in_table || line.starts_with("|---") => {}
            _ => rows.push(row(line).ok_or_else(|| format!("no row of the table: {line}"))?),
        }
    }
    Ok(rows)
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let [fields, status, how, cases, twins] = *cells.as_slice() else { return None };
    let status = match status.trim() {
        "honoured" => Status::Honoured,
        "refused" => Status::Refused,
        "not applicable" => Status::NotApplicable,
        _ => return None,
    };
    let how = how.trim().trim_matches('—').to_owned();
    let fields = full_names(&quoted(fields));
    Some(Row { fields, status, how, cases: quoted(cases), twins: quoted(twins) })
}

/// A name that begins with a dot is a property of the last one that does not.
fn full_names(names: &[String]) -> Vec<String> {
    let mut object = "";
    let mut full = Vec::new();
    for name in names {
        if name.starts_with('.') {
            full.push(format!("{object}{name}"));
        } else {
            object = name;
            full.push(name.clone());
        }
    }
    full
}
