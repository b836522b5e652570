//! Where a file's bytes are: in memory, in a stretch of an open file (an archive or our spool), or in a host
//! directory that is read when the image is written.
//!
//! A content is a length and the extents that hold data; what no extent covers reads as zeros, which is how a sparse
//! file stays sparse. Nothing is loaded before it is copied, so a tree of many gigabytes costs a few bytes a file.

use crate::error::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::rc::Rc;

/// The bytes of one regular file.
#[derive(Clone, Debug, Default)]
pub struct Content {
    length: u64,
    /// Sorted, without overlap, all within `length`.
    extents: Vec<Extent>,
}

#[derive(Clone, Debug)]
struct Extent {
    /// Where it lies in the file.
    start: u64,
    length: u64,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Bytes(Rc<[u8]>),
    /// A stretch of an open file, from `offset` on.
    Stretch {
        file: Rc<File>,
        offset: u64,
    },
    /// A file below an open directory, opened again to be read.
    Beneath {
        directory: Rc<OwnedFd>,
        path: Rc<PathBuf>,
        identity: (u64, u64),
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Bytes(bytes) => write!(f, "{} bytes in memory", bytes.len()),
            Source::Stretch { offset, .. } => write!(f, "an open file from {offset}"),
            Source::Beneath { path, .. } => write!(f, "{path:?}"),
        }
    }
}

impl Content {
    pub fn bytes(bytes: &[u8]) -> Content {
        Content::whole(bytes.len() as u64, Source::Bytes(bytes.into()))
    }

    /// `length` bytes of an open file, from `offset` on.
    pub fn stretch(file: &Rc<File>, offset: u64, length: u64) -> Content {
        Content::whole(length, Source::Stretch { file: Rc::clone(file), offset })
    }

    /// A sparse file of `length` bytes: each stretch is `(where in this file, where in the open file, how long)`.
    /// The stretches are sorted, do not overlap and end within `length`, else they are refused.
    pub fn sparse(file: &Rc<File>, length: u64, stretches: &[(u64, u64, u64)]) -> Result<Content> {
        let mut end = 0;
        let mut extents = Vec::with_capacity(stretches.len());
        for &(start, offset, size) in stretches {
            let next = start.checked_add(size).filter(|next| start >= end && *next <= length);
            end = next.ok_or_else(|| {
                Error::refused(format!(
                    "sparse map: {size} bytes at {start} do not fit in their place"
                ))
            })?;
            if size > 0 {
                let source = Source::Stretch { file: Rc::clone(file), offset };
                extents.push(Extent { start, length: size, source });
            }
        }
        Ok(Content { length, extents })
    }

    /// A file below an open directory, which was this long and had this device and inode number when it was listed.
    /// If it is another one when it is read, the copy fails.
    pub fn beneath(
        directory: &Rc<OwnedFd>,
        path: PathBuf,
        identity: (u64, u64),
        length: u64,
    ) -> Content {
        let directory = Rc::clone(directory);
        Content::whole(length, Source::Beneath { directory, path: Rc::new(path), identity })
    }

    fn whole(length: u64, source: Source) -> Content {
        let extents = match length {
            0 => Vec::new(),
            _ => vec![Extent { start: 0, length, source }],
        };
        Content { length, extents }
    }

    pub fn len(&self) -> u64 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that are stored somewhere, holes not counted.
    pub fn stored(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }

    /// Where it begins in this open file, if it lies there from one end to the other, each hole in its place.
    pub fn place_in(&self, file: &Rc<File>) -> Option<u64> {
        let place = |extent: &Extent| match &extent.source {
            Source::Stretch { file: own, offset } if Rc::ptr_eq(own, file) => {
                offset.checked_sub(extent.start)
            }
            Source::Stretch { .. } | Source::Bytes(_) | Source::Beneath { .. } => None,
        };
        let first = place(self.extents.first()?)?;
        self.extents.iter().all(|extent| place(extent) == Some(first)).then_some(first)
    }

    /// Hands all bytes, holes as zeros, to `sink` in pieces of at most 1 MiB.
    pub fn copy_to(
        &self,
        buffer: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut position = 0;
        for extent in &self.extents {
            pieces(buffer, extent.start - position, |piece, _| {
                piece.fill(0);
                sink(piece)
            })?;
            let source = extent.source.open(self.length)?;
            pieces(buffer, extent.length, |piece, done| {
                source.read(piece, done)?;
                sink(piece)
            })?;
            position = extent.start + extent.length;
        }
        pieces(buffer, self.length - position, |piece, _| {
            piece.fill(0);
            sink(piece)
        })
    }
}

/// Calls `each` with a part of the buffer and how much came before, until `length` bytes are through.
fn pieces(
    buffer: &mut Vec<u8>,
    length: u64,
    mut each: impl FnMut(&mut [u8], u64) -> Result<()>,
) -> Result<()> {
    const PIECE: usize = 1 << 20;
    buffer.resize(PIECE, 0);
    let mut done = 0;
    while done < length {
        let size = usize::try_from(length - done).map_or(PIECE, |left| left.min(PIECE));
        each(buffer.get_mut(..size).unwrap_or_default(), done)?;
        done += size as u64;
    }
    Ok(())
}

/// A source that is ready to be read.
enum Opened {
    Bytes(Rc<[u8]>),
    File { file: Rc<File>, offset: u64 },
}

impl Source {
    fn open(&self, length: u64) -> Result<Opened> {
        match self {
            Source::Bytes(bytes) => Ok(Opened::Bytes(Rc::clone(bytes))),
            Source::Stretch { file, offset } => {
                Ok(Opened::File { file: Rc::clone(file), offset: *offset })
            }
            Source::Beneath { directory, path, identity } => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let fd = openat2(directory, path.as_path(), flags, Mode::empty(), resolve)
                    .context(|| format!("open {path:?}"))?;
                let file = File::from(fd);
                let stat = file.metadata().context(|| format!("stat {path:?}"))?;
                if (stat.dev(), stat.ino(), stat.len()) != (identity.0, identity.1, length) {
                    return Err(Error::io(format!(
                        "read {path:?}: it changed while the image was made"
                    )));
                }
                Ok(Opened::File { file: Rc::new(file), offset: 0 })
            }
        }
    }
}

impl Opened {
    fn read(&self, piece: &mut [u8], position: u64) -> Result<()> {
        match self {
            Opened::Bytes(bytes) => {
                let rest = usize::try_from(position).ok().and_then(|start| bytes.get(start..));
                let mut rest = rest.unwrap_or_default();
                rest.read_exact(piece).context(|| "read from memory".into())
            }
            Opened::File { file, offset } => file
                .read_exact_at(piece, offset + position)
                .context(|| format!("read {} bytes at {}", piece.len(), offset + position)),
        }
    }
}

/// The text of a host path as the bytes that it is.
pub fn path_bytes(path: &std::path::Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(content: &Content) -> Vec<u8> {
        let mut out = Vec::new();
        content
            .copy_to(&mut Vec::new(), |piece| {
                out.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn holes_read_as_zeros() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"xxabcd").unwrap();
        let content = Content::sparse(&Rc::new(file), 10, &[(1, 2, 2), (6, 4, 2)]).unwrap();
        assert_eq!(all(&content), b"\0ab\0\0\0cd\0\0");
        assert_eq!(content.stored(), 4);
    }

    #[test]
    fn a_sparse_map_that_overlaps_or_overflows_is_refused() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        for map in [&[(0, 0, 4), (3, 4, 1)][..], &[(8, 0, 3)], &[(u64::MAX, 0, 2)]] {
            assert!(Content::sparse(&file, 10, map).is_err());
        }
    }

    #[test]
    fn a_file_that_was_swapped_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "one").unwrap();
        let fd: Rc<OwnedFd> = Rc::new(File::open(dir.path()).unwrap().into());
        let stat = std::fs::metadata(dir.path().join("f")).unwrap();
        let content = Content::beneath(&fd, "f".into(), (stat.dev(), stat.ino()), 3);
        assert_eq!(all(&content), b"one");
        std::fs::write(dir.path().join("f"), "longer").unwrap();
        let err = content.copy_to(&mut Vec::new(), |_| Ok(())).unwrap_err();
        assert!(err.to_string().contains("changed"), "{err}");
    }
}
