//! Where the contents of a layer's files are noted: in the archive, if that is a file, else where they are copied to.

use crate::content::Content;
use crate::error::{Error, Result};
use crate::spool::Spool;
use crate::tar::{Archive, Entry, Source};
use std::fs::File;
use std::rc::Rc;

/// Where contents can be read later.
pub enum Place<'a> {
    /// The archive is this file, uncompressed, from this offset on.
    File(Rc<File>, u64),
    /// They must be copied while they pass by.
    Spool(&'a mut Spool),
}

/// Notes where the bytes of a file are, after copying them where they would be gone.
pub fn content<S: Source>(
    archive: &mut Archive<S>,
    entry: &Entry,
    place: &mut Place<'_>,
    buffer: &mut [u8],
) -> Result<Content> {
    match place {
        Place::File(file, start) => in_archive(file, *start + entry.offset, entry),
        Place::Spool(spool) => in_spool(archive, entry, spool, buffer),
    }
}

/// A sparse file's stretches lie in the archive one behind the other.
fn in_archive(file: &Rc<File>, offset: u64, entry: &Entry) -> Result<Content> {
    let Some(map) = &entry.sparse else {
        return Ok(Content::stretch(file, offset, entry.size));
    };
    let mut at = offset;
    let mut stretches = Vec::with_capacity(map.len());
    for (start, length) in map {
        stretches.push((*start, at, *length));
        at += length;
    }
    Content::sparse(file, entry.size, &stretches)
}

/// In the spool everything lies where it is in the file.
fn in_spool<S: Source>(
    archive: &mut Archive<S>,
    entry: &Entry,
    spool: &mut Spool,
    buffer: &mut [u8],
) -> Result<Content> {
    let offset = spool.begin()?;
    let whole = [(0, entry.size)];
    let map = entry.sparse.as_deref().unwrap_or(&whole);
    let mut waiting = map.iter().copied();
    let (mut start, mut left) = (0, 0);
    archive.copy_data(buffer, |mut piece| {
        while !piece.is_empty() {
            while left == 0 {
                // the map was checked against the stored bytes
                (start, left) =
                    waiting.next().ok_or_else(|| Error::refused("its map is too short"))?;
            }
            let size = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            let (now, rest) = piece.split_at_checked(size).unwrap_or((piece, &[]));
            spool.skip_to(offset + start)?;
            spool.append(now)?;
            (start, left, piece) = (start + size as u64, left - size as u64, rest);
        }
        Ok(())
    })?;
    spool.skip_to(offset + entry.size)?;
    let stretches: Vec<_> =
        map.iter().map(|(start, length)| (*start, offset + start, *length)).collect();
    Content::sparse(spool.file(), entry.size, &stretches)
}
