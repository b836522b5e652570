//! A container of a pod in its host's hands, the first or a further one: its output goes to its log, its exit code into
//! its record, and whoever is in front is waited for.
//!
//! The log is a reader of the guest's rings with a name, and takes note of what it has by asking for what comes after: a
//! host that is killed between two writes leaves nothing out and nothing twice. The exit code is written down as soon
//! as it is known, before anything else that the end brings.

use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use hyperstart::{Chunk, Container as Guest, Process};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::output;
use crate::pod::client;
use crate::pod::control::Line;
use crate::pod::follow::{Follower, Source};
use crate::pod::fronts::Fronts;
use crate::pod::output_log::{Ends, Stream, Writer};
use crate::pod::state::State;
use crate::pod::store::Claim;

/// The name of the log's reader in the guest.
const READER: &str = "log";

pub struct Contained {
    pub container: Guest,
    pub process: Process,
    pub fronts: Rc<Fronts>,
    /// `None` once it was recorded.
    claim: RefCell<Option<Claim>>,
    pub first_output: Cell<Option<Instant>>,
}

impl Contained {
    pub fn new(container: Guest, claim: Claim) -> Contained {
        let process = container.process();
        let fronts = Rc::new(Fronts::new(process.clone(), claim.state.readers.clone()));
        let (claim, first_output) = (RefCell::new(Some(claim)), Cell::new(None));
        Contained { container, process, fronts, claim, first_output }
    }

    /// The record as it is now; before it was taken.
    pub fn state(&self) -> Result<Ref<'_, State>> {
        let state =
            Ref::filter_map(self.claim.borrow(), |claim| claim.as_ref().map(|claim| &claim.state));
        state.map_err(|_| Error::new("its record is closed"))
    }

    /// Where its files are.
    pub fn dir(&self) -> Option<PathBuf> {
        self.claim.borrow().as_ref().map(|claim| claim.dir.clone())
    }

    /// Changes the record, and writes it.
    pub fn edit(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        match self.claim.borrow_mut().as_mut() {
            Some(claim) => {
                change(&mut claim.state);
                claim.save()
            }
            None => Ok(()),
        }
    }

    /// Takes the record, to close it.
    pub fn take(&self) -> Option<Claim> {
        self.claim.borrow_mut().take()
    }

    /// Writes down who is in front.
    pub fn note_readers(&self) {
        let noted = self.edit(|state| state.readers = self.fronts.names());
        if let Err(err) = noted {
            output::warn(err.message());
        }
    }

    /// Serves one who is in front.
    pub async fn attach(&self, reader: &str, mut line: Line) {
        let served = self.fronts.serve(reader, &mut line, || self.note_readers()).await;
        if let Err(err) = served {
            log::debug!("attached: {}", err.message()); // whoever it was is gone
        }
    }

    /// From its start to its exit code, with all its output in the log.
    pub async fn run_to_end(&self, log: Log, ends: Ends) -> Result<u8> {
        let log = RefCell::new(log);
        let (exited, over) = watch::channel(false);
        let waited = async {
            let status = self.process.wait().await.map_err(|err| client::guest_error(&err))?;
            self.edit(|state| state.exit = Some(status.code()))?;
            exited.send_replace(true);
            Ok(status.code())
        };
        let stdout = self.keep(&log, Stream::Stdout, ends.stdout, &over);
        let stderr = self.keep(&log, Stream::Stderr, ends.stderr, &over);
        let expire = self.fronts.expire(|| self.note_readers());
        tokio::select! {
            all = async { tokio::try_join!(waited, stdout, stderr) } => all.map(|(code, (), ())| code),
            () = expire => Err(Error::new("nobody in front")), // it never ends
        }
    }

    /// Waits until everybody in front has all of it.
    pub async fn delivered(&self) {
        tokio::select! {
            () = self.fronts.all_delivered() => {}
            () = self.fronts.expire(|| self.note_readers()) => {}
        }
    }

    async fn keep(
        &self,
        log: &RefCell<Log>,
        stream: Stream,
        offset: u64,
        over: &watch::Receiver<bool>,
    ) -> Result<()> {
        let source = Source::Process(&self.process);
        let mut follower = Follower::new(source, stream.into(), READER, offset);
        let take = async |chunk: &Chunk| {
            if self.first_output.get().is_none() {
                self.first_output.set(Some(Instant::now()));
            }
            log.borrow_mut().append(stream, chunk.offset, &chunk.data);
            Ok(())
        };
        follower.deliver(over, take).await
    }
}

/// Writes a container's output log; a log that cannot be written costs the log, not the container.
pub struct Log {
    writer: Option<Writer>,
}

impl Log {
    pub fn new(writer: io::Result<Writer>) -> Log {
        Log { writer: writer.map_err(Log::complain).ok() }
    }

    /// Goes on with a log, from where it ends.
    pub fn resume(resumed: io::Result<(Writer, Ends)>) -> (Log, Ends) {
        match resumed {
            Ok((writer, ends)) => (Log { writer: Some(writer) }, ends),
            Err(err) => (Log::new(Err(err)), Ends::default()),
        }
    }

    fn append(&mut self, stream: Stream, offset: u64, bytes: &[u8]) {
        if let Some(Err(err)) = self.writer.as_mut().map(|log| log.append(stream, offset, bytes)) {
            Log::complain(err);
            self.writer = None;
        }
    }

    fn complain(err: io::Error) {
        output::warn(format_args!("write output log: {err}; the container goes on without it"));
    }
}
