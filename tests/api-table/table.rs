//! The rows of docs/api.md.

use crate::pages::quoted;

pub const PAGE: &str = include_str!("../../docs/api.md");

const HEADER: &str = "| RPC | status | by | tested by | limits, why |";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Served,
    /// UNIMPLEMENTED, with its name.
    Refused,
    /// The same, of what no runtime asks for.
    NeverCalled,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub service: String,
    pub method: String,
    pub status: Status,
    /// From the workspace on.
    pub files: Vec<String>,
    pub tests: Vec<String>,
    pub how: String,
}

/// All rows of all tables; the error is the line that is none. The heading above a table is its service.
pub fn rows(page: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let (mut service, mut in_table) = (String::new(), false);
    for line in page.lines() {
        match line {
            HEADER => in_table = true,
            _ if line.starts_with("## ") => {
                service = quoted(line).first().cloned().unwrap_or_default();
            }
            _ if !line.starts_with('|') => in_table = false,
            _ if !in_table || line.starts_with("|---") => {}
            _ => rows.push(row(&service, line).ok_or_else(|| format!("no row: {line}"))?),
        }
    }
    Ok(rows)
}

fn row(service: &str, line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let [method, status, files, tests, how] = *cells.as_slice() else { return None };
    let status = match status.trim() {
        "served" => Status::Served,
        "refused" => Status::Refused,
        "never called" => Status::NeverCalled,
        _ => return None,
    };
    let [method] = quoted(method).try_into().ok()?;
    let files = quoted(files).iter().map(|file| format!("init/src/{file}")).collect();
    let how = how.trim().trim_matches('—').to_owned();
    Some(Row { service: service.to_owned(), method, status, files, tests: quoted(tests), how })
}
