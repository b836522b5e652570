//! One process with its streams connected: the part that `run` and `exec`, in front and detached, have in common.
//!
//! ```text
//! standard input ──> stdin            (with -i; else the process sees its end at once)
//! stdout, stderr ──> ours, and the pod's log
//! signals        ──> the process      (a raw terminal's Ctrl-C is a byte of its input)
//! SIGWINCH       ──> the size of its tty
//! ```
//! A session is over when the process has ended *and* all its output has been delivered. Only a surviving child of an
//! exec can hold the output open after that; it is given [`LINGER`] of silence, not for ever.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::time::Duration;

use hyperstart::{Container, Process};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{Error, Result};
use crate::escalation::{Escalation, Step};
use crate::output;
use crate::pod::client;
use crate::pod::output_log::{Stream, Writer};
use crate::signals::{Event, SIGKILL, Signals};
use crate::terminal::{self, RawMode};

/// How long output may stay silent, once the process has ended, before a surviving child's hold on it is ignored.
const LINGER: Duration = Duration::from_millis(500);
/// The guest is given this long to take a signal; then the caller ends the VM or gives up.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;

/// What the process is connected to.
pub struct Session<'a> {
    pub process: &'a Process,
    /// Set for a container's own process: signals then go to the container, as Kata's rules for its init want it.
    pub container: Option<&'a Container>,
    pub tty: bool,
    /// Standard input goes to the process.
    pub interactive: bool,
    /// Output goes to our own streams; a detached pod's goes to the log alone.
    pub attached: bool,
    pub log: Option<RefCell<Log>>,
    /// When the first byte came, for the boot receipt.
    pub first_output: Cell<Option<std::time::Instant>>,
}

/// Writes a pod's output log; a log that cannot be written costs the log, not the container.
pub struct Log {
    writer: Option<Writer>,
}

impl Log {
    pub fn new(writer: io::Result<Writer>) -> Log {
        Log { writer: writer.map_err(Log::complain).ok() }
    }

    fn append(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(Err(err)) = self.writer.as_mut().map(|log| log.append(stream, bytes)) {
            Log::complain(err);
            self.writer = None;
        }
    }

    fn complain(err: io::Error) {
        output::warn(format_args!("write output log: {err}; the container goes on without it"));
    }
}

impl Session<'_> {
    /// What must be so before the process can write or read its first byte.
    pub async fn prepare(&self) -> Result<Option<RawMode>> {
        self.resize().await;
        if !self.interactive && !self.tty {
            self.close_stdin().await?;
        }
        if self.tty && self.interactive && self.attached {
            return RawMode::enter().map(Some);
        }
        Ok(None)
    }

    /// Runs to the process's end, and gives its exit code. Dropping it ends nothing in the guest.
    pub async fn run(&self, signals: &mut Signals) -> Result<u8> {
        let (ended, over) = watch::channel(false);
        let waited = async {
            let status = self.process.wait().await;
            let status = status.map_err(|err| client::guest_error(&err))?;
            ended.send_replace(true);
            Ok(status.code())
        };
        let stdout = self.pump(self.process.stdout(), tokio::io::stdout(), Stream::Stdout, &over);
        let stderr = async {
            if self.tty {
                return Ok(()); // a tty has one stream
            }
            self.pump(self.process.stderr(), tokio::io::stderr(), Stream::Stderr, &over).await
        };
        let delivered = async {
            let (code, (), ()) = tokio::try_join!(waited, stdout, stderr)?;
            Ok(code)
        };
        let outcome = tokio::select! {
            outcome = delivered => outcome,
            err = self.feed() => Err(err),
            err = self.control(signals) => Err(err),
        };
        if outcome.as_ref().is_err_and(|err| !err.is_lost()) {
            self.kill().await; // nobody is left to read what it writes
        }
        outcome
    }

    /// Copies one stream to the end, or to the end of the process and a silence after it.
    async fn pump(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        stream: Stream,
        over: &watch::Receiver<bool>,
    ) -> Result<()> {
        let mut over = over.clone();
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = tokio::select! {
                biased;
                length = from.read(&mut chunk) => length.map_err(|err| Session::failed(&err))?,
                () = silence(&mut over) => return Ok(()),
            };
            let Some(bytes @ [_, ..]) = chunk.get(..length) else { return Ok(()) };
            if self.first_output.get().is_none() {
                self.first_output.set(Some(std::time::Instant::now()));
            }
            if let Some(log) = &self.log {
                log.borrow_mut().append(stream, bytes);
            }
            if self.attached {
                let written = async {
                    to.write_all(bytes).await?;
                    to.flush().await // tokio's standard streams write behind
                };
                written.await.map_err(|err| Error::output(name(stream), &err))?;
            }
        }
    }

    /// Copies standard input to the process, and its end too. Returns only when reading fails.
    async fn feed(&self) -> Error {
        if !self.interactive || !self.attached {
            return std::future::pending().await;
        }
        let (mut from, mut to) = (tokio::io::stdin(), self.process.stdin());
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = match from.read(&mut chunk).await {
                Ok(length) => length,
                Err(err) => return Error::new(format!("read standard input: {err}")),
            };
            let written = match chunk.get(..length) {
                Some(bytes @ [_, ..]) => to.write_all(bytes).await,
                Some(_) | None => to.shutdown().await,
            };
            // A process that ended, or closed its input, is not interested: its exit code tells the rest.
            if length == 0 || written.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Acts on signals. Returns only when the process cannot be ended by one.
    async fn control(&self, signals: &mut Signals) -> Error {
        let mut escalation = Escalation::new(self.attached);
        loop {
            let step = tokio::select! {
                event = signals.next() => match event {
                    Event::Forward(signal) => escalation.signal(signal, Instant::now()),
                    Event::Resize => {
                        self.resize().await;
                        Step::Ignore
                    }
                },
                () = at(escalation.deadline()) => escalation.overdue(Instant::now()),
            };
            match step {
                Step::Send(signal) => self.signal(signal).await,
                Step::Ignore => {}
                Step::GiveUp => return Session::unkillable(),
            }
        }
    }

    async fn signal(&self, signal: u32) {
        match timeout(SIGNAL_DEADLINE, self.send(signal)).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => output::warn(format_args!("signal {signal}: {err}")),
            Err(_) => output::warn(format_args!("signal {signal}: the guest does not answer")),
        }
    }

    async fn kill(&self) {
        if let Ok(Err(err)) = timeout(SIGNAL_DEADLINE, self.send(SIGKILL)).await {
            drop(err); // it may have ended already, and what made us kill it is being reported
        }
    }

    async fn send(&self, signal: u32) -> hyperstart::Result<()> {
        match self.container {
            Some(container) => container.signal(signal).await,
            None => self.process.signal(signal).await,
        }
    }

    /// Gives the process's tty the size of our terminal, if both have one.
    async fn resize(&self) {
        let Some(size) = terminal::size().filter(|_| self.tty && self.attached) else { return };
        if let Err(err) = self.process.resize(size.columns, size.rows).await {
            drop(err); // a process that has just ended has no tty to resize
        }
    }

    async fn close_stdin(&self) -> Result<()> {
        match self.process.stdin().shutdown().await {
            Ok(()) => Ok(()),
            // It has ended already, and its input with it.
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::BrokenPipe) => Ok(()),
            Err(err) => Err(Session::failed(&err)),
        }
    }

    /// A stream of the guest's that failed.
    fn failed(err: &io::Error) -> Error {
        let lost = err.kind() == ErrorKind::ConnectionReset;
        Error::new(err.to_string()).with_lost(lost)
    }

    fn unkillable() -> Error {
        Error::new("the process does not end, not even by SIGKILL")
    }
}

/// Ends when the process has ended and nothing else happened for [`LINGER`].
async fn silence(over: &mut watch::Receiver<bool>) {
    match over.wait_for(|over| *over).await {
        Ok(_) => tokio::time::sleep(LINGER).await,
        Err(_) => std::future::pending().await, // the wait failed, and that is being reported
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    }
}
