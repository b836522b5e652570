//! Streams of a process on connections of their own (`guest.proto`, "Streams"): frames, and the two ends of a host's.
//!
//! Everything here is polled, and what is half read or half written stays in its buffers: a caller may drop a future
//! at any point. What the guest sends is bounded: a frame by 64 KiB, what is read ahead by four of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyperstart_protocol::STREAM_PORT;
use hyperstart_protocol::guest::{StreamFailure, StreamOpen, StreamOpened, stream_open::Which};
use hyperstart_protocol::stream::{self, Kind, MAX_STREAM_PAYLOAD, STREAM_HEADER};
use protobuf::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::connection::Connection;
use crate::error::{Cause, Code};
use crate::output::{Chunk, OutputAt};
use crate::stdio::Stream;
use crate::transport::{self, Transport};

/// The capability of a guest that serves streams.
const STREAMS: &str = "streams";

/// For one try to open a stream, and for all. A vsock device may accept a connection that never carries a byte.
const ATTEMPT: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Offsets beyond it no process reaches; below it, one and what comes after it can be added.
pub(crate) const OFFSET_MAX: u64 = 1 << 62;

/// How much is read at once.
const READ: usize = 4 * (MAX_STREAM_PAYLOAD + STREAM_HEADER);
/// What a reader without a name has before it says so at once: as much as a ring holds by default. A word costs the
/// guest an interrupt and a turn.
const WORTH_A_WORD: u64 = 64 << 10;
/// When it says so if it has less.
const SOON: Duration = Duration::from_millis(2);

/// Where the guest's streams are to be had; none: by requests alone.
pub(crate) async fn address(connection: &Connection) -> Result<Option<Transport>, Cause> {
    let Some(address) = connection.transport().and_then(|way| way.to_port(STREAM_PORT)) else {
        return Ok(None);
    };
    Ok(connection.can(STREAMS).await?.then_some(address))
}

/// A connection that carries frames.
pub(crate) struct Frames {
    stream: Box<dyn transport::Stream>,
    /// As large as what is read at once.
    incoming: Vec<u8>,
    /// How much of `incoming` has come.
    filled: usize,
    /// How much of that has been looked at.
    parsed: usize,
    outgoing: Vec<u8>,
    written: usize,
}

impl Frames {
    /// Connects and opens; gives the guest's offset.
    pub(crate) async fn open(address: &Transport, open: &StreamOpen) -> Result<(Self, u64), Cause> {
        let end = Instant::now() + DEADLINE;
        loop {
            let lost = match timeout(ATTEMPT, Self::attempt(address, open)).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(cause)) if cause.code() != Code::Unavailable => return Err(cause),
                Ok(Err(cause)) => cause,
                Err(_) => Cause::lost("the stream's connection is stuck"),
            };
            if Instant::now() >= end {
                return Err(lost);
            }
            sleep(PAUSE).await;
        }
    }

    async fn attempt(address: &Transport, open: &StreamOpen) -> Result<(Self, u64), Cause> {
        let stream = address.open().await.map_err(Cause::lost)?;
        let (incoming, outgoing) = (vec![0; READ], Vec::new());
        let mut frames = Self { stream, incoming, filled: 0, parsed: 0, outgoing, written: 0 };
        let payload = open.write_to_bytes().map_err(|_| Cause::nonsense("a request"))?;
        frames.queue(Kind::Open, &payload);
        std::future::poll_fn(|cx| frames.poll_opened(cx)).await.map(|offset| (frames, offset))
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, Cause>> {
        ready!(self.poll_flush(cx))?;
        loop {
            match self.frame()? {
                Some((Kind::Opened, payload)) => {
                    let opened = StreamOpened::parse_from_bytes(payload);
                    let opened = opened.map_err(|_| Cause::nonsense("what is no StreamOpened"))?;
                    return Poll::Ready(Ok(opened.offset));
                }
                Some((kind, _)) => return Poll::Ready(Err(out_of_turn(kind))),
                None => ready!(self.poll_fill(cx))?,
            }
        }
    }

    pub(crate) fn queue(&mut self, kind: Kind, payload: &[u8]) {
        self.outgoing.extend(stream::header(kind, payload.len()));
        self.outgoing.extend(payload);
    }

    /// Writes what was queued.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        while let Some(rest) = self.outgoing.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => {
                    return Poll::Ready(Err(Cause::lost(io::Error::from(
                        io::ErrorKind::WriteZero,
                    ))));
                }
                Ok(count) => self.written += count,
                Err(err) => return Poll::Ready(Err(Cause::lost(err))),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads more of what comes in, at least a byte.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.incoming.copy_within(self.parsed..self.filled, 0);
        self.filled -= self.parsed;
        self.parsed = 0;
        let mut buffer = ReadBuf::new(self.incoming.get_mut(self.filled..).unwrap_or_default());
        let done = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        self.filled += count;
        match ready!(done) {
            Ok(()) if count == 0 => {
                Poll::Ready(Err(Cause::lost("the guest has closed the stream")))
            }
            Ok(()) => Poll::Ready(Ok(())),
            Err(err) => Poll::Ready(Err(Cause::lost(err))),
        }
    }

    /// The next frame that has come whole. The guest's failure is an error.
    pub(crate) fn frame(&mut self) -> Result<Option<(Kind, &[u8])>, Cause> {
        let unread = self.incoming.get(self.parsed..self.filled).unwrap_or_default();
        let Some((header, rest)) = unread.split_first_chunk::<STREAM_HEADER>() else {
            return Ok(None);
        };
        let (kind, length) = stream::parse(*header);
        if length > MAX_STREAM_PAYLOAD {
            return Err(Cause::nonsense(&format!("a frame of {length} bytes")));
        }
        let Some(kind) = Kind::of(kind) else {
            return Err(Cause::nonsense(&format!("a frame of kind {kind}")));
        };
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        self.parsed += STREAM_HEADER + length;
        if kind == Kind::Failed {
            let failure = StreamFailure::parse_from_bytes(payload);
            let failure = failure.map_err(|_| Cause::nonsense("what is no StreamFailure"))?;
            return Err(Cause::answered(failure.code, &failure.message));
        }
        Ok(Some((kind, payload)))
    }
}

pub(crate) fn out_of_turn(kind: Kind) -> Cause {
    Cause::nonsense(&format!("a frame {kind:?} out of turn"))
}

/// An output.
pub(crate) struct OutputFrames {
    frames: Frames,
    /// What the guest was told, or will be told by what is queued.
    told: u64,
    /// What it is to be told.
    taken: u64,
    /// When, at the latest.
    soon: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl OutputFrames {
    pub(crate) async fn open(at: &OutputAt, address: &Transport) -> Result<(Self, u64), Cause> {
        let which = match at.stream {
            Stream::Stdout => Which::STDOUT_STREAM,
            Stream::Stderr => Which::STDERR_STREAM,
        };
        let open = StreamOpen {
            container_id: at.process.wire_container(),
            exec_id: at.process.wire_id(),
            stream: which.into(),
            reader: at.reader.clone(),
            offset: at.offset,
            or_oldest: at.or_oldest,
            ..Default::default()
        };
        let (frames, offset) = Frames::open(address, &open).await?;
        let in_place = offset == at.offset || at.or_oldest && offset > at.offset;
        if !in_place || offset > OFFSET_MAX {
            return Err(Cause::nonsense(&format!("offset {offset}")));
        }
        Ok((Self { frames, told: offset, taken: offset, soon: None, ended: false }, offset))
    }

    /// All that has come since, from `offset` on.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        offset: u64,
        acknowledge: Option<u64>,
    ) -> Poll<Result<Option<Chunk>, Cause>> {
        self.taken = self.taken.max(acknowledge.unwrap_or_default());
        if self.taken.saturating_sub(self.told) >= WORTH_A_WORD {
            // Whatever comes of it shows at the next read, or the next word.
            if let Poll::Ready(Err(cause)) = self.poll_flush(cx) {
                return Poll::Ready(Err(cause));
            }
        }
        let mut data = Vec::new();
        loop {
            self.gather(&mut data)?;
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(Chunk { offset, data })));
            }
            if self.ended {
                ready!(self.poll_flush(cx))?;
                return Poll::Ready(Ok(None));
            }
            match self.frames.poll_fill(cx) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => {
                    ready!(self.poll_flush_soon(cx))?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn gather(&mut self, data: &mut Vec<u8>) -> Result<(), Cause> {
        if self.ended {
            return Ok(());
        }
        data.reserve(self.frames.filled - self.frames.parsed);
        while let Some((kind, payload)) = self.frames.frame()? {
            match kind {
                Kind::Data => data.extend_from_slice(payload),
                Kind::End => {
                    self.ended = true;
                    self.told = u64::MAX; // the end is worth a word, also where all was told
                    return Ok(());
                }
                Kind::Open | Kind::Opened | Kind::Taken | Kind::Failed => {
                    return Err(out_of_turn(kind));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn taken(&mut self, offset: u64) {
        self.taken = self.taken.max(offset);
    }

    /// As [`Self::poll_flush`], once nothing has come for a moment.
    fn poll_flush_soon(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        ready!(self.frames.poll_flush(cx))?;
        if self.told == self.taken {
            return Poll::Ready(Ok(()));
        }
        ready!(self.soon.get_or_insert_with(|| Box::pin(sleep(SOON))).as_mut().poll(cx));
        self.poll_flush(cx)
    }

    /// Tells the guest what was taken, one word after the other.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        loop {
            ready!(self.frames.poll_flush(cx))?;
            if self.told == self.taken {
                return Poll::Ready(Ok(()));
            }
            (self.told, self.soon) = (self.taken, None);
            self.frames.queue(Kind::Taken, &self.told.to_be_bytes());
        }
    }
}
