//! Small files of the kernel's (`/proc`, `/sys`, a cgroup's): read up to a bound, and taken apart.
//!
//! They do not wait for a device. What is longer than its bound is cut at the last whole line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Context, Result};

/// No file of `/proc` or of a cgroup that is read here is larger, save on machines of hundreds of disks.
pub const MOST: u64 = 64 << 10;

/// A tick of the numbers that `/proc` counts in them: USER_HZ is 100 for every program (time(7)).
pub const TICK_NS: u64 = 10_000_000;
pub const PAGE_BYTES: u64 = 4096;

/// The file's text, [`MOST`] bytes of it.
pub fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    read.context(|| format!("read {path:?}"))?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if bytes.len() as u64 == MOST {
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    }
    Ok(text)
}

/// The text of a file that a kernel may lack; empty without it.
pub fn read_optional(path: &Path) -> String {
    read(path).unwrap_or_default()
}

/// `NAME NUMBER` a line ("Flat keyed" of cgroup-v2, `/proc/vmstat`); what is none is passed over.
pub fn numbers(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, number) = line.split_once(' ')?;
        Some((name, number.trim().parse().ok()?))
    })
}

/// The number of that name; 0 where the kernel does not tell it.
pub fn number(text: &str, name: &str) -> u64 {
    numbers(text).find(|(known, _)| *known == name).map_or(0, |(_, number)| number)
}

/// A file of one number; none: `max`.
pub fn single(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number of a line `NAME: NUMBER [kB]` (proc_meminfo(5), proc_pid_status(5)); none: there is no such line.
pub fn labelled(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// proc_pid_stat(5).
pub struct ProcessStat<'a> {
    /// It may hold anything, parentheses too.
    pub name: &'a str,
    fields: Vec<&'a str>,
}

impl<'a> ProcessStat<'a> {
    pub fn parse(stat: &'a str) -> Option<Self> {
        let (_, rest) = stat.split_once('(')?;
        let (name, rest) = rest.rsplit_once(')')?;
        Some(Self { name, fields: rest.split_ascii_whitespace().collect() })
    }

    /// By its number in the manual, from the third on.
    pub fn field(&self, number: usize) -> Option<&'a str> {
        self.fields.get(number.checked_sub(3)?).copied()
    }

    pub fn number(&self, number: usize) -> Option<u64> {
        self.field(number)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        let text = "usage_usec 12\nnice\nbad x\n\nlast 18446744073709551615\n";
        assert_eq!(numbers(text).collect::<Vec<_>>(), [("usage_usec", 12), ("last", u64::MAX)]);
        assert_eq!((number(text, "usage_usec"), number(text, "none")), (12, 0));
    }

    #[test]
    fn a_processs_fields_come_after_its_name() {
        let number = |stat, number| ProcessStat::parse(stat)?.number(number);
        assert_eq!(number("1 (in it) S 0 1", 4), Some(0));
        assert_eq!(number("1 (in it) S 0 9", 5), Some(9));
        assert_eq!(number("1 (in it) S 0 9", 2), None);
        assert_eq!(number("", 5), None);
        assert_eq!(ProcessStat::parse("77 (a) (b c) S 1").unwrap().name, "a) (b c");
    }

    #[test]
    fn a_long_file_is_cut_at_a_line() {
        let path = std::env::temp_dir().join(format!("hyperstart-textfile-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcde\n".repeat(5000)).unwrap();
        let text = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.len() as u64 <= MOST && text.ends_with("e\n"));
        assert_eq!(read_optional(&path), "");
        assert!(read(&path).unwrap_err().message().contains("ENOENT"));
    }
}
