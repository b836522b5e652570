//! Where decompressed bytes wait until the image is written: a file without a name, so nothing of it is left whatever
//! ends the program. It lies on the file system of the output, which has room for them or has no room for the image.
//!
//! A layer's spool is the image itself ([`crate::erofs::Draft`]): each file begins at a block of it, and is written once.

use crate::error::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

/// Small files are written together, in pieces of this size.
const PIECE: usize = 1 << 20;
/// So many zeros in a row become a hole.
const HOLE: usize = 4096;

pub struct Spool {
    file: Rc<File>,
    /// Bytes that are not yet written, and where they go.
    waiting: Vec<u8>,
    start: u64,
    alignment: u64,
}

impl Spool {
    /// An empty spool on the file system of this directory.
    pub fn new(directory: &Path) -> Result<Spool> {
        let file = tempfile::tempfile_in(directory)
            .context(|| format!("create a temporary file in {directory:?}"))?;
        Ok(Spool::within(Rc::new(file), 0, 1))
    }

    /// A part of a file: from `start` on, each stretch at a multiple of `alignment`.
    pub fn within(file: Rc<File>, start: u64, alignment: u64) -> Spool {
        Spool { file, waiting: Vec::new(), start, alignment }
    }

    pub fn file(&self) -> &Rc<File> {
        &self.file
    }

    /// Where the next byte goes.
    pub fn end(&self) -> u64 {
        self.start + self.waiting.len() as u64
    }

    /// Where the next stretch begins.
    pub fn begin(&mut self) -> Result<u64> {
        let start = self.end().next_multiple_of(self.alignment);
        self.skip_to(start)?;
        Ok(start)
    }

    /// Goes on at this place; what is skipped reads as zeros.
    pub fn skip_to(&mut self, place: u64) -> Result<()> {
        let gap = place.saturating_sub(self.end());
        match usize::try_from(gap).ok().filter(|gap| *gap < HOLE) {
            Some(gap) => self.waiting.resize(self.waiting.len() + gap, 0),
            None => {
                self.write()?;
                self.start += gap;
            }
        }
        Ok(())
    }

    /// Appends bytes; a piece of zeros alone becomes a hole.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= HOLE && bytes.iter().all(|byte| *byte == 0) {
            return self.skip_to(self.end() + bytes.len() as u64);
        }
        self.waiting.extend_from_slice(bytes);
        match self.waiting.len() < PIECE {
            true => Ok(()),
            false => self.write(),
        }
    }

    /// Writes what waits, so that all of it can be read.
    pub fn flush(&mut self) -> Result<()> {
        self.write()?;
        let operation = || "write to the temporary file".into();
        let length = self.file.metadata().context(operation)?.len();
        match length < self.start {
            true => self.file.set_len(self.start).context(operation), // it ends in a hole
            false => Ok(()),
        }
    }

    fn write(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.waiting, self.start)
            .context(|| "write to the temporary file".into())?;
        self.start += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_begin_where_they_must_and_gaps_are_zeros() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let mut spool = Spool::within(Rc::clone(&file), 4096, 4096);
        assert_eq!(spool.begin().unwrap(), 4096);
        spool.append(b"one").unwrap();
        assert_eq!(spool.begin().unwrap(), 8192);
        spool.append(&[7; 5000]).unwrap();
        spool.append(&[0; 1 << 21]).unwrap();
        let end = spool.end();
        spool.flush().unwrap();
        assert_eq!((end, file.metadata().unwrap().len()), (8192 + 5000 + (2 << 20), end));
        let mut bytes = vec![1; 4096 + 5000 + 10];
        file.read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!((&bytes[..3], &bytes[4096 - 1..4098]), (&b"one"[..], &[0, 7, 7][..]));
        assert_eq!(bytes[4096 + 4999..4096 + 5001], [7, 0]);
    }
}
