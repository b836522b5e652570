//! PAX extended headers: records `LENGTH KEY=VALUE\n`, and the maps of sparse files that GNU tar puts there.
//!
//! Keys that say nothing about the tree (`comment`, `atime`, `uname` ...) are passed over: user and group names of the
//! machine that packed an archive mean nothing in an image.

use super::header::{BLOCK_LEN, STRETCHES_MAX};
use crate::error::{Error, Result};
use crate::tree::{Time, shown};
use std::collections::BTreeMap;

/// What extension headers say about the entry behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    pub path: Option<Vec<u8>>,
    pub target: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Sparse,
}

/// The `GNU.sparse` records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Dialect 0.1: `start,length,start,length`.
    pub map: Option<Vec<(u64, u64)>>,
    /// Dialect 0.0 repeats its keys; we refuse it.
    other: bool,
}

impl Sparse {
    /// Whether the entry is said to be sparse at all.
    pub fn is_asked(&self) -> bool {
        self.other || self.major.is_some() || self.real_size.is_some()
    }
}

/// Reads the records of one header into `extensions`; an empty value takes a key back.
pub fn read(mut records: &[u8], extensions: &mut Extensions) -> Result<()> {
    while !records.is_empty() {
        let (key, value, rest) = record(records).ok_or_else(|| {
            Error::refused(format!("PAX header: not a record: {:?}", shown(records)))
        })?;
        apply(key, value, extensions)?;
        records = rest;
    }
    Ok(())
}

/// One record, and what is behind it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(records.get(..space)?).ok()?.parse().ok()?;
    let body = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, records.get(length..)?))
}

fn apply(key: &[u8], value: &[u8], extensions: &mut Extensions) -> Result<()> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        extensions.xattrs.insert(name.to_vec(), value.to_vec());
        return Ok(());
    }
    let said = !value.is_empty();
    let bytes = || said.then(|| value.to_vec());
    let bad = || Error::refused(format!("PAX header: {:?} is {:?}", shown(key), shown(value)));
    let number = || match said {
        true => decimal(value).map(Some).ok_or_else(bad),
        false => Ok(None),
    };
    let id = || match said {
        true => decimal(value).and_then(|id| u32::try_from(id).ok()).map(Some).ok_or_else(bad),
        false => Ok(None),
    };
    let sparse = &mut extensions.sparse;
    match key {
        b"path" => extensions.path = bytes(),
        b"linkpath" => extensions.target = bytes(),
        b"size" => extensions.size = number()?,
        b"uid" => extensions.uid = id()?,
        b"gid" => extensions.gid = id()?,
        b"mtime" => extensions.mtime = if said { Some(time(value).ok_or_else(bad)?) } else { None },
        b"GNU.sparse.major" => sparse.major = number()?,
        b"GNU.sparse.minor" => {}
        b"GNU.sparse.name" => sparse.name = bytes(),
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => sparse.real_size = number()?,
        b"GNU.sparse.map" => sparse.map = Some(map(value).ok_or_else(bad)?),
        b"GNU.sparse.numblocks" => {}
        _ if key.starts_with(b"GNU.sparse.") => sparse.other = true,
        _ => {}
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

/// Seconds with a fraction; times before 1970 are 1970.
fn time(text: &[u8]) -> Option<Time> {
    if let Some(before) = text.strip_prefix(b"-") {
        return time(before).map(|_| Time::default());
    }
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = decimal(parts.next()?)?;
    let mut digits = parts.next().unwrap_or_default().to_vec();
    digits.resize(9, b'0'); // cut below a nanosecond
    let nanoseconds = u32::try_from(decimal(&digits)?).ok()?;
    Some(Time { seconds, nanoseconds })
}

/// `start,length,start,length ...`
fn map(text: &[u8]) -> Option<Vec<(u64, u64)>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Option<Vec<u64>> = text.split(|byte| *byte == b',').map(decimal).collect();
    pairs(&numbers?)
}

fn pairs(numbers: &[u64]) -> Option<Vec<(u64, u64)>> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[start, length]| (*start, *length)).collect())
}

/// A map must be sorted, lie in the file, and account for every byte that is stored.
pub fn check_sparse_map(map: &[(u64, u64)], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for (start, length) in map {
        let next = start.checked_add(*length).filter(|next| *start >= end && *next <= size);
        end = next.ok_or_else(|| Error::refused("its map is not sorted or leaves the file"))?;
        sum += length; // no overflow: stretches lie apart within `size`
    }
    match sum == stored {
        true => Ok(()),
        false => Err(Error::refused(format!("its map speaks of {sum} bytes, {stored} are stored"))),
    }
}

/// The map of dialect 1.0 while its blocks come in: how many stretches, then each one's two numbers, a line each.
#[derive(Default)]
pub struct SparseText {
    numbers: Vec<u64>,
    /// The line that is not complete.
    line: Vec<u8>,
}

impl SparseText {
    pub fn push(&mut self, block: &[u8; BLOCK_LEN]) {
        self.line.extend_from_slice(block);
    }

    /// Takes in the complete lines; says whether the map is whole.
    pub fn is_complete(&mut self) -> Result<bool> {
        let bad = || Error::refused("its map is not made of numbers");
        let mut text = std::mem::take(&mut self.line);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            if self.is_whole()? {
                return Ok(true);
            }
            let line: Vec<u8> = text.drain(..=end).collect();
            self.numbers.push(line.strip_suffix(b"\n").and_then(decimal).ok_or_else(bad)?);
        }
        self.line = text;
        if self.is_whole()? {
            return Ok(true);
        }
        match self.line.len() > 20 {
            true => Err(bad()), // no number has so many digits
            false => Ok(false),
        }
    }

    fn is_whole(&self) -> Result<bool> {
        let Some(count) = self.numbers.first() else {
            return Ok(false);
        };
        match usize::try_from(*count) {
            Ok(count) if count <= STRETCHES_MAX => Ok(self.numbers.len() == 2 * count + 1),
            Ok(_) | Err(_) => Err(Error::refused(format!("more than {STRETCHES_MAX} stretches"))),
        }
    }

    pub fn map(self) -> Result<Vec<(u64, u64)>> {
        let numbers = self.numbers.get(1..).and_then(pairs);
        numbers.ok_or_else(|| Error::refused("its map is not made of pairs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(records: &[u8]) -> Result<Extensions> {
        let mut extensions = Extensions::default();
        read(records, &mut extensions).map(|()| extensions)
    }

    #[test]
    fn records_are_read_by_their_length() {
        let extensions =
            read_all(b"12 path=a=b\n26 SCHILY.xattr.user.x=1\n\n20 mtime=12.5000001\n");
        let extensions = extensions.unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(extensions.xattrs[&b"user.x"[..]], b"1\n");
        assert_eq!(extensions.mtime, Some(Time { seconds: 12, nanoseconds: 500_000_100 }));
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            "8 path=a\n",
            "99 path=a\n",
            "0 path=a\n",
            "x path=a\n",
            "8 patha\n",
            "13 size=1e3x\n",
            "13 uid=-1234\n",
        ] {
            assert!(read_all(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_before_1970_is_1970() {
        assert_eq!(time(b"-1.5"), Some(Time::default()));
        assert_eq!(time(b"1."), Some(Time::seconds(1)));
        assert_eq!(time(b"now"), None);
    }

    #[test]
    fn a_sparse_map_accounts_for_all_that_is_stored() {
        assert!(check_sparse_map(&[(0, 4), (8, 2)], 10, 6).is_ok());
        assert!(check_sparse_map(&[(0, 4), (8, 3)], 10, 7).is_err());
        assert!(check_sparse_map(&[(8, 2), (0, 4)], 10, 6).is_err());
        assert!(check_sparse_map(&[(0, 4)], 10, 6).is_err());
        assert!(check_sparse_map(&[(u64::MAX, 4)], 10, 4).is_err());
    }
}
