//! One output of a process: a task that moves bytes from its pipe or terminal into the ring, and those who read it.
//! ```text
//! process ─ pipe, pty ─▶ pump ─▶ ring ─▶ reader, reader, …
//!              full: it waits ◀─ full: the pump does not read
//! ```
//! The end is what the kernel says it is: the last writer is gone. It is told after the last byte, and never changes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::counted::Counted;
use super::end::{End, Got};
use super::ring::{KATA, Reader, Ring, Start};
use crate::error::{Code, Error, Result};
use crate::log;

/// The most that one answer has.
pub const READ_MAX: usize = 64 << 10;

/// How often a terminal is looked at that no process has open: the kernel does not say when one opens it again.
const REOPENING: Duration = Duration::from_millis(100);

pub struct Output {
    /// None once it has ended.
    end: RefCell<Option<Rc<End>>>,
    ring: RefCell<Ring>,
    /// Bytes, or the end, have come.
    arrived: Notify,
    /// Readers have taken some.
    taken: Notify,
    ended: Cell<bool>,
    drained: Cell<bool>,
    /// A reader knows that it has ended.
    told_end: Cell<bool>,
    /// It has, or had, a reader with a name of its own.
    kept: Cell<bool>,
}

/// How far an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputState {
    /// The lowest offset that is kept.
    pub oldest: u64,
    /// That of the next byte.
    pub end: u64,
    /// There will be none.
    pub ended: bool,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub data: Vec<u8>,
    /// Nothing comes after this.
    pub end: bool,
}

/// Moves an output's bytes until it is dropped.
pub struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Output {
    pub fn new(end: Rc<End>, capacity: usize) -> (Rc<Self>, Pump) {
        let output = Rc::new(Self::of(Some(end), capacity));
        (Rc::clone(&output), Pump(spawn_local(async move { output.pump().await })))
    }

    /// One that never says anything.
    pub fn none() -> Rc<Self> {
        let output = Self::of(None, 0);
        output.ended.set(true);
        output.told_end.set(true);
        Rc::new(output)
    }

    fn of(end: Option<Rc<End>>, capacity: usize) -> Self {
        Self {
            end: RefCell::new(end),
            ring: RefCell::new(Ring::new(capacity)),
            arrived: Notify::new(),
            taken: Notify::new(),
            ended: Cell::new(false),
            drained: Cell::new(false),
            told_end: Cell::new(false),
            kept: Cell::new(false),
        }
    }

    async fn pump(&self) {
        while let Some(end) = self.source() {
            let taken = self.taken.notified();
            if !self.ring.borrow_mut().has_room() {
                drop(end);
                taken.await;
                continue;
            }
            match end.when_readable(|| self.fill(&end, false)).await {
                Ok(Got::Left) => sleep(REOPENING).await,
                Ok(Got::Bytes { .. } | Got::Nothing | Got::End) => {}
                Err(err) => self.fail(&err),
            }
        }
    }

    fn source(&self) -> Option<Rc<End>> {
        self.end.borrow().clone()
    }

    /// Takes what one read gives, unless it has ended meanwhile.
    fn fill(&self, end: &End, beyond: bool) -> Result<Got> {
        if self.ended.get() {
            return Ok(Got::End);
        }
        let got = self.ring.borrow_mut().append(beyond, |chunk| end.read(chunk))?;
        match got {
            Got::Bytes { .. } => self.arrived.notify_waiters(),
            Got::End => self.finish(),
            Got::Left if self.drained.get() => self.finish(), // it has exited, and nobody else has it
            Got::Left | Got::Nothing => {}
        }
        Ok(got)
    }

    fn finish(&self) {
        self.ended.set(true);
        self.end.take();
        self.arrived.notify_waiters();
    }

    /// A read that fails for another reason than those of [`End::read`] does not happen; it would be the end.
    fn fail(&self, err: &Error) {
        log::error!("read output: {err}");
        self.finish();
    }

    /// Takes what its pipe or terminal holds, room or not: after the process's exit, all that this has written.
    pub fn drain(&self) {
        let Some(end) = self.source().filter(|_| !self.drained.replace(true)) else { return };
        let mut rest = end.holds();
        while rest > 0 {
            match self.fill(&end, true) {
                Ok(Got::Bytes { count, .. }) => rest = rest.saturating_sub(count),
                Ok(Got::Nothing | Got::End | Got::Left) => return,
                Err(err) => return self.fail(&err),
            }
        }
    }

    pub fn state(&self) -> OutputState {
        let ring = self.ring.borrow();
        OutputState { oldest: ring.oldest(), end: ring.end(), ended: self.ended.get() }
    }

    /// Whether nobody wants anything of it any more: it has ended, one reader knows, and all have taken everything.
    pub fn is_read_to_end(&self) -> bool {
        self.told_end.get() && self.ring.borrow().is_taken()
    }

    pub fn is_kept(&self) -> bool {
        self.kept.get()
    }

    /// The reader has everything below where it starts.
    pub fn attach(&self, reader: &Reader, start: Start) -> Result<u64> {
        let position = self.ring.borrow_mut().attach(reader, start)?;
        if matches!(reader, Reader::Named(name) if name != KATA) {
            self.kept.set(true);
        }
        self.taken.notify_one();
        Ok(position)
    }

    /// A reader, which is at its end, has been told so.
    pub fn told_end(&self) {
        self.told_end.set(true);
    }

    pub fn release(&self, reader: &Reader) -> bool {
        let released = self.ring.borrow_mut().release(reader);
        self.taken.notify_one();
        released
    }

    /// What is there at an offset, be it nothing.
    pub fn look(&self, start: Start, most: usize) -> Result<Chunk> {
        let ring = self.ring.borrow();
        let offset = ring.locate(start)?;
        let data = ring.copy(offset, most.clamp(1, READ_MAX));
        let end = self.ended.get() && offset + data.len() as u64 == ring.end();
        Ok(Chunk { offset, data, end })
    }

    /// As [`Self::look`], once there is a byte or the end.
    pub async fn read(&self, start: Start, most: usize) -> Result<Chunk> {
        loop {
            let arrived = self.arrived.notified();
            let chunk = self.look(start, most)?;
            if chunk.end || !chunk.data.is_empty() {
                return Ok(chunk);
            }
            arrived.await;
        }
    }

    /// The next bytes for who keeps no account, Kata's way; none: the end. What is answered is taken.
    pub async fn read_next(&self, most: usize) -> Result<Vec<u8>> {
        let kata = Reader::Named(KATA.to_owned());
        loop {
            let arrived = self.arrived.notified();
            let known = self.ring.borrow().position(&kata);
            let start = Start { offset: known.unwrap_or_default(), or_oldest: known.is_none() };
            let Chunk { offset, data, end } = self.look(start, most)?;
            self.attach(&kata, Start { offset: offset + data.len() as u64, or_oldest: false })?;
            if !data.is_empty() {
                return Ok(data);
            }
            if end {
                self.told_end();
                return Ok(data);
            }
            arrived.await;
        }
    }

    /// A reader has everything below an offset. To say less than before has no effect.
    pub fn taken(&self, reader: &Reader, offset: u64) -> Result<()> {
        let position = self.ring.borrow().position(reader);
        match position {
            None => Err(Error::new(Code::NotFound, "the reader was released")),
            Some(position) if offset <= position => Ok(()),
            Some(_) => self.attach(reader, Start { offset, or_oldest: false }).map(drop),
        }
    }

    pub fn is_wide(&self) -> bool {
        self.ring.borrow().is_wide()
    }

    /// See [`Ring::widen_if_full`] and [`Ring::narrow`].
    pub fn widen_if_full(&self, place: impl FnOnce() -> Option<Counted>) {
        self.ring.borrow_mut().widen_if_full(place);
    }

    pub fn narrow(&self) {
        self.ring.borrow_mut().narrow();
    }

    /// Waits for bytes at an offset, and says how many there are; none: the end.
    pub async fn wait_at(&self, offset: u64) -> Result<Option<usize>> {
        loop {
            let arrived = self.arrived.notified();
            let end = {
                let ring = self.ring.borrow();
                ring.locate(Start { offset, or_oldest: false })?;
                ring.end()
            };
            if end > offset {
                return Ok(Some(usize::try_from(end - offset).unwrap_or(usize::MAX)));
            }
            if self.ended.get() {
                return Ok(None);
            }
            arrived.await;
        }
    }

    /// Gives what is there from `offset` on to `read`, in place; none: it is no longer kept.
    pub fn with_pieces<T>(
        &self,
        offset: u64,
        read: impl FnOnce(&mut dyn Iterator<Item = &[u8]>) -> T,
    ) -> Option<T> {
        let ring = self.ring.borrow();
        (offset >= ring.oldest()).then(|| read(&mut ring.pieces(offset)))
    }
}

/// A reader's name from outside: none for a look.
pub fn reader_named(name: &str) -> Result<Option<Reader>> {
    const LENGTH_MAX: usize = 64;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() {
        return Ok(None);
    }
    if name.len() > LENGTH_MAX || !name.bytes().all(allowed) {
        let message = format!("reader: not 1 to {LENGTH_MAX} of [A-Za-z0-9_.-]");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    Ok(Some(Reader::Named(name.to_owned())))
}
