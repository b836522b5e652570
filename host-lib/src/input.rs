//! A process's input by offset: what was sent before a connection was lost may be sent again, and is taken once.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use hyperstart_protocol::guest::{StreamOpen, WriteInputRequest, stream_open::Which};
use hyperstart_protocol::stream::Kind;

use crate::connection::UNBOUNDED;
use crate::error::{Cause, Error, Result};
use crate::output::OFFSETS;
use crate::process::Process;
use crate::streams::{self, Frames, OFFSET_MAX, out_of_turn};

const OPERATION: &str = "write stdin of process";

/// The most that a request carries.
const REQUEST: usize = 64 << 10;
/// The most that a frame carries: what a vsock device takes in one piece.
const FRAME: usize = 16 << 10;

/// Writes to a process's standard input, and knows how much of it was taken: from [`Process::input`].
///
/// After a lost connection open another one: [`InputWriter::offset`] says from where to go on. A future that is
/// dropped may have sent some of its bytes: then open another one too.
pub struct InputWriter {
    process: Process,
    way: Way,
    offset: u64,
}

enum Way {
    Frames(Frames),
    Requests,
}

impl Process {
    /// Writes to its standard input at an offset, and says how much that has taken in all. What it took before is
    /// skipped, so the same may be sent again; to close it again is no error. Takes a guest with the capability
    /// `output-offsets`.
    ///
    /// # Errors
    /// [`Code::OutOfRange`](crate::Code::OutOfRange): there is a gap before it.
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition): it is closed.
    /// [`Code::NotFound`](crate::Code::NotFound): no such process.
    pub async fn write_input(&self, offset: u64, bytes: &[u8], close: bool) -> Result<u64> {
        let request = WriteInputRequest {
            container_id: self.wire_container(),
            exec_id: self.wire_id(),
            offset,
            data: bytes.to_vec(),
            close,
            ..Default::default()
        };
        let call = self.connection().guest_within(UNBOUNDED, |guest, context| async move {
            guest.write_input(context, &request).await
        });
        Ok(call.await.map_err(Cause::of("write input of process", self))?.offset)
    }

    /// Opens its standard input. `offset` is how much the caller knows to be taken: the guest says whether it is more.
    ///
    /// # Errors
    /// [`Code::OutOfRange`](crate::Code::OutOfRange): the process has taken less than `offset`.
    /// [`Code::NotFound`](crate::Code::NotFound): no such process.
    /// [`Code::Unimplemented`](crate::Code::Unimplemented): the guest keeps no offsets, as a plain kata-agent; [`Process::stdin`] writes to it.
    pub async fn input(&self, offset: u64) -> Result<InputWriter> {
        let of = || Cause::of(OPERATION, self);
        let connection = self.connection();
        if !connection.can(OFFSETS).await.map_err(of())? {
            return Err(of()(Cause::lacks(OFFSETS)));
        }
        let (way, taken) = match streams::address(connection).await.map_err(of())? {
            Some(address) => {
                let open = StreamOpen {
                    container_id: self.wire_container(),
                    exec_id: self.wire_id(),
                    stream: Which::STDIN_STREAM.into(),
                    offset,
                    ..Default::default()
                };
                let (frames, taken) = Frames::open(&address, &open).await.map_err(of())?;
                (Way::Frames(frames), taken)
            }
            None => (Way::Requests, write(self, offset, &[], false).await?),
        };
        if taken < offset || taken > OFFSET_MAX {
            return Err(Error::nonsense(OPERATION, self, format_args!("offset {taken}")));
        }
        Ok(InputWriter { process: self.clone(), way, offset: taken })
    }
}

impl InputWriter {
    /// How many bytes the process's input has taken, as far as is known here.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes all of `data` behind what was taken, and waits until it is taken: for as long as the process does not
    /// read.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition): the input is closed, or nobody reads it.
    /// [`Code::Unavailable`](crate::Code::Unavailable): the connection was lost.
    pub async fn write(&mut self, data: &[u8]) -> Result<()> {
        match &mut self.way {
            Way::Requests => {
                for piece in data.chunks(REQUEST) {
                    write(&self.process, self.offset, piece, false).await?;
                    self.offset += piece.len() as u64; // others may have written more
                }
                Ok(())
            }
            Way::Frames(frames) => {
                let end = self.offset + data.len() as u64;
                let mut pieces = data.chunks(FRAME);
                let done = poll_fn(|cx| poll_write(frames, cx, &mut pieces, &mut self.offset, end));
                done.await.map_err(Cause::of(OPERATION, &self.process))
            }
        }
    }

    /// Closes the input: the process reads the end of file. Nothing can be written by anybody any more.
    ///
    /// # Errors
    /// As [`InputWriter::write`]. To close it again is none.
    pub async fn close(mut self) -> Result<()> {
        match &mut self.way {
            Way::Requests => write(&self.process, self.offset, &[], true).await.map(drop),
            Way::Frames(frames) => {
                frames.queue(Kind::End, &[]);
                let closed = poll_fn(|cx| {
                    ready!(frames.poll_flush(cx))?;
                    poll_taken(frames, cx)
                });
                closed.await.map(drop).map_err(Cause::of(OPERATION, &self.process))
            }
        }
    }
}

/// Sends the pieces while the guest says how much is taken, until that is `end`.
fn poll_write<'a>(
    frames: &mut Frames,
    cx: &mut Context<'_>,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
    taken: &mut u64,
    end: u64,
) -> Poll<Result<(), Cause>> {
    while frames.poll_flush(cx)?.is_ready() {
        let Some(piece) = pieces.next() else { break };
        frames.queue(Kind::Data, piece);
    }
    while *taken < end {
        *taken = ready!(poll_taken(frames, cx))?;
        if *taken > end {
            return Poll::Ready(Err(Cause::nonsense(&format!("that it has taken {taken} bytes"))));
        }
    }
    Poll::Ready(Ok(()))
}

/// Waits for the guest's next word on how much is taken.
fn poll_taken(frames: &mut Frames, cx: &mut Context<'_>) -> Poll<Result<u64, Cause>> {
    loop {
        match frames.frame()? {
            Some((Kind::Taken, payload)) => {
                let offset = payload.try_into();
                let offset = offset.map_err(|_| Cause::nonsense("a TAKEN of another length"))?;
                return Poll::Ready(Ok(u64::from_be_bytes(offset)));
            }
            Some((kind, _)) => return Poll::Ready(Err(out_of_turn(kind))),
            None => ready!(frames.poll_fill(cx))?,
        }
    }
}

/// One request; gives how much is taken then.
async fn write(process: &Process, offset: u64, data: &[u8], close: bool) -> Result<u64> {
    let end = offset.saturating_add(data.len() as u64);
    let taken = process.write_input(offset, data, close).await?;
    if taken < end {
        let answer = format!("that it has taken {taken} bytes of {end}");
        return Err(Error::nonsense(OPERATION, process, answer));
    }
    Ok(taken)
}

impl fmt::Debug for InputWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputWriter({} at {})", self.process, self.offset)
    }
}
