//! A process's output by offset: what a host reads that must lose nothing, be it killed at any moment.
//!
//! Byte N of an output is the same byte for everybody and for ever. The guest keeps what its readers have not taken,
//! as much as its ring holds; then the process waits, as at a full pipe. Nothing is dropped.
//!
//! | reader | what the guest keeps for it | for |
//! |---|---|---|
//! | with a name ([`OutputAt::reader`]) | from where it said *taken*, also while nobody is connected | a log |
//! | without | what it has not read, while its connection lasts | a terminal |
//! | that holds nothing ([`OutputAt::holding_nothing`]) | nothing: it sees what others hold | a look at what a log holds |
//!
//! The bytes come over a vsock connection of their own where the way to the guest has ports and the guest serves
//! streams, else by requests on the connection that everything shares (`ReadOutput`); a caller sees no difference but
//! the pace, and that over requests a reader without a name is the one that Kata's `ReadStdout` moves as well, which
//! the guest cannot know to be gone.
//!
//! A lost connection is an error, and the end of an [`OutputReader`]. Whoever wants to go on connects again, and reads
//! from the offset after the last byte that it has.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyperstart_protocol::guest::{self, DeleteExecRequest, ReleaseReaderRequest};
use tokio::io::{AsyncRead, ReadBuf};

use crate::error::{Cause, Code, Error, Result};
use crate::process::Process;
use crate::requests::Requests;
use crate::stdio::Stream;
use crate::streams::{self, OutputFrames};

/// The capability of a guest that keeps output by offset.
pub(crate) const OFFSETS: &str = "output-offsets";

const OPERATION: &str = "read output of process";

/// Where, and as whom, an output is to be read: from [`Process::output`]. By default from its first byte, without a
/// name.
///
/// ```no_run
/// # async fn run(process: hyperstart::Process, from: u64) -> hyperstart::Result<()> {
/// use hyperstart::Stream;
///
/// // A log: what the guest was told is taken has been written before.
/// let mut output = process.output(Stream::Stdout).reader("log").from(from).open().await?;
/// while let Some(chunk) = output.next().await? {
///     // write chunk.data, which begins at chunk.offset, to the disk
///     output.taken(chunk.end()).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is read before it is opened"]
pub struct OutputAt {
    pub(crate) process: Process,
    pub(crate) stream: Stream,
    pub(crate) reader: String,
    pub(crate) offset: u64,
    pub(crate) or_oldest: bool,
    pub(crate) holds: bool,
    requests_only: bool,
}

/// Some bytes of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of the first byte.
    pub offset: u64,
    /// At least one byte.
    pub data: Vec<u8>,
}

impl Chunk {
    /// The offset after the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// What is there of an output at a moment ([`OutputAt::look`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Of the first byte.
    pub offset: u64,
    /// At most 64 KiB; empty where nothing is there yet.
    pub data: Vec<u8>,
    /// Nothing comes after `data`.
    pub ended: bool,
}

impl OutputAt {
    pub(crate) fn new(process: Process, stream: Stream) -> Self {
        Self {
            process,
            stream,
            reader: String::new(),
            offset: 0,
            or_oldest: false,
            holds: true,
            requests_only: false,
        }
    }

    /// Reads as a reader that the guest remembers: 1 to 64 of `[A-Za-z0-9_.-]`, at most 8 a stream. What it has not
    /// [taken](OutputReader::taken) is kept for it until [`Process::release_reader`], or until the container is
    /// removed; an exec that had one is kept until [`Process::delete`].
    pub fn reader(mut self, name: &str) -> Self {
        name.clone_into(&mut self.reader);
        self
    }

    /// Reads from this offset: the reader has everything before it.
    pub fn from(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Reads from the lowest offset that is kept.
    pub fn from_oldest(self) -> Self {
        self.from(0).or_oldest()
    }

    /// Reads from the lowest offset that is kept, if that is higher than the one that was asked for. The chunks say
    /// where they begin, so that the gap is seen.
    pub fn or_oldest(mut self) -> Self {
        self.or_oldest = true;
        self
    }

    /// Reads what is kept for others and holds nothing itself: it can fall behind, which is [`Code::OutOfRange`], or a
    /// gap after [`OutputAt::or_oldest`]. What nobody takes stops the process once the ring is full.
    pub fn holding_nothing(mut self) -> Self {
        self.holds = false;
        self
    }

    /// Reads by requests, also where a connection of its own could be had.
    pub fn by_requests(mut self) -> Self {
        self.requests_only = true;
        self
    }

    /// Begins to read.
    ///
    /// # Errors
    /// [`Code::OutOfRange`]: the offset is no longer kept, or is beyond the end. [`Code::NotFound`]: no such process.
    /// [`Code::ResourceExhausted`]: too many readers. [`Code::Unimplemented`]: the guest keeps no offsets, as a plain
    /// kata-agent; [`Process::stdout`] reads it.
    pub async fn open(self) -> Result<OutputReader> {
        let connection = self.process.connection();
        let of = || Cause::of(OPERATION, &self.process);
        if !connection.can(OFFSETS).await.map_err(of())? {
            return Err(of()(Cause::lacks(OFFSETS)));
        }
        let address = streams::address(connection).await.map_err(of())?;
        let (source, offset) = match address {
            Some(address) if self.holds && !self.requests_only => {
                let (frames, offset) = OutputFrames::open(&self, &address).await.map_err(of())?;
                (Source::Frames(frames), offset)
            }
            Some(_) | None => {
                let (requests, offset) = Requests::open(&self).await?;
                (Source::Requests(Box::new(requests)), offset)
            }
        };
        Ok(OutputReader {
            source,
            automatic: self.reader.is_empty(),
            offset,
            rest: Vec::new(),
            rest_from: 0,
            process: self.process,
        })
    }

    /// What is there, at once. Holds nothing, and tells the guest nothing.
    ///
    /// # Errors
    /// As [`OutputAt::open`].
    pub async fn look(mut self) -> Result<Look> {
        self.reader.clear();
        let request = guest::ReadOutputRequest { no_wait: true, ..self.request(self.offset) };
        crate::requests::read(self.process.clone(), request, self.or_oldest).await
    }

    /// A request for what is at an offset, which holds nothing.
    pub(crate) fn request(&self, offset: u64) -> guest::ReadOutputRequest {
        guest::ReadOutputRequest {
            container_id: self.process.wire_container(),
            exec_id: self.process.wire_id(),
            output: self.stream.into(),
            offset,
            or_oldest: self.or_oldest,
            ..Default::default()
        }
    }
}

/// Reads a process's output from an offset on: from [`OutputAt::open`].
///
/// Read it chunk by chunk ([`OutputReader::next`]), or as tokio's `AsyncRead`, not both at a time. A reader without a
/// name acknowledges by itself: a chunk is taken when the next one is asked for. One with a name says what it has by
/// [`OutputReader::taken`].
pub struct OutputReader {
    source: Source,
    automatic: bool,
    /// Of the next byte that the source gives.
    offset: u64,
    /// A chunk that `AsyncRead` has handed out to here.
    rest: Vec<u8>,
    rest_from: usize,
    process: Process,
}

enum Source {
    Frames(OutputFrames),
    Requests(Box<Requests>),
}

impl OutputReader {
    /// The offset of the next byte that is given out: where another reader goes on when this one is gone.
    pub fn offset(&self) -> u64 {
        self.offset - self.rest().len() as u64
    }

    /// The next bytes, once there are some; `None` at the end, for good. A future that is dropped loses nothing.
    ///
    /// # Errors
    /// [`Code::Unavailable`]: the connection was lost; read again from [`OutputReader::offset`].
    /// [`Code::OutOfRange`]: of a reader that holds nothing, it fell behind.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`OutputReader::next`], to be polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>>> {
        if !self.rest().is_empty() {
            let chunk = Chunk { offset: self.offset(), data: self.rest().to_vec() };
            self.rest = Vec::new();
            return Poll::Ready(Ok(Some(chunk)));
        }
        let acknowledge = self.automatic.then_some(self.offset);
        let next = match &mut self.source {
            Source::Frames(frames) => frames
                .poll_next(cx, self.offset, acknowledge)
                .map_err(Cause::of(OPERATION, &self.process)),
            Source::Requests(requests) => requests.poll_next(cx, acknowledge),
        };
        let next = ready!(next)?;
        if let Some(chunk) = &next {
            self.offset = chunk.end();
        }
        Poll::Ready(Ok(next))
    }

    /// Says that everything below `offset` was taken, and need not be kept any more. It is on its way when this
    /// returns. To say less than before has no effect.
    ///
    /// # Errors
    /// [`Code::OutOfRange`]: it was not read yet. [`Code::Unavailable`]: the connection was lost.
    pub async fn taken(&mut self, offset: u64) -> Result<()> {
        if offset > self.offset() {
            let cause = format!("{offset} was taken, where {} was read", self.offset());
            return Err(Error::new(Code::OutOfRange, OPERATION, &self.process, cause));
        }
        match &mut self.source {
            Source::Frames(frames) => {
                frames.taken(offset);
                poll_fn(|cx| frames.poll_flush(cx))
                    .await
                    .map_err(Cause::of(OPERATION, &self.process))
            }
            Source::Requests(requests) => requests.taken(offset).await,
        }
    }

    fn rest(&self) -> &[u8] {
        self.rest.get(self.rest_from..).unwrap_or_default()
    }
}

impl AsyncRead for OutputReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.rest().is_empty() {
            let Some(chunk) = ready!(this.poll_next(cx))? else { return Poll::Ready(Ok(())) };
            (this.rest, this.rest_from) = (chunk.data, 0);
        }
        let count = this.rest().len().min(buf.remaining());
        buf.put_slice(this.rest().get(..count).unwrap_or_default());
        this.rest_from += count;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for OutputReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputReader({} at {})", self.process, self.offset())
    }
}

impl Process {
    /// Reads one of its outputs by offset. See [`OutputAt`]. With a terminal everything is on stdout.
    pub fn output(&self, stream: Stream) -> OutputAt {
        OutputAt::new(self.clone(), stream)
    }

    /// Forgets a reader with a name: nothing is kept for it any more.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such process, or no such reader.
    pub async fn release_reader(&self, stream: Stream, name: &str) -> Result<()> {
        let request = ReleaseReaderRequest {
            container_id: self.wire_container(),
            exec_id: self.wire_id(),
            output: stream.into(),
            reader: name.to_owned(),
            ..Default::default()
        };
        let call = self
            .connection()
            .guest(|guest, context| async move { guest.release_reader(context, &request).await });
        call.await.map_err(Cause::of("release reader of process", self))?;
        Ok(())
    }

    /// Forgets an exec that has ended, and what it wrote. One that never had a reader with a name is forgotten by
    /// itself once it was waited for and read to its end.
    ///
    /// # Errors
    /// [`Code::NotFound`]: there is none such. [`Code::FailedPrecondition`]: it is running.
    /// [`Code::InvalidArgument`]: it is its container's init.
    pub async fn delete(&self) -> Result<()> {
        let request = DeleteExecRequest {
            container_id: self.wire_container(),
            exec_id: self.wire_id(),
            ..Default::default()
        };
        let call = self
            .connection()
            .guest(|guest, context| async move { guest.delete_exec(context, &request).await });
        call.await.map_err(Cause::of("delete exec", self))?;
        Ok(())
    }
}
