//! Tells a person how far a long step is. The library calls it, a front end decides what is seen.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What a step says on its way. Steps do not nest.
pub trait Progress {
    /// A step begins; `total` bytes are expected, 0 when nobody knows.
    fn begin(&self, step: &str, total: u64);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// The step is done.
    fn end(&self);
    /// Something that a person should know, and that does not stop the work.
    fn warn(&self, message: &str);
}

/// Says nothing; warnings are lost.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _step: &str, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn warn(&self, _message: &str) {}
}

/// One line on standard error, rewritten in place on a terminal; elsewhere only steps longer than 5 seconds speak.
#[derive(Debug)]
pub struct Terminal {
    state: Cell<State>,
    label: std::cell::RefCell<String>,
    is_terminal: bool,
    /// Who warns.
    program: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct State {
    total: u64,
    done: u64,
    started: Instant,
    /// When the next line is due.
    next: Instant,
    shown: bool,
}

const FIRST_LINE: Duration = Duration::from_millis(500);
const REDRAW: Duration = Duration::from_millis(100);
const LOG_LINE: Duration = Duration::from_secs(5);

impl Default for Terminal {
    fn default() -> Terminal {
        Terminal::new("image-builder")
    }
}

impl Terminal {
    pub fn new(program: &'static str) -> Terminal {
        let now = Instant::now();
        Terminal {
            state: Cell::new(State { total: 0, done: 0, started: now, next: now, shown: false }),
            label: std::cell::RefCell::default(),
            is_terminal: std::io::stderr().is_terminal(),
            program,
        }
    }

    fn print(&self, text: &str) {
        // a closed standard error stops no build
        std::io::stderr().write_all(text.as_bytes()).unwrap_or_default();
    }
}

impl Progress for Terminal {
    fn begin(&self, step: &str, total: u64) {
        let now = Instant::now();
        let first = if self.is_terminal { FIRST_LINE } else { LOG_LINE };
        self.state.set(State { total, done: 0, started: now, next: now + first, shown: false });
        *self.label.borrow_mut() = step.into();
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state.get();
        state.done = state.done.saturating_add(bytes);
        let now = Instant::now();
        if now >= state.next {
            let line = line(&self.label.borrow(), state.done, state.total, now - state.started);
            match self.is_terminal {
                true => self.print(&format!("\r\x1b[K{line}")),
                false => self.print(&format!("{line}\n")),
            }
            state.shown = true;
            state.next = now + if self.is_terminal { REDRAW } else { LOG_LINE };
        }
        self.state.set(state);
    }

    fn end(&self) {
        let state = self.state.get();
        if state.shown && self.is_terminal {
            self.print("\r\x1b[K");
        }
        self.state.set(State { shown: false, ..state });
    }

    fn warn(&self, message: &str) {
        let start = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.print(&format!("{start}{}: warning: {message}\n", self.program));
    }
}

impl Drop for Terminal {
    /// The line of a step that failed makes room for what is said about that.
    fn drop(&mut self) {
        self.end();
    }
}

fn line(step: &str, done: u64, total: u64, time: Duration) -> String {
    let rate = u64::try_from(u128::from(done) * 1000 / time.as_millis().max(1)).unwrap_or(u64::MAX);
    let so_far = match total {
        0 => size(done),
        _ => format!("{} of {} ({} %)", size(done), size(total), done.saturating_mul(100) / total),
    };
    format!("{step}: {so_far}, {}/s", size(rate))
}

/// A number of bytes for a person.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(["0 B", "1.5 KiB", "2.0 MiB"], [size(0), size(1536), size(2 << 20)]);
    }

    #[test]
    fn a_line_has_its_share_when_the_total_is_known() {
        let second = Duration::from_secs(1);
        assert_eq!(line("writing", 512, 1024, second), "writing: 512 B of 1.0 KiB (50 %), 512 B/s");
        assert_eq!(line("reading", 512, 0, second), "reading: 512 B, 512 B/s");
    }
}
