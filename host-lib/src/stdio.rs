//! A process's streams over `ReadStdout`, `ReadStderr`, `WriteStdin` and `CloseStdin`, as tokio's `AsyncRead` and
//! `AsyncWrite`.
//!
//! Each direction has at most one request under way, so bytes stay in order, and at most two chunks in memory: the one
//! that is being consumed and the one that is being fetched meanwhile. A consumer that stops stops the guest's process,
//! as a full pipe does. An empty answer is the end of file. The calls run on their own (see [`crate::connection`]), so
//! a dropped `read` or `write` future loses nothing; a stream that is itself dropped loses the chunk that was fetched
//! ahead.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyperstart_protocol::agent::{CloseStdinRequest, ReadStreamRequest, WriteStreamRequest};
use hyperstart_protocol::guest;
use protobuf::EnumOrUnknown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{CALL, UNBOUNDED};
use crate::error::{Cause, Error, Result};
use crate::process::Process;

/// The most that one request carries, in bytes: large enough that the round trip is not what counts, small enough that
/// other calls on the same connection need not wait long.
const CHUNK: usize = 64 << 10;

/// The same as the wire has it.
const CHUNK_ON_WIRE: u32 = 64 << 10;

/// A request under way.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; with a terminal, all of the output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl From<Stream> for EnumOrUnknown<guest::Output> {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => guest::Output::STDOUT.into(),
            Stream::Stderr => guest::Output::STDERR.into(),
        }
    }
}

/// A process's output, from [`Process::stdout`] or [`Process::stderr`]. It ends when the last process that could write
/// to it has closed it, which may be later than the exit of this one.
///
/// Read it to its end if every byte counts: dropping it loses what was fetched ahead, at most 64 KiB.
pub struct Output {
    process: Process,
    stream: Stream,
    chunk: Vec<u8>,
    /// How much of `chunk` has been handed out.
    consumed: usize,
    next: Next,
}

/// The chunk after the present one.
enum Next {
    NotAsked,
    Asked(Pending<Vec<u8>>),
    Answered(Result<Vec<u8>>),
    End,
}

impl Output {
    pub(crate) fn new(process: Process, stream: Stream) -> Self {
        Self { process, stream, chunk: Vec::new(), consumed: 0, next: Next::NotAsked }
    }

    /// Sends the request for the next chunk, without waiting for it.
    fn ask(&mut self, cx: &mut Context<'_>) {
        let mut call: Pending<_> = Box::pin(read_chunk(self.process.clone(), self.stream));
        // A future does nothing before it is polled.
        self.next = match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Next::Answered(answer),
            Poll::Pending => Next::Asked(call),
        };
    }

    /// Makes the next chunk the present one. False: there is none.
    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        if matches!(self.next, Next::NotAsked) {
            self.ask(cx);
        }
        let answer = match std::mem::replace(&mut self.next, Next::End) {
            Next::NotAsked | Next::End => return Poll::Ready(Ok(false)),
            Next::Answered(answer) => answer,
            Next::Asked(mut call) => match call.as_mut().poll(cx) {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    self.next = Next::Asked(call);
                    return Poll::Pending;
                }
            },
        };
        self.chunk = answer?;
        self.consumed = 0;
        if self.chunk.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.ask(cx);
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let rest = this.chunk.get(this.consumed..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..count).unwrap_or_default());
                this.consumed += count;
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 || !ready!(this.poll_advance(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({})", self.process)
    }
}

async fn read_chunk(process: Process, stream: Stream) -> Result<Vec<u8>> {
    let request = ReadStreamRequest {
        container_id: process.wire_container(),
        exec_id: process.wire_id(),
        len: CHUNK_ON_WIRE,
        ..Default::default()
    };
    let operation = match stream {
        Stream::Stdout => "read stdout of process",
        Stream::Stderr => "read stderr of process",
    };
    let call = process.connection().agent(UNBOUNDED, |agent, context| async move {
        match stream {
            Stream::Stdout => agent.read_stdout(context, &request).await,
            Stream::Stderr => agent.read_stderr(context, &request).await,
        }
    });
    let data = call.await.map_err(Cause::of(operation, &process))?.data;
    if data.len() > CHUNK {
        let count = data.len();
        return Err(Error::nonsense(
            operation,
            &process,
            format_args!("{count} bytes where {CHUNK} were asked for"),
        ));
    }
    Ok(data)
}

/// A process's input, from [`Process::stdin`].
///
/// A write returns when its bytes are on their way; `flush` when the process's pipe has taken them. `shutdown` flushes
/// and closes the input, so that the process reads the end of file; dropping the handle does not close it.
pub struct Stdin {
    process: Process,
    state: State,
}

enum State {
    Open,
    Writing(Pending<()>),
    Closing(Pending<()>),
    Closed,
}

impl Stdin {
    pub(crate) fn new(process: Process) -> Self {
        Self { process, state: State::Open }
    }

    /// Waits for the request that is under way, if there is one.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.state {
            State::Open | State::Closed => Poll::Ready(Ok(())),
            State::Writing(call) => {
                let done = ready!(call.as_mut().poll(cx));
                self.state = State::Open;
                Poll::Ready(done)
            }
            State::Closing(call) => {
                let done = ready!(call.as_mut().poll(cx));
                self.state = if done.is_ok() { State::Closed } else { State::Open };
                Poll::Ready(done)
            }
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_settle(cx))?;
        if matches!(this.state, State::Closed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // An empty request would mean the end of the input.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = buf.len().min(CHUNK);
        let chunk = buf.get(..count).unwrap_or_default().to_vec();
        this.state = State::Writing(Box::pin(write_chunk(this.process.clone(), chunk)));
        // A future does nothing before it is polled.
        match this.poll_settle(cx) {
            Poll::Ready(Err(err)) => Poll::Ready(Err(err.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_settle(cx).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_settle(cx))?;
            if matches!(this.state, State::Closed) {
                return Poll::Ready(Ok(()));
            }
            this.state = State::Closing(Box::pin(close(this.process.clone())));
        }
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stdin({})", self.process)
    }
}

async fn write_chunk(process: Process, mut chunk: Vec<u8>) -> Result<()> {
    const OPERATION: &str = "write stdin of process";
    while !chunk.is_empty() {
        let sent = chunk.len();
        let mut request = WriteStreamRequest {
            container_id: process.wire_container(),
            exec_id: process.wire_id(),
            data: chunk,
            ..Default::default()
        };
        let call = process.connection().agent(UNBOUNDED, |agent, context| async move {
            let answer = agent.write_stdin(context, &request).await?;
            Ok((answer.len, std::mem::take(&mut request.data)))
        });
        let (taken, data) = call.await.map_err(Cause::of(OPERATION, &process))?;
        chunk = match usize::try_from(taken) {
            Ok(taken @ 1..) if taken <= sent => data.get(taken..).unwrap_or_default().to_vec(),
            _ => {
                let answer = format!("that it took {taken} bytes of {sent}");
                return Err(Error::nonsense(OPERATION, &process, answer));
            }
        };
    }
    Ok(())
}

async fn close(process: Process) -> Result<()> {
    let request = CloseStdinRequest {
        container_id: process.wire_container(),
        exec_id: process.wire_id(),
        ..Default::default()
    };
    let call = process
        .connection()
        .agent(CALL, |agent, context| async move { agent.close_stdin(context, &request).await });
    call.await.map_err(Cause::of("close stdin of process", &process))?;
    Ok(())
}
