//! Lines of a log: records are pieces of output as they came, and both streams' are mixed; a user asks for lines.
//!
//! A line is dated by the record in which it begins. Its pieces may have records of the other stream between them.

use crate::pod::output_log::{Record, Stream};

/// A part of a record: a line, or what the record has of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The line's number among those that are wanted.
    pub line: u64,
    /// The line begins with it.
    pub begins: bool,
    pub bytes: &'a [u8],
}

/// Takes records apart into lines, and leaves out those that begin outside of a time.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Milliseconds since 1970.
    since: Option<u64>,
    until: Option<u64>,
    stdout: Open,
    stderr: Open,
    /// Lines that were wanted so far.
    count: u64,
}

/// The line that a stream is in.
#[derive(Clone, Copy, Debug, Default)]
enum Open {
    #[default]
    None,
    Wanted(u64),
    Unwanted,
}

impl Lines {
    pub fn new(since: Option<u64>, until: Option<u64>) -> Lines {
        Lines { since, until, ..Lines::default() }
    }

    /// How many lines have begun that are wanted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The pieces of the lines that are wanted, in order. Records are given one after the other.
    pub fn of<'a>(&mut self, record: &'a Record) -> Vec<Piece<'a>> {
        let millis = record.unix_millis;
        let wanted = self.since.is_none_or(|since| millis >= since)
            && self.until.is_none_or(|until| millis <= until);
        let mut pieces = Vec::new();
        for bytes in record.bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = match record.stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            let begins = matches!(open, Open::None);
            if begins && wanted {
                *open = Open::Wanted(self.count);
                self.count += 1;
            } else if begins {
                *open = Open::Unwanted;
            }
            if let Open::Wanted(line) = *open {
                pieces.push(Piece { line, begins, bytes });
            }
            if bytes.ends_with(b"\n") {
                *open = Open::None;
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stream: Stream, unix_millis: u64, text: &str) -> Record {
        Record { stream, unix_millis, offset: 0, bytes: text.into() }
    }

    fn shown(lines: &mut Lines, record: &Record) -> Vec<(u64, bool, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        lines.of(record).iter().map(|p| (p.line, p.begins, text(p.bytes))).collect()
    }

    #[test]
    fn a_line_goes_on_over_records_of_the_other_stream() {
        let mut lines = Lines::default();
        let first = shown(&mut lines, &record(Stream::Stdout, 1, "a\nb"));
        assert_eq!(first, [(0, true, "a\n".into()), (1, true, "b".into())]);
        assert_eq!(shown(&mut lines, &record(Stream::Stderr, 2, "e\n")), [(2, true, "e\n".into())]);
        let rest = shown(&mut lines, &record(Stream::Stdout, 3, "c\nd\n"));
        assert_eq!(rest, [(1, false, "c\n".into()), (3, true, "d\n".into())]);
        assert_eq!(lines.count(), 4);
    }

    #[test]
    fn a_line_is_dated_by_its_beginning() {
        let mut lines = Lines::new(Some(2), Some(3));
        assert_eq!(shown(&mut lines, &record(Stream::Stdout, 1, "old\nhalf")), []);
        let rest = shown(&mut lines, &record(Stream::Stdout, 2, " old\nnew\n"));
        assert_eq!(rest, [(0, true, "new\n".into())]);
        assert_eq!(
            shown(&mut lines, &record(Stream::Stdout, 3, "last")),
            [(1, true, "last".into())]
        );
        let late = shown(&mut lines, &record(Stream::Stdout, 4, " line\nlate\n"));
        assert_eq!(late, [(1, false, " line\n".into())]);
    }
}
