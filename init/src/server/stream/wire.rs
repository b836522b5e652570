//! Frames on a vsock connection (`guest.proto`, "Streams"), with what is read ahead bounded by one buffer.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use hyperstart_protocol::stream::{Kind, MAX_STREAM_PAYLOAD, STREAM_HEADER, header, parse};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, writev};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::error::{Code, Error};
use crate::sys::event;

/// What is read ahead of a host that only says what it has taken.
const SMALL: usize = 1 << 10;
/// What is read ahead of one that sends.
const LARGE: usize = 16 << 10;
/// How long a peer may owe a word before it is doubted.
const DOUBT: Duration = Duration::from_secs(2);
/// The bytes that the kernel buffers for a vsock: af_vsock.c, VSOCK_DEFAULT_BUFFER_SIZE.
const CREDIT: u64 = 256 << 10;
/// How often a peer is looked for that is neither read from nor written to.
const LOOK: Duration = Duration::from_secs(1);

/// Why a stream is over before its end.
#[derive(Debug)]
pub enum Stop {
    /// Nobody is at the other end any more.
    Gone,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(err: Error) -> Self {
        Self::Failed(err)
    }
}

impl From<std::io::Error> for Stop {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

pub fn bad(what: String) -> Stop {
    Stop::Failed(Error::new(Code::InvalidArgument, what))
}

pub struct Wire {
    fd: AsyncFd<OwnedFd>,
    /// The peer has not said yet that it has all that was sent.
    owes: Cell<bool>,
    wrote: Notify,
    probes: Cell<u64>,
}

impl Wire {
    pub fn new(connection: OwnedFd) -> std::io::Result<Self> {
        let fd = event::register(connection)?;
        Ok(Self { fd, owes: Cell::new(false), wrote: Notify::new(), probes: Cell::new(0) })
    }

    /// Whether the peer is to say something about what was sent.
    pub fn set_owes(&self, owes: bool) {
        self.owes.set(owes);
    }

    /// Waits for something to read, and looks now and then whether a peer that owes a word is there at all: a
    /// vhost-device-vsock whose client is killed with bytes unread fails to say so, until the guest tells it its credit.
    async fn readable(&self) -> Result<AsyncFdReadyGuard<'_, OwnedFd>, Stop> {
        loop {
            tokio::select! {
                biased;
                ready = self.fd.readable() => return Ok(ready?),
                () = self.doubt() => {
                    let probe = self.probes.get();
                    self.probes.set(probe + 1);
                    let credit = CREDIT - (probe % 2) * 4096; // to say the same again says nothing
                    event::tell_credit(self.fd.as_fd(), credit)?;
                }
            }
        }
    }

    async fn doubt(&self) {
        loop {
            let wrote = self.wrote.notified();
            if self.owes.get() {
                return sleep(DOUBT).await;
            }
            wrote.await;
        }
    }

    /// Waits until it takes some of what `write` gives it, and says how much.
    pub async fn write_some(
        &self,
        mut write: impl FnMut(&AsyncFd<OwnedFd>) -> rustix::io::Result<usize>,
    ) -> Result<usize, Stop> {
        loop {
            let mut ready = self.fd.writable().await?;
            match write(&self.fd) {
                Ok(count) => {
                    self.owes.set(true);
                    self.wrote.notify_waiters();
                    return Ok(count);
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// A frame with a payload that a write takes whole; no other may be half written.
    pub async fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), Stop> {
        let header = header(kind, payload.len());
        let mut sent = 0;
        while sent < header.len() + payload.len() {
            sent += self
                .write_some(|fd| {
                    let rest = payload.get(sent.saturating_sub(header.len())..);
                    let pieces = [header.get(sent..), rest].map(Option::unwrap_or_default);
                    writev(fd.as_fd(), &pieces.map(IoSlice::new))
                })
                .await?;
        }
        Ok(())
    }

    /// Waits until nobody is at the other end, without reading what they have sent.
    pub async fn hung_up(&self) {
        while let Ok(state) = self.fd.ready(Interest::READABLE).await {
            if state.ready().is_read_closed() {
                return;
            }
            sleep(LOOK).await; // what they have sent is not to be read yet
        }
    }
}

/// What comes in.
pub struct Incoming<'a> {
    wire: &'a Wire,
    buffer: Vec<u8>,
    /// What of it was used.
    used: usize,
}

impl<'a> Incoming<'a> {
    pub fn new(wire: &'a Wire) -> Self {
        Self { wire, buffer: Vec::with_capacity(SMALL), used: 0 }
    }

    /// Makes room for a host that sends more than a word.
    pub fn enlarge(&mut self) {
        self.buffer.reserve_exact(LARGE - self.buffer.len());
    }

    fn unused(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    /// Reads more, at least a byte.
    async fn fill(&mut self) -> Result<(), Stop> {
        self.buffer.drain(..self.used);
        self.used = 0;
        if self.buffer.len() == self.buffer.capacity() {
            return Err(bad(format!("a frame of more than {} bytes", self.buffer.len())));
        }
        loop {
            let mut ready = self.wire.readable().await?;
            match read(self.wire.fd.as_fd(), spare_capacity(&mut self.buffer)) {
                Ok(0) => return Err(Stop::Gone),
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// The next frame's kind and the length of its payload.
    pub async fn header(&mut self) -> Result<(u8, usize), Stop> {
        loop {
            if let Some((header, _)) = self.unused().split_first_chunk::<STREAM_HEADER>() {
                let (kind, length) = parse(*header);
                if length > MAX_STREAM_PAYLOAD {
                    return Err(bad(format!("a frame of {length} bytes")));
                }
                self.used += STREAM_HEADER;
                return Ok((kind, length));
            }
            self.fill().await?;
        }
    }

    /// A payload as a whole.
    pub async fn payload(&mut self, length: usize) -> Result<&[u8], Stop> {
        while self.unused().len() < length {
            self.fill().await?;
        }
        let from = self.used;
        self.used += length;
        Ok(self.buffer.get(from..self.used).unwrap_or_default())
    }

    /// Some of a payload of which `rest` bytes are left.
    pub async fn piece(&mut self, rest: usize) -> Result<&[u8], Stop> {
        if self.unused().is_empty() {
            self.fill().await?;
        }
        let from = self.used;
        self.used += self.unused().len().min(rest);
        Ok(self.buffer.get(from..self.used).unwrap_or_default())
    }

    /// Reads until nobody is there.
    pub async fn discard(&mut self) {
        self.used = self.buffer.len();
        while self.fill().await.is_ok() {
            self.used = self.buffer.len();
        }
    }
}
