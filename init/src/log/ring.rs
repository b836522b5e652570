//! The last lines of the log, at running offsets: byte N is the same byte for everybody.
//!
//! Memory is taken as lines come. What goes for want of room goes in whole lines, so that the oldest byte begins one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::clock::rfc3339;
use crate::error::{Code, Error, Result};

/// Bytes that are kept.
pub const KEPT: usize = 64 << 10;
/// The longest line; what is longer is cut.
const LINE_MAX: usize = 4 << 10;

#[derive(Default)]
pub struct Ring {
    kept: RefCell<VecDeque<u8>>,
    end: Cell<u64>,
    grew: Notify,
}

/// A part of the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Of its first byte: higher than was asked for if that is no longer kept.
    pub offset: u64,
    pub data: Vec<u8>,
}

impl Ring {
    /// `line` ends with a newline, and has no other.
    pub fn push(&self, time_ns: u64, line: &str) {
        let message = line.trim_end_matches('\n');
        let message = message.get(..message.floor_char_boundary(LINE_MAX)).unwrap_or_default();
        let time = rfc3339(time_ns);
        let length = time.len() + 1 + message.len() + 1;
        let mut kept = self.kept.borrow_mut();
        while kept.len() + length > KEPT {
            while kept.pop_front().is_some_and(|byte| byte != b'\n') {}
        }
        make_room(&mut kept, length);
        kept.extend(time.bytes().chain(*b" ").chain(message.bytes()).chain(*b"\n"));
        self.end.set(self.end.get() + length as u64);
        drop(kept);
        self.grew.notify_waiters();
    }

    /// At most `most` bytes from `offset` on, be it none; OUT_OF_RANGE beyond the end.
    pub fn read(&self, offset: u64, most: usize) -> Result<Part> {
        let kept = self.kept.borrow();
        let end = self.end.get();
        let oldest = end.saturating_sub(kept.len() as u64);
        let offset = offset.max(oldest);
        let Some(left) = end.checked_sub(offset) else {
            let message = format!("read log at {offset}: it ends at {end}");
            return Err(Error::new(Code::OutOfRange, message));
        };
        let skipped = kept.len() - usize::try_from(left).unwrap_or(kept.len());
        let data = kept.iter().skip(skipped).take(most).copied().collect();
        Ok(Part { offset, data })
    }

    /// As [`Self::read`], once there is at least one byte.
    pub async fn wait_read(&self, offset: u64, most: usize) -> Result<Part> {
        loop {
            let grew = self.grew.notified();
            let part = self.read(offset, most)?;
            if !part.data.is_empty() {
                return Ok(part);
            }
            grew.await;
        }
    }
}

/// Twice as much each time, and never more than is kept at the most.
fn make_room(kept: &mut VecDeque<u8>, more: usize) {
    let wanted = kept.len() + more;
    if wanted > kept.capacity() {
        let capacity = (kept.capacity() * 2).clamp(wanted.max(1 << 10), KEPT);
        kept.reserve_exact(capacity - kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "1970-01-01T00:00:00.000000000Z ";

    fn text(part: &Part) -> &str {
        std::str::from_utf8(&part.data).unwrap()
    }

    #[test]
    fn a_byte_keeps_its_offset() {
        let ring = Ring::default();
        assert_eq!(ring.read(0, 10).unwrap(), Part { offset: 0, data: vec![] });
        ring.push(0, "warn: a\n");
        ring.push(0, "b\n");
        let all = format!("{TIME}warn: a\n{TIME}b\n");
        assert_eq!(text(&ring.read(0, KEPT).unwrap()), all);
        assert_eq!(text(&ring.read(31, 4).unwrap()), &all[31..35]);
        let end = all.len() as u64;
        assert_eq!(ring.read(end, 1).unwrap(), Part { offset: end, data: vec![] });
        let err = ring.read(end + 1, 1).unwrap_err();
        assert_eq!(err.code(), Code::OutOfRange);
        assert!(err.message().contains(&format!("ends at {end}")), "{err}");
        assert_eq!(ring.read(u64::MAX, 1).unwrap_err().code(), Code::OutOfRange);
    }

    #[test]
    fn the_oldest_lines_go_first_and_whole() {
        let ring = Ring::default();
        for number in 0..3000 {
            ring.push(0, &format!("line {number}\n"));
        }
        let part = ring.read(0, KEPT).unwrap();
        assert!(part.offset > 0 && part.data.len() <= KEPT && part.data.len() > KEPT - 64);
        assert!(text(&part).starts_with(&format!("{TIME}line ")), "begins a line");
        assert!(text(&part).ends_with("line 2999\n"));
        assert_eq!(ring.kept.borrow().capacity(), KEPT, "no more memory than that");
        assert_eq!(ring.read(part.offset, KEPT).unwrap(), part);
    }

    #[test]
    fn a_line_is_cut_at_a_character() {
        let ring = Ring::default();
        ring.push(0, &format!("x{}\n", "é".repeat(LINE_MAX)));
        let part = ring.read(0, KEPT).unwrap();
        assert_eq!(text(&part).len(), TIME.len() + LINE_MAX);
        ring.push(0, "next\n");
        assert!(text(&ring.read(0, KEPT).unwrap()).ends_with("next\n"));
    }
}
