//! One block of a tar stream that says what follows: ustar, and what pax and GNU have added (tar(5)).

use crate::read::{Entry, Kind};
use crate::{BLOCK, Error, Result};

pub type Block = [u8; BLOCK];

/// Where a field is, and how long.
type Field = (usize, usize);

const NAME: Field = (0, 100);
const MODE: Field = (100, 8);
const UID: Field = (108, 8);
const GID: Field = (116, 8);
const SIZE: Field = (124, 12);
const MTIME: Field = (136, 12);
const CHECKSUM: Field = (148, 8);
const TYPE: Field = (156, 1);
const LINK: Field = (157, 100);
const MAGIC: Field = (257, 8);
const MAJOR: Field = (329, 8);
const MINOR: Field = (337, 8);
const PREFIX: Field = (345, 155);

const USTAR: &[u8] = b"ustar\x0000";

fn field(block: &Block, (at, length): Field) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// Text up to its NUL.
pub fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits, or GNU's big-endian binary.
fn number(block: &Block, which: Field) -> Option<i64> {
    let bytes = field(block, which);
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        return rest
            .iter()
            .try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)));
    }
    let digits = text(bytes);
    let digits = std::str::from_utf8(digits).ok()?.trim_matches(' ');
    if digits.is_empty() { Some(0) } else { i64::from_str_radix(digits, 8).ok() }
}

/// The sum of all bytes, those of the sum itself as blanks.
fn checksum(block: &Block) -> i64 {
    let (at, length) = CHECKSUM;
    let byte = |(index, byte): (usize, &u8)| {
        i64::from(if (at..at + length).contains(&index) { b' ' } else { *byte })
    };
    block.iter().enumerate().map(byte).sum()
}

pub fn is_end(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// What a block says, before what extensions say instead.
pub struct Header {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub device: (u32, u32),
}

impl Header {
    pub fn parse(block: &Block) -> Result<Self> {
        let bad = |what: &str| Error::new(format!("read the archive: {what} is no number"));
        if number(block, CHECKSUM) != Some(checksum(block)) {
            return Err(Error::new("read the archive: no tar header: its checksum is wrong"));
        }
        let small = |which, what| {
            let value = number(block, which).and_then(|value| u32::try_from(value).ok());
            value.ok_or_else(|| bad(what))
        };
        let mut path = text(field(block, NAME)).to_owned();
        let prefix = text(field(block, PREFIX));
        // GNU has other things in the place of the prefix.
        if field(block, MAGIC) == USTAR && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let size = number(block, SIZE).and_then(|size| u64::try_from(size).ok());
        Ok(Self {
            path,
            link: text(field(block, LINK)).to_owned(),
            kind: field(block, TYPE).first().copied().unwrap_or_default(),
            mode: small(MODE, "the mode")? & 0o7777,
            uid: small(UID, "the uid")?,
            gid: small(GID, "the gid")?,
            size: size.ok_or_else(|| bad("the size"))?,
            mtime: number(block, MTIME).ok_or_else(|| bad("the time"))?,
            device: (small(MAJOR, "the device")?, small(MINOR, "the device")?),
        })
    }
}

/// The blocks that begin an entry: those of an extension where the plain one has no room.
pub fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    let mut block: Block = [0; BLOCK];
    let (kind, link, device) = match &entry.kind {
        Kind::File => (b'0', &[][..], None),
        Kind::HardLink(target) => (b'1', target.as_slice(), None),
        Kind::Link(target) => (b'2', target.as_slice(), None),
        Kind::Character(major, minor) => (b'3', &[][..], Some((*major, *minor))),
        Kind::Block(major, minor) => (b'4', &[][..], Some((*major, *minor))),
        Kind::Directory => (b'5', &[][..], None),
        Kind::Fifo => (b'6', &[][..], None),
    };
    put_text(&mut block, NAME, &entry.path, "path", &mut records);
    put_text(&mut block, LINK, link, "linkpath", &mut records);
    put_number(&mut block, MODE, entry.mode.into(), "mode", &mut records);
    put_number(&mut block, UID, entry.uid.into(), "uid", &mut records);
    put_number(&mut block, GID, entry.gid.into(), "gid", &mut records);
    let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
    put_number(&mut block, SIZE, size, "size", &mut records);
    put_number(&mut block, MTIME, entry.mtime, "mtime", &mut records);
    if let Some((major, minor)) = device {
        put_number(&mut block, MAJOR, major.into(), "SCHILY.devmajor", &mut records);
        put_number(&mut block, MINOR, minor.into(), "SCHILY.devminor", &mut records);
    }
    let block = sealed(block, kind);
    if records.is_empty() {
        return Ok(block.to_vec());
    }
    let mut extension: Block = [0; BLOCK];
    put(&mut extension, NAME, b"././@PaxHeader");
    let length = i64::try_from(records.len()).unwrap_or(i64::MAX);
    put_number(&mut extension, MODE, 0o644, "mode", &mut Vec::new());
    put_number(&mut extension, SIZE, length, "size", &mut Vec::new());
    let mut all = sealed(extension, b'x').to_vec();
    let padding = records.len().next_multiple_of(BLOCK);
    records.resize(padding, 0);
    all.extend(records);
    all.extend(block);
    Ok(all)
}

fn put(block: &mut Block, (at, length): Field, value: &[u8]) {
    let place = block.iter_mut().skip(at).take(length);
    place.zip(value).for_each(|(place, byte)| *place = *byte);
}

fn put_text(block: &mut Block, which: Field, value: &[u8], key: &str, records: &mut Vec<u8>) {
    if value.len() > which.1 {
        record(key, value, records);
    }
    put(block, which, value);
}

fn put_number(block: &mut Block, which: Field, value: i64, key: &str, records: &mut Vec<u8>) {
    let digits = which.1 - 1; // and a NUL
    let text = format!("{value:0digits$o}");
    if value < 0 || text.len() > digits {
        record(key, value.to_string().as_bytes(), records);
        put(block, which, "0".repeat(digits).as_bytes());
    } else {
        put(block, which, text.as_bytes());
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &str, value: &[u8], records: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3; // a blank, =, a line's end
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {key}=").bytes());
    records.extend(value);
    records.push(b'\n');
}

fn sealed(mut block: Block, kind: u8) -> Block {
    put(&mut block, TYPE, &[kind]);
    put(&mut block, MAGIC, USTAR);
    let sum = format!("{:06o}\0 ", checksum(&block));
    put(&mut block, CHECKSUM, sum.as_bytes());
    block
}
