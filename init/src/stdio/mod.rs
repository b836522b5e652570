//! The standard streams of one process: three pipes, or one pseudo-terminal.
//!
//! Output goes through a bounded ring with a running offset, so that a reader that was away goes on where it was
//! ([`output`], [`ring`]). Nothing is dropped: a full ring leaves the pipe full, and that stops the writer.

mod counted;
mod end;
mod input;
mod output;
mod ring;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::config::Config;
use crate::error::{Code, Context, Error, Result};
pub use counted::Counted;
use end::End;
pub use input::Input;
pub use output::OutputState;
use output::Pump;
pub use output::{Chunk, Output, READ_MAX, reader_named};
pub use ring::{Reader, Start};

/// PID 1's ends.
pub struct Stdio {
    pub input: Input,
    stdout: Rc<Output>,
    stderr: Rc<Output>,
    terminal: Option<Rc<End>>,
    _pumps: [Option<Pump>; 2],
}

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Stdout,
    Stderr,
}

/// How much is buffered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    ring_bytes: usize,
    pipe_bytes: Option<u32>,
}

impl Sizes {
    pub fn of(config: &Config) -> Self {
        Self { ring_bytes: config.output_ring_bytes, pipe_bytes: config.pipe_bytes }
    }
}

/// The process's ends; all close-on-exec, the child puts them on 0, 1 and 2.
pub struct ChildStdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Stdio {
    pub fn pipes(sizes: Sizes) -> Result<(Self, ChildStdio)> {
        let (child_stdin, stdin) = pipe(sizes)?;
        let (stdout, child_stdout) = pipe(sizes)?;
        let (stderr, child_stderr) = pipe(sizes)?;
        let (stdout, out) = Output::new(Rc::new(End::pipe(stdout)?), sizes.ring_bytes);
        let (stderr, err) = Output::new(Rc::new(End::pipe(stderr)?), sizes.ring_bytes);
        let stdio = Self {
            input: Input::new(Rc::new(End::pipe(stdin)?)),
            stdout,
            stderr,
            terminal: None,
            _pumps: [Some(out), Some(err)],
        };
        let child = ChildStdio { stdin: child_stdin, stdout: child_stdout, stderr: child_stderr };
        Ok((stdio, child))
    }

    /// The master end of a terminal is stdin and stdout at once. stderr is at its end from the start: everything is on
    /// stdout.
    pub fn tty(master: OwnedFd, sizes: Sizes) -> Result<Self> {
        let master = Rc::new(End::terminal(master)?);
        let (stdout, out) = Output::new(Rc::clone(&master), sizes.ring_bytes);
        Ok(Self {
            input: Input::new(Rc::clone(&master)),
            stdout,
            stderr: Output::none(),
            terminal: Some(master),
            _pumps: [Some(out), None],
        })
    }

    pub fn output(&self, which: Which) -> &Rc<Output> {
        match which {
            Which::Stdout => &self.stdout,
            Which::Stderr => &self.stderr,
        }
    }

    /// After the process's exit: takes all that it has written.
    pub fn drain(&self) {
        self.stdout.drain();
        self.stderr.drain();
    }

    /// Whether a reader was told the end of both outputs, and none is behind.
    pub fn is_read_to_end(&self) -> bool {
        self.stdout.is_read_to_end() && self.stderr.is_read_to_end()
    }

    /// Whether a reader with a name of its own is, or was, at one of them.
    pub fn is_kept(&self) -> bool {
        self.stdout.is_kept() || self.stderr.is_kept()
    }

    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let terminal = self.terminal.as_ref();
        terminal
            .ok_or_else(|| Error::new(Code::Unavailable, "process has no terminal"))?
            .set_window_size(columns, rows)
            .context(|| format!("resize terminal to {columns}x{rows}"))
    }
}

/// The end to read, then the one to write.
fn pipe(sizes: Sizes) -> Result<(OwnedFd, OwnedFd)> {
    let ends = pipe2(OFlag::O_CLOEXEC).context(|| "make stdio pipe".to_owned())?;
    if let Some(bytes) = sizes.pipe_bytes {
        let wanted = FcntlArg::F_SETPIPE_SZ(bytes.try_into().unwrap_or(i32::MAX));
        fcntl(&ends.0, wanted).context(|| format!("make a stdio pipe of {bytes} bytes"))?;
    }
    Ok(ends)
}
