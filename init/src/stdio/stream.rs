//! One end of a pipe or terminal, non-blocking, in the event loop.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, write};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Result;

/// The most that one read returns: what a pipe holds by default (pipe(7)).
const READ_MAX: usize = 64 * 1024;

pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    pub fn new(fd: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(AsyncFd::with_interest(fd, Interest::READABLE | Interest::WRITABLE)?))
    }

    pub async fn read(&self, max: usize) -> Result<Vec<u8>> {
        let mut data = Vec::with_capacity(max.clamp(1, READ_MAX));
        loop {
            let mut ready = self.0.readable().await?;
            match read(self.0.as_fd(), spare_capacity(&mut data)) {
                Ok(_) => return Ok(data),
                Err(Errno::IO) => return Ok(data), // a terminal whose last process is gone: pty(7)
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub async fn write_all(&self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let mut ready = self.0.writable().await?;
            match write(self.0.as_fd(), data) {
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
        Ok(tcsetwinsize(self.0.as_fd(), size)?)
    }
}
