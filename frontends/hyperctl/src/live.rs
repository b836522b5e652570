//! A text that is shown again and again: drawn over in place on a terminal, one after the other elsewhere.
//!
//! Nothing of the terminal is changed but the lines that the text has, so there is nothing to bring back when we are
//! interrupted; the text stays, and the prompt comes below it.

use std::io::{self, IsTerminal as _};

use crate::error::Result;
use crate::output;
use crate::terminal;

pub struct Screen {
    is_terminal: bool,
    /// Lines of the text that is shown now.
    drawn: usize,
}

impl Screen {
    pub fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal(), drawn: 0 }
    }

    /// How many columns there are; `None` where nobody looks.
    pub fn columns(&self) -> Option<usize> {
        let size = terminal::size().filter(|_| self.is_terminal)?;
        Some(usize::from(size.columns))
    }

    /// Shows `text` in the place of the one before.
    pub fn show(&mut self, text: &str) -> Result<()> {
        if !self.is_terminal {
            return output::print(text);
        }
        // More than fits cannot be drawn over.
        let (columns, rows) = terminal::size()
            .map_or((usize::MAX, usize::MAX), |size| (size.columns.into(), size.rows.into()));
        let (frame, drawn) = frame(text, self.drawn, columns, rows);
        self.drawn = drawn;
        output::print(frame)
    }
}

/// What draws `text` over `drawn` lines above the cursor, and how many lines it has.
fn frame(text: &str, drawn: usize, columns: usize, rows: usize) -> (String, usize) {
    let mut frame = match drawn {
        0 => String::new(),
        _ => format!("\x1b[{drawn}A"),
    };
    let mut lines = 0;
    for line in text.lines().take(rows.saturating_sub(1)) {
        frame.extend(line.chars().take(columns));
        frame.push_str("\x1b[K\n"); // the rest of the line is erased
        lines += 1;
    }
    frame.push_str("\x1b[J"); // and what is below
    (frame, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_drawn_over_the_one_before_and_fits() {
        assert_eq!(frame("ab\ncd\n", 0, 80, 24), ("ab\x1b[K\ncd\x1b[K\n\x1b[J".into(), 2));
        assert_eq!(frame("x\n", 2, 80, 24), ("\x1b[2Ax\x1b[K\n\x1b[J".into(), 1));
        assert_eq!(frame("abc\nd\ne\n", 0, 2, 3), ("ab\x1b[K\nd\x1b[K\n\x1b[J".into(), 2));
    }
}
