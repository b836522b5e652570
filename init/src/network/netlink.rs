//! One rtnetlink(7) socket in the event loop: a request and its acknowledgement, or a dump.
//!
//! The socket is connected to the kernel, so that no process can answer in its place. The kernel does most requests
//! while they are sent; what it does later is awaited, and for a bounded time. One request is under way at a time, and
//! an answer that comes after its time is known by its sequence number and passed over.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{DefaultNla, Emitable};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::message::{self, Message};
use crate::error::{Context, Result};
use crate::sys::event;

/// How long the kernel may take to answer one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// As the kernel fills one part of a dump (netlink_dump()); no single answer is larger.
const PART_BYTES: usize = 32 << 10;
/// A dump at the most: a table that a container has filled must not fill PID 1.
const DUMP_BYTES_MAX: usize = 2 << 20;
/// How often a dump is begun again because its table changed under it.
const TRIES: usize = 10;

pub struct Netlink {
    socket: AsyncFd<OwnedFd>,
    sequence: u32,
}

/// A message to the kernel, but for its sequence number.
pub struct Request(Vec<u8>);

impl Request {
    /// A change, which the kernel acknowledges. `flags` are those beside NLM_F_REQUEST and NLM_F_ACK.
    pub fn change(kind: u16, flags: i32, header: &dyn Emitable, attributes: &[DefaultNla]) -> Self {
        Self::new(kind, flags | libc::NLM_F_ACK, header, attributes)
    }

    /// A question for all that a table has.
    pub fn dump(kind: u16, header: &dyn Emitable) -> Self {
        Self::new(kind, libc::NLM_F_DUMP, header, &[])
    }

    fn new(kind: u16, flags: i32, header: &dyn Emitable, attributes: &[DefaultNla]) -> Self {
        let start = message::HEADER_BYTES + header.buffer_len();
        let length = start + attributes.buffer_len();
        let mut bytes = vec![0; length];
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or_default();
        message::put_header(&mut bytes, kind, flags);
        if let Some(rest) = bytes.get_mut(message::HEADER_BYTES..start) {
            header.emit(rest);
        }
        if let Some(rest) = bytes.get_mut(start..) {
            attributes.emit(rest);
        }
        Self(bytes)
    }
}

/// The crate has a type for each kind of attribute too: with those PID 1 is 136 KiB larger, mostly for kinds of links and
/// tunnels that are never written here.
pub fn attribute(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

impl Netlink {
    pub fn open() -> Result<Self> {
        let operation = || "open the rtnetlink socket".to_owned();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkRoute;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).context(operation)?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context(operation)?;
        Ok(Self { socket: event::register(socket)?, sequence: 0 })
    }

    /// Has the kernel make a change; the error is the kernel's own, or ETIMEDOUT.
    pub async fn change(&mut self, request: &Request) -> Result<(), Errno> {
        let sequence = self.send(request)?;
        let deadline = Instant::now() + DEADLINE;
        let mut part = vec![0; 4096]; // an acknowledgement has the request in it
        loop {
            let length = self.receive(&mut part, deadline).await?;
            let answer = part.get(..length).unwrap_or_default();
            for message in message::messages(answer).filter(|found| found.sequence == sequence) {
                if let Message::Error(errno) = message.what() {
                    return errno.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// All messages of a dump, as [`message::messages`] reads them: of one moment, however the table changes.
    pub async fn dump(&mut self, request: &Request) -> Result<Vec<u8>, Errno> {
        for _ in 0..TRIES {
            if let Some(bytes) = self.try_dump(request).await? {
                return Ok(bytes);
            }
            tokio::task::yield_now().await; // whoever changes the table may come to an end
        }
        Err(Errno::EBUSY)
    }

    /// None: the table changed meanwhile.
    async fn try_dump(&mut self, request: &Request) -> Result<Option<Vec<u8>>, Errno> {
        let sequence = self.send(request)?;
        let deadline = Instant::now() + DEADLINE;
        let (mut bytes, mut part) = (Vec::new(), vec![0; PART_BYTES]);
        let mut changed = false;
        loop {
            let length = self.receive(&mut part, deadline).await?;
            let answer = part.get(..length).unwrap_or_default();
            let mut belongs = false;
            for message in message::messages(answer).filter(|found| found.sequence == sequence) {
                changed |= message.is_interrupted();
                match message.what() {
                    Message::Error(errno) => return Err(errno.unwrap_or(Errno::EPROTO)),
                    Message::Done => {
                        bytes.extend_from_slice(if belongs { answer } else { &[] });
                        return Ok((!changed).then_some(bytes));
                    }
                    Message::Entry => belongs = true,
                }
            }
            if bytes.len() + length > DUMP_BYTES_MAX {
                return Err(Errno::ENOSPC);
            }
            bytes.extend_from_slice(if belongs { answer } else { &[] });
        }
    }

    fn send(&mut self, request: &Request) -> Result<u32, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = request.0.clone();
        message::put_sequence(&mut bytes, self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    /// One datagram, whole.
    async fn receive(&self, part: &mut [u8], deadline: Instant) -> Result<usize, Errno> {
        loop {
            let readable = timeout_at(deadline, self.socket.readable());
            let mut ready = readable.await.map_err(|_elapsed| Errno::ETIMEDOUT)?.map_err(errno)?;
            let received =
                ready.try_io(|socket| Ok(recv(socket.as_raw_fd(), part, MsgFlags::MSG_TRUNC)?));
            match received {
                Ok(Ok(length)) if length > part.len() => return Err(Errno::EMSGSIZE),
                Ok(Ok(length)) => return Ok(length),
                Ok(Err(err)) if err.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(err)) => return Err(errno(err)),
                Err(_would_block) => {}
            }
        }
    }
}

fn errno(err: io::Error) -> Errno {
    err.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
