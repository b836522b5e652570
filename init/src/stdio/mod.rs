//! The standard streams of one process: three pipes, or one pseudo-terminal.
//!
//! The kernel's pipe is the buffer: a reader that stops reading stops the writer as a full pipe does, and nothing is
//! dropped. End-of-file is what the kernel says it is: the last writer is gone. A read waits for at least one byte.

mod stream;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::{Code, Context, Error, Result};
use stream::Stream;

/// PID 1's ends.
pub struct Stdio {
    stdin: RefCell<Option<Rc<Stream>>>,
    stdout: Rc<Stream>,
    stderr: Option<Rc<Stream>>, // a terminal has none of its own
}

/// What a process writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// The process's ends; all close-on-exec, the child puts them on 0, 1 and 2.
pub struct ChildStdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Stdio {
    pub fn pipes() -> Result<(Self, ChildStdio)> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context(|| "make stdio pipe".to_owned());
        let (child_stdin, stdin) = pipe()?;
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let stdio = Self {
            stdin: RefCell::new(Some(Rc::new(Stream::new(stdin)?))),
            stdout: Rc::new(Stream::new(stdout)?),
            stderr: Some(Rc::new(Stream::new(stderr)?)),
        };
        let child = ChildStdio { stdin: child_stdin, stdout: child_stdout, stderr: child_stderr };
        Ok((stdio, child))
    }

    /// The master end of a terminal is stdin and stdout at once.
    pub fn tty(master: OwnedFd) -> Result<Self> {
        let master = Rc::new(Stream::new(master)?);
        Ok(Self { stdin: RefCell::new(Some(Rc::clone(&master))), stdout: master, stderr: None })
    }

    fn is_tty(&self) -> bool {
        self.stderr.is_none()
    }

    /// Waits for at least one byte and returns at most `max`; empty is end-of-file. With a terminal everything is on
    /// stdout, so stderr is at its end from the start.
    pub async fn read(&self, output: Output, max: usize) -> Result<Vec<u8>> {
        let (name, stream) = match output {
            Output::Stdout => ("stdout", Some(&self.stdout)),
            Output::Stderr => ("stderr", self.stderr.as_ref()),
        };
        match stream {
            Some(stream) => stream.read(max).await.context(|| format!("read {name}")),
            None => Ok(Vec::new()),
        }
    }

    /// True once the reader was told the end of both streams: there is nothing more to read.
    pub fn is_read_to_end(&self) -> bool {
        self.stdout.is_read_to_end()
            && self.stderr.as_ref().is_none_or(|stderr| stderr.is_read_to_end())
    }

    /// Writes all of `data`, waiting while the pipe is full.
    pub async fn write_stdin(&self, data: &[u8]) -> Result<()> {
        let stdin = self.stdin.borrow().clone();
        let stdin = stdin.ok_or_else(|| Error::new(Code::FailedPrecondition, "stdin is closed"))?;
        stdin.write_all(data).await.context(|| "write stdin".to_owned())
    }

    /// The process reads end-of-file once it has read what was written. A terminal's input has no end: its line
    /// discipline makes one from the VEOF character (termios(3)), so there this only refuses further input.
    pub fn close_stdin(&self) {
        self.stdin.borrow_mut().take();
    }

    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        if !self.is_tty() {
            return Err(Error::new(Code::Unavailable, "process has no terminal"));
        }
        self.stdout
            .set_window_size(columns, rows)
            .context(|| format!("resize terminal to {columns}x{rows}"))
    }
}
