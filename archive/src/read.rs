//! A tar stream, entry by entry. What is said beside an entry (pax, GNU's long names) is bounded and then its own.

use std::io::Read;

use crate::header::{Block, Header, is_end, text};
use crate::{BLOCK, Error, PATH_MAX, Result};

/// What an extension may be long.
const EXTENSION_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// Another name of what the archive has called this before.
    HardLink(Vec<u8>),
    /// Major and minor number.
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Of the data that follows, which only a file has.
    pub size: u64,
}

pub struct Reader<'a> {
    input: &'a mut dyn Read,
    /// What has not been read of the present entry's data, and of what fills its last block.
    data: u64,
    padding: u64,
}

/// What extensions say of the next entry.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    major: Option<u32>,
    minor: Option<u32>,
}

impl<'a> Reader<'a> {
    pub fn new(input: &'a mut dyn Read) -> Self {
        Self { input, data: 0, padding: 0 }
    }

    /// The next entry; none at the archive's end, which it must have.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut said = Said::default();
        loop {
            let block = self.block()?;
            if is_end(&block) {
                return Ok(None);
            }
            let header = Header::parse(&block)?;
            match header.kind {
                b'x' => said.read(&self.extension(&header)?)?,
                b'g' => drop(self.extension(&header)?), // for all entries: of no use for any
                b'L' => said.path = Some(text(&self.extension(&header)?).to_owned()),
                b'K' => said.link = Some(text(&self.extension(&header)?).to_owned()),
                _ => return self.entry(header, said).map(Some),
            }
        }
    }

    fn entry(&mut self, header: Header, said: Said) -> Result<Entry> {
        let path = said.path.unwrap_or(header.path);
        let link = said.link.unwrap_or(header.link);
        if path.len() > PATH_MAX || link.len() > PATH_MAX {
            return Err(Error::new(format!(
                "read the archive: a name of more than {PATH_MAX} bytes"
            )));
        }
        let device = (said.major.unwrap_or(header.device.0), said.minor.unwrap_or(header.device.1));
        let kind = match header.kind {
            // Archives of old mark a directory by the end of its name alone.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Link(link),
            b'3' => Kind::Character(device.0, device.1),
            b'4' => Kind::Block(device.0, device.1),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(Error::of("unpack", &path, "sparse files are not supported")),
            other => {
                let why = format!("entries of type {:?} are not supported", char::from(other));
                return Err(Error::of("unpack", &path, why));
            }
        };
        // Nothing follows what is no file, whatever its size says.
        let size = if kind == Kind::File { said.size.unwrap_or(header.size) } else { 0 };
        self.expect(size);
        Ok(Entry {
            path,
            kind,
            mode: header.mode,
            uid: said.uid.unwrap_or(header.uid),
            gid: said.gid.unwrap_or(header.gid),
            mtime: said.mtime.unwrap_or(header.mtime),
            size,
        })
    }

    /// Reads of the present entry's data; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = self.some(buffer)?;
        self.data -= u64::try_from(length).unwrap_or_default();
        Ok(length)
    }

    /// Goes to the end of the present entry.
    fn skip(&mut self) -> Result<()> {
        let mut buffer = [0; BLOCK];
        while self.read(&mut buffer)? > 0 {}
        let padding = usize::try_from(self.padding).unwrap_or_default();
        self.padding = 0;
        self.exactly(buffer.get_mut(..padding).unwrap_or_default())
    }

    fn expect(&mut self, data: u64) {
        const UNIT: u64 = BLOCK as u64;
        self.data = data;
        self.padding = (UNIT - data % UNIT) % UNIT;
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        if header.size > EXTENSION_MAX {
            let message = format!("read the archive: a header of {} bytes", header.size);
            return Err(Error::new(message));
        }
        self.expect(header.size);
        let mut bytes = vec![0; usize::try_from(header.size).unwrap_or_default()];
        self.data = 0;
        self.exactly(&mut bytes)?;
        self.skip()?;
        Ok(bytes)
    }

    fn block(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK];
        self.exactly(&mut block)?;
        Ok(block)
    }

    fn exactly(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let length = self.some(buffer)?;
            buffer = buffer.get_mut(length..).unwrap_or_default();
        }
        Ok(())
    }

    /// At least one byte.
    fn some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.input.read(buffer) {
                Ok(0) => return Err(Error::new("read the archive: it is truncated")),
                Ok(length) => return Ok(length),
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(Error::new(format!("read the archive: {err}"))),
            }
        }
    }

    /// Reads what stands after the end, so that nobody who writes it is cut off; for ever nobody is listened to.
    pub fn finish(self) -> Result<()> {
        let mut left = self.input.take(EXTENSION_MAX);
        let sunk = std::io::copy(&mut left, &mut std::io::sink());
        sunk.map(drop).map_err(|err| Error::new(format!("read the archive: {err}")))
    }
}

impl Said {
    /// `LENGTH KEY=VALUE\n`, again and again.
    fn read(&mut self, mut records: &[u8]) -> Result<()> {
        let bad = || Error::new("read the archive: a pax header is malformed");
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = std::str::from_utf8(records.get(..blank).unwrap_or_default());
            let length: usize = length.ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
            let (record, rest) = records.split_at_checked(length).ok_or_else(bad)?;
            let record = record.get(blank + 1..).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at_checked(equals).ok_or_else(bad)?;
            self.take(key, value.get(1..).unwrap_or_default())?;
            records = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bad = || Error::new("read the archive: a pax header has what is no number");
        let text = std::str::from_utf8(value);
        let whole = text.ok().and_then(|text| text.split('.').next());
        let number = || whole.and_then(|text| text.parse::<i64>().ok()).ok_or_else(bad);
        let id = || number().and_then(|number| u32::try_from(number).map_err(|_| bad()));
        match key {
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.link = Some(value.to_owned()),
            b"size" => self.size = Some(u64::try_from(number()?).map_err(|_| bad())?),
            b"uid" => self.uid = Some(id()?),
            b"gid" => self.gid = Some(id()?),
            b"mtime" => self.mtime = Some(number()?),
            b"SCHILY.devmajor" => self.major = Some(id()?),
            b"SCHILY.devminor" => self.minor = Some(id()?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(Error::new("read the archive: sparse files are not supported"));
            }
            _ => {} // times of access, names of users, extended attributes: not kept
        }
        Ok(())
    }
}
