//! One end of a pipe or terminal, non-blocking, in the event loop.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, write};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

use crate::error::Result;
use crate::sys::event;

/// The most that one read returns: what a pipe holds by default (pipe(7)).
const READ_MAX: usize = 64 * 1024;

pub struct Stream {
    fd: AsyncFd<OwnedFd>,
    read_to_end: Cell<bool>,
}

impl Stream {
    pub fn new(fd: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: event::register(fd)?, read_to_end: Cell::new(false) })
    }

    pub async fn read(&self, max: usize) -> Result<Vec<u8>> {
        let mut data = Vec::with_capacity(max.clamp(1, READ_MAX));
        loop {
            let mut ready = self.fd.readable().await?;
            match read(self.fd.as_fd(), spare_capacity(&mut data)) {
                // EIO is how a terminal ends whose last process is gone: pty(7).
                Ok(0) | Err(Errno::IO) => {
                    self.read_to_end.set(true);
                    return Ok(data);
                }
                Ok(_) => return Ok(data),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub fn is_read_to_end(&self) -> bool {
        self.read_to_end.get()
    }

    pub async fn write_all(&self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let mut ready = self.fd.writable().await?;
            match write(self.fd.as_fd(), data) {
                Ok(written) => data = data.get(written..).unwrap_or_default(),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    pub fn set_window_size(&self, columns: u16, rows: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.fd.as_fd(), size)?)
    }
}
