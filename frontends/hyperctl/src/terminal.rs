//! The user's terminal: raw while a container's tty is shown in it, as it was before on every way out.
//!
//! In raw mode the keys go to the container as they are (Ctrl-C is byte 3, which the container's own tty turns into a
//! signal), so nothing but [`RawMode`]'s drop may be relied on to bring the terminal back: errors, signals (which are
//! all caught, see `signals`) and panics unwind through it. Only SIGKILL does not.

use std::io::{self, IsTerminal as _};

use rustix::termios::{self, OptionalActions, Termios};

use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Result};

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// The size of the terminal that the output goes to, else of the one that the input comes from.
pub fn size() -> Option<Size> {
    let size = termios::tcgetwinsize(io::stdout())
        .or_else(|_| termios::tcgetwinsize(io::stdin()))
        .or_else(|_| termios::tcgetwinsize(io::stderr()))
        .ok()?;
    // A terminal that nobody has given a size says 0x0: then the container's tty keeps its own.
    (size.ws_col > 0 && size.ws_row > 0).then_some(Size { columns: size.ws_col, rows: size.ws_row })
}

/// Docker's rule: `-i -t` together need a terminal to read from, `-t` alone works in a script.
pub fn check_input(tty: bool, interactive: bool) -> Result<()> {
    if tty && interactive && !io::stdin().is_terminal() {
        return Err(Error::new("attach standard input: it is not a terminal")
            .hint("leave out -t to pipe data in, or -i if the command reads nothing"));
    }
    Ok(())
}

/// Standard input without line editing, echo and signal keys, until it is dropped.
pub struct RawMode {
    saved: Termios,
}

impl RawMode {
    pub fn enter() -> Result<RawMode> {
        let saved = termios::tcgetattr(io::stdin()).context(|| "read terminal mode".into())?;
        let mut raw = saved.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)
            .context(|| "set terminal mode".into())?;
        Ok(RawMode { saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Drain: what the container printed is printed under the mode it was printed for.
        if let Err(err) = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.saved) {
            crate::output::warn(format_args!("restore terminal mode: {err}"));
        }
    }
}
