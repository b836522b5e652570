//! An output as a stream: DATA from the ring, as it is; TAKEN moves the reader on.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use hyperstart_protocol::MAX_VSOCK_WRITE;
use hyperstart_protocol::stream::{Kind, STREAM_HEADER, header};
use rustix::io::{Errno, writev};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::wide::Wide;
use super::wire::{Incoming, Stop, Wire, bad};
use super::{PATIENCE, Subject, opened};
use crate::error::{Code, Error};
use crate::stdio::{Output, Reader, Start, Which};

/// The payload of a frame that is one write.
const PAYLOAD: usize = MAX_VSOCK_WRITE - STREAM_HEADER;
/// The pieces of a write: the header, and those of the ring.
const PIECES: usize = 8;

pub async fn send(
    wire: &Wire,
    incoming: &mut Incoming<'_>,
    subject: &Subject<'_>,
    which: Which,
    reader: Reader,
    start: Start,
) -> Result<(), Stop> {
    let output = Rc::clone(subject.process.stdio.output(which));
    let offset = output.attach(&reader, start)?;
    let wide = Wide::of(Rc::clone(&output), subject.wide);
    let attached = Attached { output, reader, wide };
    opened(wire, offset).await?;
    let giving = Giving {
        wire,
        output: &attached.output,
        wide: &attached.wide,
        frame: Cell::new(Frame::at(offset)),
    };
    let result = tokio::select! {
        result = take(incoming, &attached, &giving, subject) => result,
        result = giving.run() => result,
    };
    if let Err(Stop::Failed(err)) = result {
        // What comes next must be a frame.
        return match timeout(PATIENCE, giving.finish_frame()).await {
            Ok(Ok(())) => Err(Stop::Failed(err)),
            Ok(Err(_)) | Err(_) => Err(Stop::Gone),
        };
    }
    result
}

/// A reader without a name lasts as long as its connection.
struct Attached {
    output: Rc<Output>,
    reader: Reader,
    wide: Wide,
}

impl Drop for Attached {
    fn drop(&mut self) {
        if matches!(self.reader, Reader::Connection(_)) {
            self.output.release(&self.reader);
        }
    }
}

/// Hears what the host has taken, until it hangs up.
async fn take(
    incoming: &mut Incoming<'_>,
    attached: &Attached,
    giving: &Giving<'_>,
    subject: &Subject<'_>,
) -> Result<(), Stop> {
    loop {
        let (kind, length) = attached.wide.while_used(incoming).await?;
        if kind != Kind::Taken as u8 {
            return Err(bad(format!("a frame of kind {kind} in an output's stream")));
        }
        let payload = incoming.payload(length).await?;
        let offset = payload.try_into().map_err(|_err| bad(format!("TAKEN of {length} bytes")))?;
        let (offset, (sent, _)) = (u64::from_be_bytes(offset), giving.frame.get().rest());
        if offset > sent {
            let message = format!("TAKEN {offset}, where {sent} was sent");
            return Err(Stop::Failed(Error::new(Code::OutOfRange, message)));
        }
        attached.wide.widen_if_full();
        attached.output.taken(&attached.reader, offset)?;
        giving.wire.set_owes(offset < sent);
        if giving.has_told_end() && offset == sent {
            attached.output.told_end();
            subject.sandbox.forget_if_done(&subject.id, subject.exec_id.as_ref(), &subject.process);
        }
    }
}

/// A frame on its way.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    /// Of its payload's first byte.
    offset: u64,
    payload: usize,
    /// How much of header and payload is written.
    sent: usize,
}

impl Frame {
    /// None: what comes next is at the offset.
    fn at(offset: u64) -> Self {
        Self { kind: Kind::Data, offset, payload: 0, sent: STREAM_HEADER }
    }

    /// Where the rest of its payload begins, and how long it is.
    fn rest(self) -> (u64, usize) {
        let done = self.sent.saturating_sub(STREAM_HEADER);
        (self.offset + done as u64, self.payload - done)
    }

    fn is_sent(self) -> bool {
        self.sent == STREAM_HEADER + self.payload
    }
}

struct Giving<'a> {
    wire: &'a Wire,
    output: &'a Output,
    wide: &'a Wide,
    frame: Cell<Frame>,
}

impl Giving<'_> {
    async fn run(&self) -> Result<(), Stop> {
        loop {
            let offset = self.frame.get().offset;
            let most = self.output.wait_at(offset).await?;
            let Some(mut most) = most else { break };
            if most < PAYLOAD && self.wide.is_wide() {
                yield_now().await; // there may be more, and a write costs more than a turn
                most = self.output.wait_at(offset).await?.unwrap_or(most);
            }
            self.frame.set(Frame {
                kind: Kind::Data,
                offset,
                payload: self.fits(offset, most),
                sent: 0,
            });
            self.finish_frame().await?;
        }
        let offset = self.frame.get().offset;
        self.frame.set(Frame { kind: Kind::End, offset, payload: 0, sent: 0 });
        self.finish_frame().await?;
        std::future::pending().await // until the host hangs up
    }

    fn has_told_end(&self) -> bool {
        let frame = self.frame.get();
        frame.kind == Kind::End && frame.is_sent()
    }

    /// How much of what is there goes into one write.
    fn fits(&self, offset: u64, most: usize) -> usize {
        let held = self
            .output
            .with_pieces(offset, |pieces| pieces.take(PIECES - 1).map(<[u8]>::len).sum::<usize>());
        held.unwrap_or_default().min(most).min(PAYLOAD)
    }

    /// Writes the rest of the frame. It may be given up and be begun again at any point.
    async fn finish_frame(&self) -> Result<(), Stop> {
        while !self.frame.get().is_sent() {
            let mut frame = self.frame.get();
            frame.sent += self
                .wire
                .write_some(|fd| {
                    let header = header(frame.kind, frame.payload);
                    let header = header.get(frame.sent..).unwrap_or_default();
                    let (from, rest) = frame.rest();
                    let write = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                        write_frame(fd.as_fd(), header, rest, pieces)
                    };
                    // What the frame still has to say is kept, unless its reader has said that it has it by another way.
                    self.output.with_pieces(from, write).unwrap_or(Err(Errno::PIPE))
                })
                .await?;
            self.frame.set(frame);
        }
        let frame = self.frame.get();
        if frame.kind == Kind::Data {
            self.frame.set(Frame::at(frame.offset + frame.payload as u64));
        }
        Ok(())
    }
}

/// One write of a header, or what is left of it, and `rest` bytes behind it.
fn write_frame(
    fd: BorrowedFd<'_>,
    header: &[u8],
    mut rest: usize,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> rustix::io::Result<usize> {
    let mut vector = [IoSlice::new(header); PIECES];
    let mut used = 1;
    for (place, piece) in vector.iter_mut().skip(1).zip(pieces) {
        let piece = piece.get(..rest).unwrap_or(piece);
        *place = IoSlice::new(piece);
        rest -= piece.len();
        used += 1;
    }
    writev(fd, vector.get(..used).unwrap_or_default())
}
