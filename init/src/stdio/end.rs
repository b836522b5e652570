//! One end of a pipe or terminal, non-blocking, in the event loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, write};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

use crate::error::{Code, Error, Result};
use crate::sys::event;

/// More than a terminal holds of what its processes wrote: 4 KiB of the line discipline, 8 KiB in flip buffers
/// (`pty_common_install` in the kernel's pty.c) and one buffer on top.
const TERMINAL_HOLDS: usize = 32 << 10;

/// As large as a ring may be. A container with CAP_SYS_RESOURCE can make its pipe hold 2 GiB (F_SETPIPE_SZ); what is beyond
/// this is read as there is room, since the memory is PID 1's.
const PIPE_HOLDS: usize = 16 << 20;

pub struct End {
    fd: AsyncFd<OwnedFd>,
    is_terminal: bool,
}

/// What a read that does not wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// So many; and whether there may be more at once.
    Bytes { count: usize, more: bool },
    /// Not now.
    Nothing,
    /// The last writer is gone, and all that it wrote was read.
    End,
    /// The same of a terminal, which a process that has it as its controlling one may open again.
    Left,
}

impl End {
    pub fn pipe(fd: OwnedFd) -> Result<Self> {
        Self::new(fd, false)
    }

    pub fn terminal(fd: OwnedFd) -> Result<Self> {
        Self::new(fd, true)
    }

    fn new(fd: OwnedFd, is_terminal: bool) -> Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: event::register(fd)?, is_terminal })
    }

    /// The most that it holds of what was written to its other end, as far as that is to be read at once.
    pub fn holds(&self) -> usize {
        if self.is_terminal {
            return TERMINAL_HOLDS;
        }
        let size = fcntl(self.as_fd(), FcntlArg::F_GETPIPE_SZ).ok();
        let size = size.and_then(|size| usize::try_from(size).ok());
        size.unwrap_or(64 << 10).min(PIPE_HOLDS) // the kernel's default: pipe(7)
    }

    /// Waits until there may be something, and has it read, by [`Self::read`].
    pub async fn when_readable(&self, read: impl FnOnce() -> Result<Got>) -> Result<Got> {
        let mut ready = self.fd.readable().await?;
        let got = read()?;
        match got {
            Got::Nothing | Got::Bytes { more: false, .. } => ready.clear_ready(),
            Got::Bytes { more: true, .. } | Got::End | Got::Left => {}
        }
        Ok(got)
    }

    /// Fills what is spare in `buffer`, as far as there is something. A terminal has handed on all that its processes
    /// wrote once it has nothing (n_tty_read() flushes its buffers before it says so).
    pub fn read(&self, buffer: &mut Vec<u8>) -> Result<Got> {
        let spare = buffer.capacity() - buffer.len();
        loop {
            match read(self.as_fd(), spare_capacity(buffer)) {
                Ok(0) => return Ok(Got::End),
                Err(Errno::IO) => return Ok(Got::Left), // nobody has the slave open: pty(7)
                // A pipe that gives less than was asked for is empty; epoll(7) tells of the next byte.
                Ok(count) => {
                    return Ok(Got::Bytes { count, more: count == spare || self.is_terminal });
                }
                Err(Errno::AGAIN) => return Ok(Got::Nothing),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until it takes some of `data`, and says how much.
    pub async fn write(&self, data: &[u8]) -> Result<usize> {
        loop {
            let mut ready = self.fd.writable().await?;
            match write(self.as_fd(), data) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => {
                    return Err(Error::new(Code::FailedPrecondition, "EPIPE: nobody reads it"));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub fn set_window_size(&self, columns: u16, rows: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.as_fd(), size)?)
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
