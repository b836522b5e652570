//! Reading a container's log: what its host has recorded, and from the guest's rings what the record does not have yet.
//!
//! ```text
//! a stream  0 ─── shown ─────┬─── recorded meanwhile ───┬───────────────┐ end
//!                            └── a look at the ring ────┴─ of it, shown ┘
//! ```
//! The record lags while its host is slow, or was killed and its heir is on its way. Byte N of a stream is the same in
//! both, so what was shown from one is cut off the other. A look holds nothing: a reader of ours in the guest would hold
//! a container up whose log somebody follows with a pager. What a ring has let go of was in the record before. So the
//! record is read after each look, and then what the look has beyond it: no byte is left out in between.
//!
//! Only a guest that runs a container is looked at, and for so long; if it does not answer, the record is what there is.

use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use hyperstart::{Code, Look};
use tokio::time::{Instant, sleep, timeout};

use crate::commands::POLL;
use crate::error::{Error, Result};
use crate::output;
use crate::pod::client::{self, CONNECT};
use crate::pod::link::Link;
use crate::pod::output_log::{Ends, Reader, Record, Stream};
use crate::pod::state::{State, Status};
use crate::pod::store::Pod;
use crate::time;

/// The most looks for what is there now: one that prints without end is not followed by these. A ring is eight.
const LOOKS: u32 = 16;
/// Between two looks of one who follows: what comes by the record comes sooner.
const INTERVAL: Duration = Duration::from_millis(500);

/// The log of a container, from its oldest record on.
pub struct LogReader {
    dir: PathBuf,
    record: Reader,
    shown: Shown,
    rings: Rings,
    next_look: Instant,
}

/// What comes next of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub record: Record,
    /// So many bytes before it are nowhere to be had any more.
    pub missing: u64,
}

impl LogReader {
    pub fn open(pod: &Pod) -> Result<LogReader> {
        let (dir, record) = (pod.dir.clone(), Reader::open(&pod.dir)?);
        let rings = Rings { pod: pod.clone(), link: None, looking: None, silent_until: None };
        Ok(LogReader { dir, record, shown: Shown::default(), rings, next_look: Instant::now() })
    }

    /// Begins again at the oldest record.
    pub fn rewind(&mut self) -> Result<()> {
        self.record = Reader::open(&self.dir)?;
        self.shown = Shown::default();
        Ok(())
    }

    /// Gives all that is there now. Says so if some of it may be missing.
    pub async fn read(&mut self, mut take: impl FnMut(Piece) -> Result<()>) -> Result<()> {
        self.recorded(&mut take)?;
        for _ in 0..LOOKS {
            let looked = match self.rings.look(self.shown.ends()).await {
                Ok(looked) => looked,
                Err(err) => {
                    output::warn(format_args!(
                        "the newest output may be missing: {}",
                        err.message()
                    ));
                    break;
                }
            };
            let is_all = looked.is_empty();
            self.merge(looked, &mut take)?;
            if is_all {
                break;
            }
        }
        Ok(())
    }

    /// Gives what has come since, after a moment in which there may be more.
    pub async fn read_more(&mut self, mut take: impl FnMut(Piece) -> Result<()>) -> Result<()> {
        let is_due = Instant::now() >= self.next_look;
        let looked = tokio::select! {
            looked = self.rings.look(self.shown.ends()), if is_due => {
                self.next_look = Instant::now() + INTERVAL;
                // Nothing is missing: it comes by the record, or by a look when the guest answers again.
                looked.inspect_err(|err| log::debug!("{}", err.message())).unwrap_or_default()
            }
            () = sleep(POLL) => Vec::new(),
        };
        self.merge(looked, &mut take)
    }

    /// Gives what was recorded, and not shown yet.
    pub fn recorded(&mut self, mut take: impl FnMut(Piece) -> Result<()>) -> Result<()> {
        while let Some(record) = self.record.next()? {
            if let Some(piece) = self.shown.rest(record) {
                take(piece)?;
            }
        }
        Ok(())
    }

    /// Gives what was recorded, and then what a look has beyond that.
    fn merge(
        &mut self,
        looked: Vec<Record>,
        take: &mut impl FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        self.recorded(&mut *take)?;
        looked.into_iter().filter_map(|record| self.shown.rest(record)).try_for_each(take)
    }
}

/// The offset after the last byte that was shown, of each stream that had one.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    stdout: Option<u64>,
    stderr: Option<u64>,
}

impl Shown {
    /// What has not been shown of this; it is about to be.
    fn rest(&mut self, mut record: Record) -> Option<Piece> {
        let shown = match record.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let before = shown.unwrap_or(record.offset);
        let again = usize::try_from(before.saturating_sub(record.offset)).unwrap_or(usize::MAX);
        record.bytes.drain(..again.min(record.bytes.len()));
        if record.bytes.is_empty() {
            return None;
        }
        let missing = record.offset.saturating_sub(before);
        record.offset = record.offset.max(before);
        *shown = Some(record.offset + record.bytes.len() as u64);
        Some(Piece { record, missing })
    }

    /// From where on more is asked for.
    fn ends(&self) -> Ends {
        Ends { stdout: self.stdout.unwrap_or_default(), stderr: self.stderr.unwrap_or_default() }
    }
}

type Looking = Pin<Box<dyn Future<Output = Result<Vec<Record>>>>>;

/// What the guest keeps of the container's output.
struct Rings {
    pod: Pod,
    link: Option<Rc<Link>>,
    /// Asked for, and not answered yet.
    looking: Option<Looking>,
    /// It has not answered, and is left alone.
    silent_until: Option<Instant>,
}

impl Rings {
    /// What is there from these offsets on, or from the oldest that is kept: a piece of each stream that has more. May be
    /// given up and called again, by offsets that have grown.
    async fn look(&mut self, from: Ends) -> Result<Vec<Record>> {
        let looking = match &mut self.looking {
            Some(looking) => looking,
            None => match self.link() {
                Some(link) => self.looking.insert(Box::pin(look(link, from))),
                None => return Ok(Vec::new()),
            },
        };
        let looked = looking.await;
        self.looking = None;
        match looked {
            Err(err) if self.is_running() => {
                self.link = None;
                self.silent_until = Some(Instant::now() + CONNECT);
                Err(err)
            }
            Err(_) => Ok(Vec::new()), // it has ended meanwhile, so the record is whole
            Ok(looked) => Ok(looked),
        }
    }

    /// The way to a guest that can be asked.
    fn link(&mut self) -> Option<Rc<Link>> {
        if self.silent_until.is_some_and(|until| Instant::now() < until) || !self.is_running() {
            return None;
        }
        if self.link.is_none() {
            self.link = Link::to(&self.pod).map(Rc::new).ok();
        }
        self.link.clone()
    }

    /// Whether it runs by what is written down now. The address of its guest is there before.
    fn is_running(&mut self) -> bool {
        if let Ok(state) = State::load(&self.pod.dir) {
            self.pod.state = state;
        }
        matches!(self.pod.state.status, Status::Running { .. }) && self.pod.dir.exists()
    }
}

/// Both rings, if there is an answer in time.
async fn look(link: Rc<Link>, from: Ends) -> Result<Vec<Record>> {
    let both = async {
        let stdout = look_at(&link, Stream::Stdout, from.stdout).await?;
        let stderr = look_at(&link, Stream::Stderr, from.stderr).await?;
        Ok(stdout.into_iter().chain(stderr).collect())
    };
    let late = || Err(Error::new("the guest does not answer"));
    timeout(CONNECT, both).await.unwrap_or_else(|_| late())
}

async fn look_at(link: &Link, stream: Stream, from: u64) -> Result<Option<Record>> {
    match link
        .call(async |process| process.output(stream.into()).from(from).or_oldest().look().await)
        .await?
    {
        Ok(Look { data, .. }) if data.is_empty() => Ok(None),
        Ok(Look { offset, data, .. }) => {
            Ok(Some(Record { stream, unix_millis: time::unix_millis(), offset, bytes: data }))
        }
        Err(err) if err.code() == Code::NotFound => Ok(None), // removed, once all was recorded
        Err(err) => Err(client::guest_error(&err)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::output_log::Writer;
    use crate::pod::state::Vm;

    fn record(stream: Stream, offset: u64, text: &str) -> Record {
        Record { stream, unix_millis: 0, offset, bytes: text.into() }
    }

    fn shown(shown: &mut Shown, record: Record) -> Option<(u64, String, u64)> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        shown.rest(record).map(|p| (p.record.offset, text(p.record.bytes), p.missing))
    }

    fn reader(dir: &std::path::Path) -> LogReader {
        let state = State::new("0".into(), "web".into(), "busybox".into(), Vm::default());
        LogReader::open(&Pod { dir: dir.to_path_buf(), state }).unwrap()
    }

    /// What a reader gives that reads the record after a look.
    fn merged(log: &mut LogReader, looked: Vec<Record>) -> Vec<(Stream, String)> {
        let mut said = Vec::new();
        let mut take = |piece: Piece| {
            assert_eq!(piece.missing, 0);
            said.push((piece.record.stream, String::from_utf8(piece.record.bytes).unwrap()));
            Ok(())
        };
        log.merge(looked, &mut take).unwrap();
        said
    }

    #[test]
    fn what_was_shown_is_cut_off() {
        let mut seen = Shown::default();
        let mut next = |stream, offset, text| shown(&mut seen, record(stream, offset, text));
        assert_eq!(next(Stream::Stdout, 100, "abc"), Some((100, "abc".into(), 0)), "the oldest");
        assert_eq!(next(Stream::Stdout, 103, "def"), Some((103, "def".into(), 0)));
        assert_eq!(next(Stream::Stdout, 103, "def"), None, "all of it");
        assert_eq!(next(Stream::Stdout, 101, "bc"), None);
        assert_eq!(next(Stream::Stdout, 104, "efgh"), Some((106, "gh".into(), 0)), "its beginning");
        assert_eq!(next(Stream::Stdout, 108, ""), None);
        assert_eq!(next(Stream::Stderr, 104, "err"), Some((104, "err".into(), 0)), "the other one");
        let ends = seen.ends();
        assert_eq!((ends.stdout, ends.stderr), (108, 107));
    }

    #[test]
    fn what_is_missing_is_counted() {
        let mut seen = Shown::default();
        let mut next = |stream, offset, text| shown(&mut seen, record(stream, offset, text));
        assert_eq!(next(Stream::Stdout, 100, "abc"), Some((100, "abc".into(), 0)), "the oldest");
        assert_eq!(next(Stream::Stdout, 108, "x"), Some((108, "x".into(), 5)));
        assert_eq!(next(Stream::Stdout, 109, "y"), Some((109, "y".into(), 0)), "said once");
        assert_eq!(next(Stream::Stderr, 8, "z"), Some((8, "z".into(), 0)));
    }

    #[test]
    fn a_look_is_not_shown_again_when_it_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        let mut log = reader(dir.path());
        writer.append(Stream::Stdout, 0, b"one\n").unwrap();
        writer.append(Stream::Stderr, 0, b"uno\n").unwrap();
        let looked = vec![record(Stream::Stdout, 4, "two\n"), record(Stream::Stderr, 4, "dos\n")];
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        assert_eq!(
            merged(&mut log, looked),
            [
                (out, "one\n".into()),
                (err, "uno\n".into()),
                (out, "two\n".into()),
                (err, "dos\n".into())
            ]
        );
        writer.append(Stream::Stdout, 4, b"two\nthree\n").unwrap();
        writer.append(Stream::Stderr, 4, b"do").unwrap();
        writer.append(Stream::Stderr, 6, b"s\ntres\n").unwrap();
        assert_eq!(merged(&mut log, vec![]), [(out, "three\n".into()), (err, "tres\n".into())]);
    }

    #[test]
    fn what_a_ring_has_let_go_of_is_in_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        let mut log = reader(dir.path());
        assert_eq!(merged(&mut log, vec![]), []);
        // The look was at 0; by then the host had taken 4.
        writer.append(Stream::Stdout, 0, b"one\n").unwrap();
        writer.append(Stream::Stdout, 4, b"two\n").unwrap();
        let looked = vec![record(Stream::Stdout, 4, "two\nthree\n")];
        let said: String = merged(&mut log, looked).into_iter().map(|(_, text)| text).collect();
        assert_eq!(said, "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn nobody_is_asked_for_the_log_of_a_pod_that_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        Writer::create(dir.path()).unwrap().append(Stream::Stdout, 0, b"one\n").unwrap();
        let mut log = reader(dir.path());
        log.rings.pod.state.exited(&Ok(0));
        for _ in 0..2 {
            let mut said = Vec::new();
            let take = |piece: Piece| {
                said.extend(piece.record.bytes);
                Ok(())
            };
            log.read(take).await.unwrap();
            assert_eq!(said, b"one\n");
            log.rewind().unwrap();
        }
    }
}
