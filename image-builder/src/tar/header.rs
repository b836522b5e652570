//! One 512-byte header of a tar archive.

use super::EntryKind;
use crate::error::{Error, Result};
use crate::tree::{DeviceClass, Time};
use std::ops::Range;

/// Archives are made of blocks of this size.
pub const BLOCK: u64 = 512;
/// The same, as the length of a slice.
pub const BLOCK_LEN: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// GNU's old sparse dialect: stretches, whether there are more, the file's length.
const SPARSE: Range<usize> = 386..482;
const SPARSE_MORE: usize = 482;
const REAL_SIZE: Range<usize> = 483..495;
/// The same in a block of further stretches.
const MORE_SPARSE: Range<usize> = 0..504;
const MORE_SPARSE_MORE: usize = 504;

/// More stretches than any file of a sane image has.
pub const STRETCHES_MAX: usize = 1 << 16;

/// A header whose checksum is right.
pub struct Header([u8; BLOCK_LEN]);

impl Header {
    pub fn new(block: [u8; BLOCK_LEN]) -> Result<Header> {
        let header = Header(block);
        let asked = number(header.field(CHECKSUM), "checksum").ok();
        let counts = |byte: (usize, &u8)| match CHECKSUM.contains(&byte.0) {
            true => b' ',
            false => *byte.1,
        };
        let unsigned: u64 = block.iter().enumerate().map(|byte| u64::from(counts(byte))).sum();
        let signed: i64 =
            block.iter().enumerate().map(|byte| i64::from(counts(byte).cast_signed())).sum();
        let is_signed = asked.and_then(|asked| i64::try_from(asked).ok()) == Some(signed);
        match asked == Some(unsigned) || is_signed {
            true => Ok(header),
            false => Err(Error::refused("not a tar header: its checksum is wrong")),
        }
    }

    fn field(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    pub fn type_flag(&self) -> u8 {
        self.byte(TYPE)
    }

    /// What it announces. Old archives mark a directory by a slash at the end of a file's name.
    pub fn kind(&self, ends_in_slash: bool) -> Result<EntryKind> {
        match self.type_flag() {
            b'0' | 0 if ends_in_slash => Ok(EntryKind::Directory),
            b'0' | 0 | b'7' | b'S' => Ok(EntryKind::File),
            b'1' => Ok(EntryKind::HardLink),
            b'2' => Ok(EntryKind::Symlink),
            b'3' => self.device(DeviceClass::Char),
            b'4' => self.device(DeviceClass::Block),
            b'5' => Ok(EntryKind::Directory),
            b'6' => Ok(EntryKind::Fifo),
            other => {
                let other = char::from(other);
                Err(Error::refused(format!("unknown type {other:?}")))
            }
        }
    }

    fn device(&self, class: DeviceClass) -> Result<EntryKind> {
        let major = number_u32(self.field(MAJOR), "major device number")?;
        let minor = number_u32(self.field(MINOR), "minor device number")?;
        Ok(EntryKind::Device { class, major, minor })
    }

    /// The name, with the prefix that ustar keeps apart (GNU keeps other things there).
    pub fn path(&self) -> Vec<u8> {
        let name = text(self.field(NAME));
        let prefix = text(self.field(PREFIX));
        match self.field(MAGIC) == b"ustar\x0000" && !prefix.is_empty() {
            true => [prefix, name].join(&b'/'),
            false => name.to_vec(),
        }
    }

    pub fn target(&self) -> Vec<u8> {
        text(self.field(LINK)).to_vec()
    }

    pub fn mode(&self) -> Result<u16> {
        let mode = number(self.field(MODE), "mode")? & 0o7777;
        Ok(u16::try_from(mode).unwrap_or_default())
    }

    pub fn uid(&self) -> Result<u32> {
        number_u32(self.field(UID), "user id")
    }

    pub fn gid(&self) -> Result<u32> {
        number_u32(self.field(GID), "group id")
    }

    pub fn size(&self) -> Result<u64> {
        number(self.field(SIZE), "size")
    }

    /// Times before 1970 are 1970.
    pub fn mtime(&self) -> Result<Time> {
        match is_negative(self.field(MTIME)) {
            true => Ok(Time::default()),
            false => number(self.field(MTIME), "time").map(Time::seconds),
        }
    }

    /// Of a sparse file in GNU's old dialect: its length with holes.
    pub fn real_size(&self) -> Result<u64> {
        number(self.field(REAL_SIZE), "length")
    }

    /// The stretches in the header; says whether there are more behind it.
    pub fn sparse_stretches(&self, map: &mut Vec<(u64, u64)>) -> Result<bool> {
        stretches(self.field(SPARSE), map)?;
        Ok(self.byte(SPARSE_MORE) != 0)
    }
}

/// The stretches in a block behind a header; says whether there are more behind it.
pub fn more_sparse_stretches(block: &[u8], map: &mut Vec<(u64, u64)>) -> Result<bool> {
    stretches(block.get(MORE_SPARSE).unwrap_or_default(), map)?;
    Ok(block.get(MORE_SPARSE_MORE).is_some_and(|more| *more != 0))
}

fn stretches(fields: &[u8], map: &mut Vec<(u64, u64)>) -> Result<()> {
    for stretch in fields.chunks_exact(24) {
        let (start, length) = stretch.split_at_checked(12).unwrap_or_default();
        if start.first() == Some(&0) {
            break;
        }
        map.push((number(start, "start of a stretch")?, number(length, "length of a stretch")?));
    }
    match map.len() > STRETCHES_MAX {
        true => Err(Error::refused(format!("more than {STRETCHES_MAX} stretches"))),
        false => Ok(()),
    }
}

/// A text field, up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..length).unwrap_or_default()
}

/// Whether a number in base 256 is below zero.
fn is_negative(field: &[u8]) -> bool {
    field.first() == Some(&0xff)
}

/// A number: octal digits among spaces and zeros, or base 256 with the top bit set. An empty field is 0.
fn number(field: &[u8], what: &str) -> Result<u64> {
    let bad = || Error::refused(format!("its {what} is not a number"));
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        if is_negative(field) {
            return Err(Error::refused(format!("its {what} is negative")));
        }
        return rest.iter().try_fold(u64::from(first & 0x7f), |sum, byte| {
            sum.checked_mul(256).map(|sum| sum | u64::from(*byte)).ok_or_else(bad)
        });
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8).map(|sum| sum | u64::from(digit - b'0')).ok_or_else(bad),
        _ => Err(bad()),
    })
}

fn number_u32(field: &[u8], what: &str) -> Result<u32> {
    let number = number(field, what)?;
    u32::try_from(number).map_err(|_| Error::refused(format!("its {what} is {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0", "mode").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0", "mode").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0", "mode").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0", "size").unwrap(), 1 << 32);
        assert!(number(b"0x12\0", "size").is_err());
        assert!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "size").is_err());
        assert!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff", "size").is_err());
    }
}
