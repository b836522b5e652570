//! Following an output of a process by offset, from the guest: a reader with a name, whose bytes are kept until it says
//! that it has them.
//!
//! ```text
//! open at 0 ──► bytes 0..n ──► (written, be it slowly) ──► took 0..n ──► …  ──► end
//!       └── the line breaks: open again at the last offset that was taken
//! ```
//! Who is killed in between is followed by another at the last offset that was written, and nothing is missing.

use std::time::Duration;

use hyperstart::{Chunk, OutputReader, Process, Stream};
use tokio::sync::watch;

use crate::error::Result;
use crate::pod::client;
use crate::pod::link::Link;

/// How long output may stay silent, once the process has ended, before a surviving child's hold on it is ignored.
const LINGER: Duration = Duration::from_millis(500);

/// What a process writes to.
pub const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Has what the process writes kept for a reader of this name, from the oldest byte that there is, whenever it comes.
pub async fn hold(process: &Process, name: &str) -> Result<()> {
    for stream in STREAMS {
        let reader = process.output(stream).reader(name).from_oldest().by_requests();
        reader.open().await.map_err(|err| client::guest_error(&err))?;
    }
    Ok(())
}

/// The way to the process.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A connection that lasts as long as its VM; should it not, its host gives way to an heir.
    Process(&'a Process),
    /// One that is made again.
    Link(&'a Link),
}

pub struct Follower<'a> {
    source: Source<'a>,
    stream: Stream,
    reader: &'a str,
    /// Of the first byte that was not taken.
    offset: u64,
    open: Option<OutputReader>,
}

impl<'a> Follower<'a> {
    /// Follows from `offset`, or from the oldest byte that is kept if that comes later.
    pub fn new(source: Source<'a>, stream: Stream, reader: &'a str, offset: u64) -> Follower<'a> {
        Follower { source, stream, reader, offset, open: None }
    }

    /// Has the guest keep for us what comes from now on.
    pub async fn begin(&mut self) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(self.open().await?);
        }
        Ok(())
    }

    /// The next bytes, once there are some; `None` at the end. May be given up and called again.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        loop {
            let reader = match &mut self.open {
                Some(reader) => reader,
                None => {
                    let reader = self.open().await?;
                    self.open.insert(reader)
                }
            };
            match reader.next().await {
                Ok(chunk) => return Ok(chunk),
                Err(err) => self.broken(&err)?,
            }
        }
    }

    /// What there is; it may be nothing. `None`: the end.
    pub async fn look(&self) -> Result<Option<Chunk>> {
        let (stream, from) = (self.stream, self.offset);
        let look =
            async |process: &Process| process.output(stream).from(from).or_oldest().look().await;
        let look = match self.source {
            Source::Process(process) => look(process).await,
            Source::Link(link) => link.call(look).await?,
        };
        let look = look.map_err(|err| client::guest_error(&err))?;
        let done = look.ended && look.data.is_empty();
        Ok((!done).then_some(Chunk { offset: look.offset, data: look.data }))
    }

    /// The chunk is where it was to go, and need not be kept.
    pub async fn took(&mut self, chunk: &Chunk) -> Result<()> {
        self.offset = chunk.end();
        let Some(reader) = &mut self.open else { return Ok(()) };
        match reader.taken(chunk.end()).await {
            Ok(()) => Ok(()),
            Err(err) => self.broken(&err), // said with the next opening
        }
    }

    /// Gives every chunk to `take`, to the end; or until the process is `over` and nothing more comes from a child that
    /// it has left behind.
    pub async fn deliver(
        &mut self,
        over: &watch::Receiver<bool>,
        mut take: impl AsyncFnMut(&Chunk) -> Result<()>,
    ) -> Result<()> {
        let mut over = over.clone();
        loop {
            let next = tokio::select! {
                biased;
                next = self.next() => next?,
                () = silence(&mut over) => {
                    self.open = None; // what it may have read meanwhile is asked for again
                    match self.look().await? {
                        Some(chunk) if chunk.data.is_empty() => return Ok(()),
                        looked => looked,
                    }
                }
            };
            let Some(chunk) = next else { return Ok(()) };
            take(&chunk).await?;
            self.took(&chunk).await?;
        }
    }

    async fn open(&self) -> Result<OutputReader> {
        let (stream, name, from) = (self.stream, self.reader, self.offset);
        let open = async |process: &Process| {
            process.output(stream).reader(name).from(from).or_oldest().open().await
        };
        let open = match self.source {
            Source::Process(process) => open(process).await,
            Source::Link(link) => link.call(open).await?,
        };
        open.map_err(|err| client::guest_error(&err))
    }

    /// A line that is made again is no failure.
    fn broken(&mut self, err: &hyperstart::Error) -> Result<()> {
        self.open = None;
        match self.source {
            Source::Link(_) if client::may_pass(err) => Ok(()),
            Source::Link(_) | Source::Process(_) => Err(client::guest_error(err)),
        }
    }
}

/// Ends when the process has ended and nothing else happened for [`LINGER`].
async fn silence(over: &mut watch::Receiver<bool>) {
    match over.wait_for(|over| *over).await {
        Ok(_) => tokio::time::sleep(LINGER).await,
        Err(_) => std::future::pending().await, // the wait failed, and that is being reported
    }
}
