//! One process with its streams connected to ours: the part that `run`, `exec` and `attach` in front have in common.
//!
//! ```text
//! standard input ──> stdin            (with -i; else the process sees its end at once)
//! stdout, stderr ──> ours             (by offset: nothing is lost when a connection or a host is)
//! signals        ──> the process      (a raw terminal's Ctrl-C is a byte of its input)
//! SIGWINCH       ──> the size of its tty
//! ```
//! A session is over when the process has ended *and* all its output has been delivered. Only a surviving child can hold
//! the output open after that; it is given a moment of silence, not for ever. A consumer that stops reading stops the
//! process: what we have not written, the guest keeps.

use std::time::Duration;

use hyperstart::{Chunk, Code, Process, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::detach_keys::{Keys, Watch};
use crate::error::{Error, Result};
use crate::escalation::{Escalation, Step};
use crate::output;
use crate::pod::client;
use crate::pod::follow::{Follower, Source};
use crate::pod::link::Link;
use crate::signals::{Event, SIGHUP, SIGKILL, Signals};
use crate::terminal::{self, RawMode, Size};
use crate::time::at;

/// The guest is given this long to take a signal; then the caller ends the VM or gives up.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;

/// What the process is connected to.
pub struct Session<'a> {
    /// To the process. One that is a container's own gets its signals as the container, as Kata's rules for its init want
    /// it.
    pub link: &'a Link,
    /// The name by which our output is kept for us.
    pub reader: &'a str,
    pub tty: bool,
    /// Standard input goes to the process.
    pub interactive: bool,
    /// Where the process's input and outputs have got to.
    pub from: Offsets,
    /// We have started it: it ends if nobody is left in front, by a hang-up or a failure. Else it is left to itself.
    pub ours: bool,
    /// What leaves it to itself when it is typed on a terminal.
    pub detach_keys: Keys,
}

/// How much of each stream was taken before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    pub stdin: u64,
    pub stdout: u64,
    pub stderr: u64,
}

/// What must be so before a process can write or read its first byte.
pub async fn prepare(
    process: &Process,
    tty: bool,
    interactive: bool,
    size: Option<Size>,
) -> Result<()> {
    if let Some(size) = size.filter(|_| tty) {
        process.resize(size.columns, size.rows).await.map_err(|err| client::guest_error(&err))?;
    }
    if interactive || tty {
        return Ok(());
    }
    match process.write_input(0, &[], true).await {
        // It has ended already, and its input with it.
        Err(err) if err.code() != Code::NotFound => Err(client::guest_error(&err)),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Session<'_> {
    /// Runs to the process's end, and gives its exit code. The process has all of the terminal until then, if it is to
    /// have it. Dropping it ends nothing in the guest.
    pub async fn run(&self, signals: &mut Signals) -> Result<u8> {
        self.resize().await;
        let _raw = if self.tty && self.interactive { Some(RawMode::enter()?) } else { None };
        let outcome = tokio::select! {
            outcome = self.connect() => outcome,
            err = self.control(signals) => Err(err),
        };
        if outcome.as_ref().is_err_and(|err| self.ours && !err.is_lost() && !err.is_detached()) {
            self.kill().await; // nobody is left to read what it writes
        }
        outcome
    }

    /// Input begins when the answer to it can no longer be missed.
    async fn connect(&self) -> Result<u8> {
        let mut stdout = self.follower(Stream::Stdout, self.from.stdout);
        let mut stderr = self.follower(Stream::Stderr, self.from.stderr);
        tokio::try_join!(stdout.begin(), stderr.begin())?;
        let (ended, over) = watch::channel(false);
        let waited = async {
            let status = self.link.call(async |process| process.wait().await).await?;
            let status = status.map_err(|err| client::guest_error(&err))?;
            ended.send_replace(true);
            Ok(status.code())
        };
        let stdout = pump(stdout, "standard output", tokio::io::stdout(), &over);
        let stderr = pump(stderr, "standard error", tokio::io::stderr(), &over);
        let delivered = async {
            let (code, (), ()) = tokio::try_join!(waited, stdout, stderr)?;
            Ok(code)
        };
        tokio::select! {
            outcome = delivered => outcome,
            err = self.feed() => Err(err),
        }
    }

    fn follower(&self, stream: Stream, offset: u64) -> Follower<'_> {
        Follower::new(Source::Link(self.link), stream, self.reader, offset)
    }

    /// Copies standard input to the process, and its end too. Returns only when reading fails, or when the user leaves.
    async fn feed(&self) -> Error {
        if !self.interactive {
            return std::future::pending().await;
        }
        let (mut from, mut offset) = (tokio::io::stdin(), self.from.stdin);
        let mut watch = self.tty.then(|| Watch::new(self.detach_keys.clone()));
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = match from.read(&mut chunk).await {
                Ok(length) => length,
                Err(err) => return Error::new(format!("read standard input: {err}")),
            };
            let typed = chunk.get(..length).unwrap_or_default();
            let end = typed.is_empty();
            let (bytes, left) = match &mut watch {
                Some(watch) => watch.pass(typed),
                None => (typed.to_vec(), false),
            };
            let write = async |process: &Process| process.write_input(offset, &bytes, end).await;
            let written = self.link.call(write).await;
            match written {
                _ if left => return Error::detached(),
                Ok(Ok(taken)) if !end => offset = taken,
                // A process that ended, or closed its input, is not interested: its exit code tells the rest.
                Ok(Ok(_) | Err(_)) | Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Acts on signals. Returns only when the process cannot be ended by one, or is left to itself.
    async fn control(&self, signals: &mut Signals) -> Error {
        let mut escalation = Escalation::new(true);
        loop {
            let step = tokio::select! {
                event = signals.next() => match event {
                    Event::Forward(SIGHUP) if !self.ours => return Error::hung_up(),
                    Event::Forward(signal) => escalation.signal(signal, Instant::now()),
                    Event::Resize => {
                        self.resize().await;
                        Step::Ignore
                    }
                },
                () = at(escalation.deadline()) => escalation.overdue(Instant::now()),
            };
            match step {
                Step::Send(signal) => send(signal, async || self.signal(signal).await).await,
                Step::Ignore => {}
                Step::GiveUp => return unkillable(),
            }
        }
    }

    async fn kill(&self) {
        if let Ok(Err(err)) = timeout(SIGNAL_DEADLINE, self.signal(SIGKILL)).await {
            drop(err); // it may have ended already, and what made us kill it is being reported
        }
    }

    async fn signal(&self, signal: u32) -> Result<()> {
        let sent = match self.link.is_exec() {
            true => self.link.once(async |process| process.signal(signal).await).await?,
            false => self.link.container().await?.signal(signal).await,
        };
        sent.map_err(|err| client::guest_error(&err))
    }

    /// Gives the process's tty the size of our terminal, if both have one.
    async fn resize(&self) {
        let Some(size) = terminal::size().filter(|_| self.tty) else { return };
        let resize = async |process: &Process| process.resize(size.columns, size.rows).await;
        if let Err(err) = self.link.once(resize).await {
            drop(err); // a process that has just ended has no tty to resize
        }
    }
}

async fn pump(
    mut follower: Follower<'_>,
    name: &str,
    mut to: impl AsyncWrite + Unpin,
    over: &watch::Receiver<bool>,
) -> Result<()> {
    let take = async |chunk: &Chunk| {
        let written = async {
            to.write_all(&chunk.data).await?;
            to.flush().await // tokio's standard streams write behind
        };
        written.await.map_err(|err| Error::output(name, &err))
    };
    follower.deliver(over, take).await
}

/// Has a signal sent, and says so if it cannot be.
pub async fn send<E: std::fmt::Display>(
    signal: u32,
    send: impl AsyncFnOnce() -> std::result::Result<(), E>,
) {
    match timeout(SIGNAL_DEADLINE, send()).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => output::warn(format_args!("signal {signal}: {err}")),
        Err(_) => output::warn(format_args!("signal {signal}: the guest does not answer")),
    }
}

pub fn unkillable() -> Error {
    Error::new("the process does not end, not even by SIGKILL")
}
