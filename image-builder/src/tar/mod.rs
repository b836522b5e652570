//! Reads tar archives from a stream: v7, ustar, GNU and PAX (POSIX.1-2008 pax, "Interchange Format"; the manual of GNU
//! tar, "Basic Tar Format" and "Sparse Formats").
//!
//! Our own, because an archive is hostile until shown otherwise: every extension is bounded before it is read, a broken
//! checksum, an unknown type or an archive that stops in the middle is an error, and an entry says where in the
//! stream its data lies, so that an uncompressed layer need not be copied. Paths are handed out as they are written;
//! judging them is up to the caller.

mod header;
mod pax;
use crate::error::{Context, Error, Result};
use crate::tree::{DeviceClass, Time, shown};
use header::{BLOCK, BLOCK_LEN, Header};
use pax::Extensions;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The largest PAX header and the largest long name: attributes of 64 KiB fit, a bomb does not.
const EXTENSION_MAX: u64 = 1 << 20;
/// The most extension headers in front of one entry.
const EXTENSIONS_IN_A_ROW: usize = 8;

/// What an archive is read from.
pub trait Source: Read {
    /// Goes over `bytes` bytes; they must be there.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    HardLink,
    Device { class: DeviceClass, major: u32, minor: u32 },
    Fifo,
}

/// One entry. Its data is still in the stream when it is handed out.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the archive has it.
    pub path: Vec<u8>,
    /// Of a symbolic or hard link: where it points.
    pub target: Vec<u8>,
    pub kind: EntryKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The file's length, holes included.
    pub size: u64,
    /// Where its data starts in the stream, and how many bytes are stored there.
    pub offset: u64,
    pub stored: u64,
    /// Of a sparse file: stretches `(start in the file, length)`, stored one after another.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// An archive that is read entry by entry.
pub struct Archive<S> {
    source: S,
    /// Bytes taken from the source.
    position: u64,
    /// Bytes of the present entry that are still to come, and the padding behind them.
    data_left: u64,
    padding: u64,
    /// PAX records that hold for all entries.
    global: Extensions,
    has_end_mark: bool,
}

impl<S: Source> Archive<S> {
    pub fn new(source: S) -> Archive<S> {
        let global = Extensions::default();
        Archive { source, position: 0, data_left: 0, padding: 0, global, has_end_mark: false }
    }

    /// The next entry; `None` at the end of the archive. What was not read of the one before is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_data()?;
        let mut extensions = self.global.clone();
        for count in 0..=EXTENSIONS_IN_A_ROW {
            let Some(header) = self.read_header()? else {
                return match count {
                    0 => Ok(None),
                    _ => Err(Error::refused("archive: it is cut off behind an extension header")),
                };
            };
            match header.type_flag() {
                b'L' => extensions.path = Some(self.long_name(&header)?),
                b'K' => extensions.target = Some(self.long_name(&header)?),
                b'x' => pax::read(&self.extension(&header)?, &mut extensions)?,
                b'g' => {
                    pax::read(&self.extension(&header)?, &mut self.global)?;
                    extensions = self.global.clone();
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Err(Error::refused(format!(
            "archive at {}: too many extension headers in a row",
            self.position
        )))
    }

    /// Hands the stored bytes of the present entry to `sink`.
    pub fn copy_data(
        &mut self,
        buffer: &mut [u8],
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while self.data_left > 0 {
            let size =
                usize::try_from(self.data_left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let piece = buffer.get_mut(..size).unwrap_or_default();
            self.source.read_exact(piece).map_err(|err| truncated(err, self.position))?;
            self.position += size as u64;
            self.data_left -= size as u64;
            sink(piece)?;
        }
        Ok(())
    }

    /// Refuses an archive that stopped between two entries. Some programs leave the end mark out, so only he must ask
    /// who has no digest to tell him that all is there.
    pub fn check_end_mark(&self) -> Result<()> {
        match self.has_end_mark {
            true => Ok(()),
            false => Err(Error::refused(format!(
                "archive: no end mark behind byte {}: it is cut off",
                self.position
            ))),
        }
    }

    /// The source, wherever the last read left it.
    pub fn into_source(self) -> S {
        self.source
    }

    fn skip_data(&mut self) -> Result<()> {
        let bytes = self.data_left + self.padding;
        self.source.skip(bytes).map_err(|err| truncated(err, self.position))?;
        self.position += bytes;
        (self.data_left, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header block; `None` at the end, which is two blocks of zeros or the end of the stream.
    fn read_header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            let at = self.position - BLOCK;
            return Header::new(block).context(|| format!("archive at {at}")).map(Some);
        }
        match self.read_block()? {
            Some(block) if block.iter().any(|byte| *byte != 0) => {
                let at = self.position - BLOCK;
                Err(Error::refused(format!("archive at {at}: data behind its end mark")))
            }
            Some(_) | None => {
                self.has_end_mark = true;
                Ok(None)
            }
        }
    }

    /// A block, or `None` if the stream ended before it.
    fn read_block(&mut self) -> Result<Option<[u8; BLOCK_LEN]>> {
        let mut block = [0; BLOCK_LEN];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated(io::ErrorKind::UnexpectedEof.into(), self.position)),
                Ok(size) => filled += size,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(truncated(err, self.position)),
            }
        }
        self.position += BLOCK;
        Ok(Some(block))
    }

    /// The data of an extension header, in memory.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > EXTENSION_MAX {
            let at = self.position - BLOCK;
            return Err(Error::refused(format!(
                "archive at {at}: an extension header of {size} bytes"
            )));
        }
        self.expect_data(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.source.read_exact(&mut bytes).map_err(|err| truncated(err, self.position))?;
        self.position += size;
        self.data_left = 0;
        self.skip_data()?;
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(length);
        Ok(name)
    }

    fn expect_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
    }

    /// Header and extensions as one entry.
    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry> {
        let path = extensions.path.unwrap_or_else(|| header.path());
        let name = shown(&path);
        let kind = header.kind(path.last() == Some(&b'/')).context(|| format!("entry {name:?}"))?;
        let has_data = kind == EntryKind::File;
        let size = match (has_data, extensions.size) {
            (false, _) => 0, // a link may repeat its target's size, but nothing follows it
            (true, Some(size)) => size,
            (true, None) => header.size().context(|| format!("entry {name:?}"))?,
        };
        if size > u64::MAX - 2 * BLOCK - self.position {
            return Err(Error::refused(format!("entry {name:?}: {size} bytes")));
        }
        self.expect_data(size);
        let number = |own: Option<u32>, field: Result<u32>| own.map_or(field, Ok);
        let mut entry = Entry {
            target: extensions.target.unwrap_or_else(|| header.target()),
            kind,
            mode: header.mode().context(|| format!("entry {name:?}"))?,
            uid: number(extensions.uid, header.uid()).context(|| format!("entry {name:?}"))?,
            gid: number(extensions.gid, header.gid()).context(|| format!("entry {name:?}"))?,
            mtime: extensions.mtime.map_or_else(|| header.mtime(), Ok)?,
            xattrs: extensions.xattrs,
            size,
            offset: self.position,
            stored: size,
            sparse: None,
            path,
        };
        let sparse = extensions.sparse;
        self.read_sparse(header, sparse, &mut entry)
            .context(|| format!("entry {name:?}: sparse file"))?;
        Ok(entry)
    }

    /// Finds the map of a sparse file, wherever its dialect keeps it.
    fn read_sparse(
        &mut self,
        header: &Header,
        sparse: pax::Sparse,
        entry: &mut Entry,
    ) -> Result<()> {
        let (map, real_size) = if header.type_flag() == b'S' {
            let map = self.old_sparse_map(header)?;
            (map, Some(header.real_size()?))
        } else if sparse.major == Some(1) {
            (self.sparse_map_in_data()?, sparse.real_size)
        } else if let Some(map) = sparse.map {
            (map, sparse.real_size)
        } else if sparse.is_asked() {
            return Err(Error::unsupported("a dialect other than GNU's old one, 0.1 and 1.0"));
        } else {
            return Ok(());
        };
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        entry.size = real_size.ok_or_else(|| Error::refused("its size is missing"))?;
        (entry.offset, entry.stored) = (self.position, self.data_left);
        pax::check_sparse_map(&map, entry.size, entry.stored)?;
        entry.sparse = Some(map);
        Ok(())
    }

    /// GNU's old dialect: four stretches in the header, more in blocks behind it.
    fn old_sparse_map(&mut self, header: &Header) -> Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        let mut more = header.sparse_stretches(&mut map)?;
        while more {
            let Some(block) = self.read_block()? else {
                return Err(truncated(io::ErrorKind::UnexpectedEof.into(), self.position));
            };
            more = header::more_sparse_stretches(&block, &mut map)?;
        }
        Ok(map)
    }

    /// Dialect 1.0: the map is text at the start of the data, padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut text = pax::SparseText::default();
        while !text.is_complete()? {
            if self.data_left < BLOCK {
                return Err(Error::refused("its map does not end"));
            }
            let Some(block) = self.read_block()? else {
                return Err(truncated(io::ErrorKind::UnexpectedEof.into(), self.position));
            };
            self.data_left -= BLOCK;
            text.push(&block);
        }
        text.map()
    }
}

/// The end of the stream in the middle of an archive is the archive's fault; any other error is passed on.
fn truncated(err: io::Error, position: u64) -> Error {
    match err.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::refused(format!("archive: it is cut off behind byte {position}"))
        }
        _ => Error::from(err),
    }
}
