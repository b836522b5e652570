//! What was written to an output and not yet taken by all its readers, by offset.
//!
//! ```text
//! 0          oldest              position of a reader          end
//! |  taken,  |  kept: chunks, freed one by one  ...            |
//! |  gone    |<------------- at most the capacity ------------>|
//! ```
//! `oldest` is the lowest position of all readers, and stays where it is while there is none. Chunks are made as they
//! are needed, small for who writes little. Offsets are the same for everybody and never come back.

use std::collections::VecDeque;

use super::counted::Counted;
use crate::error::{Code, Error, Result};

/// How Kata's ReadStdout and ReadStderr are called among the readers.
pub const KATA: &str = "kata";
/// Readers with a name of their own; more would be a host that has lost count.
const NAMED_MOST: usize = 8;
/// The size of the first chunk, and of the largest.
const FIRST_CHUNK: usize = 2 << 10;
const LARGEST_CHUNK: usize = 32 << 10;
/// How much more a wide one holds than by default, and to what it grows by that.
const WIDER: usize = 8;
const WIDEST: usize = 512 << 10;
/// The most chunks that are kept to be used again.
const SPARE: usize = 8;

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// One that is remembered when its client is gone.
    Named(String),
    /// One that lasts as long as its connection.
    Connection(u64),
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub offset: u64,
    /// At the lowest that is kept, if that is higher.
    pub or_oldest: bool,
}

pub struct Ring {
    chunks: VecDeque<Vec<u8>>,
    /// Offset of the first chunk's first byte, which may have been taken.
    base: u64,
    oldest: u64,
    end: u64,
    /// What it holds by default, and at present.
    narrow: usize,
    capacity: usize,
    next_chunk: usize,
    /// Of those that are wide, until it holds no more than by default.
    wide: Option<Counted>,
    /// Chunks to be used again, while it is wide: new pages cost more than what is copied into them.
    spare: Vec<Vec<u8>>,
    /// It was full, and too little has been taken since.
    stalled: bool,
    positions: Vec<(Reader, u64)>,
}

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            base: 0,
            oldest: 0,
            end: 0,
            narrow: capacity,
            capacity,
            next_chunk: FIRST_CHUNK,
            wide: None,
            spare: Vec::new(),
            stalled: false,
            positions: Vec::new(),
        }
    }

    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    fn kept(&self) -> usize {
        usize::try_from(self.end - self.oldest).unwrap_or(usize::MAX)
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.kept())
    }

    pub fn is_wide(&self) -> bool {
        self.capacity > self.narrow
    }

    /// Holds more, in proportion to what it holds by default, if it was full and there is a place among those that do.
    pub fn widen_if_full(&mut self, place: impl FnOnce() -> Option<Counted>) {
        if !self.stalled {
            return;
        }
        self.wide = self.wide.take().or_else(place);
        if self.wide.is_some() {
            self.capacity = self.narrow.saturating_mul(WIDER).min(WIDEST).max(self.narrow);
        }
    }

    /// Holds what it holds by default, once what is too much was taken.
    pub fn narrow(&mut self) {
        self.capacity = self.narrow;
        self.spare = Vec::new();
        self.trim();
    }

    /// Whether more is to be read. After it was full a quarter must come free first: few large reads, not many small.
    pub fn has_room(&mut self) -> bool {
        let needed = if self.stalled { self.capacity / 4 } else { 1 };
        self.stalled = self.room() < needed;
        !self.stalled
    }

    /// Appends what `read` puts into the spare part of a buffer: within the capacity, unless it is `beyond`.
    pub fn append<T>(&mut self, beyond: bool, read: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let is_full = |chunk: &mut Vec<u8>| chunk.len() == chunk.capacity();
        if self.chunks.back_mut().is_none_or(is_full) {
            let room = if beyond { usize::MAX } else { self.room().max(1) };
            let spare = if room < LARGEST_CHUNK { None } else { self.spare.pop() };
            let chunk = spare.unwrap_or_else(|| Vec::with_capacity(self.next_chunk.min(room)));
            self.chunks.push_back(chunk);
        }
        let Some(chunk) = self.chunks.back_mut() else { return read(&mut Vec::new()) };
        let (before, spare) = (chunk.len(), chunk.capacity() - chunk.len());
        let result = read(chunk);
        let count = chunk.len() - before;
        if count == spare && spare >= self.next_chunk / 2 {
            self.next_chunk = (self.next_chunk * 2).min(LARGEST_CHUNK);
        }
        self.end += count as u64;
        self.trim();
        result
    }

    /// Where a read that begins so begins.
    pub fn locate(&self, start: Start) -> Result<u64> {
        let Start { offset, or_oldest } = start;
        if offset > self.end {
            return Err(out_of_range(offset, "its end is at", self.end));
        }
        if offset < self.oldest && !or_oldest {
            return Err(out_of_range(offset, "the lowest that is kept is", self.oldest));
        }
        Ok(offset.max(self.oldest))
    }

    /// A reader has everything below an offset, and nothing from there on is dropped until it has that too.
    pub fn attach(&mut self, reader: &Reader, start: Start) -> Result<u64> {
        let position = self.locate(start)?;
        match self.positions.iter_mut().find(|(known, _)| known == reader) {
            Some((_, known)) => *known = position,
            None => self.enter(reader.clone(), position)?,
        }
        self.trim();
        Ok(position)
    }

    fn enter(&mut self, reader: Reader, position: u64) -> Result<()> {
        let has_own_name = |reader: &Reader| matches!(reader, Reader::Named(name) if name != KATA);
        let known = self.positions.iter().filter(|(reader, _)| has_own_name(reader)).count();
        if has_own_name(&reader) && known == NAMED_MOST {
            let message = format!("it has {NAMED_MOST} readers, release one");
            return Err(Error::new(Code::ResourceExhausted, message));
        }
        self.positions.push((reader, position));
        Ok(())
    }

    /// Where a reader is, if it is one.
    pub fn position(&self, reader: &Reader) -> Option<u64> {
        self.positions.iter().find(|(known, _)| known == reader).map(|(_, position)| *position)
    }

    /// Forgets a reader. False: there is none such.
    pub fn release(&mut self, reader: &Reader) -> bool {
        let before = self.positions.len();
        self.positions.retain(|(known, _)| known != reader);
        self.trim();
        self.positions.len() < before
    }

    /// Every reader has taken all that there is.
    pub fn is_taken(&self) -> bool {
        self.positions.iter().all(|(_, position)| *position == self.end)
    }

    /// Frees what all readers have taken.
    fn trim(&mut self) {
        let lowest = self.positions.iter().map(|(_, position)| *position).min();
        self.oldest = lowest.unwrap_or(self.oldest).max(self.oldest);
        if !self.is_wide() && self.kept() <= self.narrow {
            self.wide = None;
        }
        while let Some(chunk) = self.chunks.front() {
            let after = self.base + chunk.len() as u64;
            if after > self.oldest {
                return;
            }
            self.base = after;
            let chunk = self.chunks.pop_front();
            let is_wide = self.is_wide() && self.spare.len() < SPARE;
            if let Some(mut chunk) =
                chunk.filter(|chunk| is_wide && chunk.capacity() == LARGEST_CHUNK)
            {
                chunk.clear();
                self.spare.push(chunk);
            }
        }
    }

    /// What is kept from `offset` on, piece by piece.
    pub fn pieces(&self, offset: u64) -> impl Iterator<Item = &[u8]> {
        let mut at = self.base;
        let pieces = self.chunks.iter().map(move |chunk| {
            let skip = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
            at += chunk.len() as u64;
            chunk.get(skip..).unwrap_or_default()
        });
        pieces.filter(|piece| !piece.is_empty())
    }

    /// What is kept from `offset` on, at most `most` bytes.
    pub fn copy(&self, offset: u64, most: usize) -> Vec<u8> {
        let kept = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = Vec::with_capacity(kept.min(most));
        for piece in self.pieces(offset) {
            let rest = most - data.len();
            data.extend_from_slice(piece.get(..rest).unwrap_or(piece));
        }
        data
    }
}

fn out_of_range(offset: u64, what: &str, bound: u64) -> Error {
    Error::new(Code::OutOfRange, format!("offset {offset}: {what} {bound}"))
}

#[cfg(test)]
mod tests;
