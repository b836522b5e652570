//! Standard output and standard error for the commands that only print: whole texts, and tables.
//!
//! `print!` panics when the reader is gone; here that is [`Error::broken_pipe`], which ends hyperctl silently.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::{Context as _, Error, Result};

/// How much of what a host has said is told to whoever is in front, in bytes: the end.
const SAID_MAX: usize = 64 << 10;

/// Writes `bytes` to standard output, all of them, before it returns.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    write_all(io::stdout().lock(), bytes.as_ref(), "standard output")
}

/// The same for standard error.
pub fn print_error(bytes: impl AsRef<[u8]>) -> Result<()> {
    write_all(io::stderr().lock(), bytes.as_ref(), "standard error")
}

/// Tells the user something on standard error. Whether anybody reads it does not change what we do.
pub fn warn(message: impl Display) {
    say(format_args!("hyperctl: {message}"));
}

/// One text on standard error, as it is.
pub fn say(text: impl Display) {
    if let Err(err) = print_error(format!("{text}\n")) {
        drop(err); // standard error itself is gone: there is no place left to say so
    }
}

/// Sends all that is said from here on to a file: a host has no terminal.
pub fn say_into(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    let log = options.create(true).read(true).append(true).mode(0o600).open(path);
    let log = log.context(|| format!("open {path:?}"))?;
    rustix::stdio::dup2_stderr(log).context(|| format!("open {path:?}"))
}

/// What is in that file, be it removed: for who is in front. No more than its last 64 KiB.
pub fn said() -> String {
    // By its descriptor's own name, with an offset of its own.
    let said = fs::read("/proc/self/fd/2").unwrap_or_default(); // no file: nobody asked for one
    let start = said.len().saturating_sub(SAID_MAX);
    String::from_utf8_lossy(said.get(start..).unwrap_or_default()).into_owned()
}

fn write_all(mut stream: impl io::Write, bytes: &[u8], name: &str) -> Result<()> {
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(|err| Error::output(name, &err))
}

/// As [`table`], with the columns of these indices moved to the right, as numbers are read.
pub fn right_aligned<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    numbers: &[usize],
) -> String {
    let mut header = header.map(str::to_string);
    let mut rows = rows.to_vec();
    for &column in numbers {
        let cells = || rows.iter().chain([&header]).filter_map(|row| row.get(column));
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for cell in rows.iter_mut().chain([&mut header]).filter_map(|row| row.get_mut(column)) {
            *cell = format!("{cell:>width$}");
        }
    }
    table(header.each_ref().map(String::as_str), &rows)
}

/// Columns as wide as their widest cell, two spaces apart, no trailing blanks.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&header, &widths);
    for row in rows {
        text.push_str(&line(&row.each_ref().map(String::as_str), &widths));
    }
    text
}

fn line<const N: usize>(cells: &[&str; N], widths: &[usize; N]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!("{cell:<width$}  "));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        let rows = [["a".to_string(), "bb".to_string()], ["cccc".to_string(), "d".to_string()]];
        assert_eq!(table(["X", "Y"], &rows), "X     Y\na     bb\ncccc  d\n");
        let right = right_aligned(["X", "Y"], &rows, &[0]);
        assert_eq!(right, "   X  Y\n   a  bb\ncccc  d\n");
    }
}
