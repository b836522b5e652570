//! EROFS records as bytes: superblock, inodes, attributes, directory blocks. All numbers are little endian.

use super::BLOCK;
use super::plan::{Placed, Plan};
use crate::error::{Error, Result};
use crate::tree::{DeviceClass, Inode, Kind, Meta, Name, Time};

/// Where the superblock lies; the bytes before it are free (a boot sector, a pmem label).
pub const SUPERBLOCK_OFFSET: u64 = 1024;
pub const SUPERBLOCK_SIZE: u64 = 128;
/// Inodes start at multiples of this; an inode's number is its place in these units.
pub const INODE_SLOT: u64 = 32;

pub const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK_BITS: u8 = 12;
/// Compatible features: the superblock has a checksum, extended inodes hold modification (not change) times.
const FEATURES: u32 = 0x1 | 0x2;
/// The same for every image: what tells images apart is their hash.
const UUID: [u8; 16] = *b"hyperstart-erofs";
const VOLUME_NAME: &[u8; 16] = b"hyperstart\0\0\0\0\0\0";

/// The attribute by which overlayfs knows a directory that hides what lies below it (its value is `y`).
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

const DIRENT_SIZE: usize = 12;
const XATTR_HEADER_SIZE: usize = 12;
/// More than Linux lets anyone list; keeps the size of an inode's record in bounds.
const XATTRS_MAX: usize = 64 << 10;

/// How an inode's data lies (`i_format`, bits 1 to 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Whole blocks.
    Plain = 0,
    /// Whole blocks, and the last part right behind the inode.
    Inline = 2,
}

/// The superblock, its checksum still 0.
pub fn superblock(plan: &Plan, root_nid: u64, build_time: Time) -> Result<Vec<u8>> {
    let root =
        u16::try_from(root_nid).map_err(|_| Error::io("image: the root inode is not first"))?;
    let mut out = Vec::new();
    out.extend(MAGIC.to_le_bytes());
    out.extend(0u32.to_le_bytes()); // checksum: seal_superblock
    out.extend(FEATURES.to_le_bytes());
    out.extend([BLOCK_BITS, 0]);
    out.extend(root.to_le_bytes());
    out.extend((plan.inodes.len() as u64).to_le_bytes());
    out.extend(build_time.seconds.to_le_bytes());
    out.extend(build_time.nanoseconds.to_le_bytes());
    out.extend(block_number(plan.blocks)?.to_le_bytes());
    out.extend(block_number(plan.metadata_block)?.to_le_bytes()); // inode numbers are counted from there
    out.extend(0u32.to_le_bytes()); // no shared attributes
    out.extend(UUID);
    out.extend(VOLUME_NAME);
    out.resize(usize::try_from(SUPERBLOCK_SIZE).unwrap_or_default(), 0); // no incompatible feature, no extra device
    Ok(out)
}

/// Puts the checksum into the superblock: CRC-32C, without the final inversion, from the superblock to the end of
/// the first block, the checksum itself read as 0.
pub fn seal_superblock(image: &mut [u8]) {
    let start = usize::try_from(SUPERBLOCK_OFFSET).unwrap_or_default();
    let end = usize::try_from(BLOCK).unwrap_or_default();
    let checksum = crc32c(image.get(start..end).unwrap_or_default());
    if let Some(place) = image.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

/// Whether the short form of an inode can say all of it.
pub fn is_compact(meta: &Meta, links: u32, size: u64, build_time: Time) -> bool {
    let fits = |number: u32| u16::try_from(number).is_ok();
    fits(meta.uid)
        && fits(meta.gid)
        && fits(links)
        && u32::try_from(size).is_ok()
        && meta.mtime == build_time
}

/// An inode with its attributes and its inline tail.
pub fn inode(inode: &Inode, placed: &Placed, build_time: Time) -> Result<Vec<u8>> {
    let Inode { meta, kind } = inode;
    let compact = is_compact(meta, placed.links, placed.size, build_time);
    let format = u16::from(!compact) | (placed.layout as u16) << 1;
    let union = match kind {
        Kind::Device { major, minor, .. } => device_number(*major, *minor)?,
        Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_) => block_number(placed.block)?,
        Kind::Fifo | Kind::Socket | Kind::Whiteout => 0,
    };
    let xattrs = xattr_body(meta)?;
    let mut out = Vec::new();
    out.extend(format.to_le_bytes());
    out.extend(xattr_count(&xattrs)?.to_le_bytes());
    out.extend((kind.type_bits() | meta.mode & 0o7777).to_le_bytes());
    if compact {
        out.extend(u16::try_from(placed.links).unwrap_or_default().to_le_bytes());
        out.extend(u32::try_from(placed.size).unwrap_or_default().to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(union.to_le_bytes());
        out.extend(placed.number.to_le_bytes());
        out.extend(u16::try_from(meta.uid).unwrap_or_default().to_le_bytes());
        out.extend(u16::try_from(meta.gid).unwrap_or_default().to_le_bytes());
        out.extend(0u32.to_le_bytes());
    } else {
        out.extend(0u16.to_le_bytes());
        out.extend(placed.size.to_le_bytes());
        out.extend(union.to_le_bytes());
        out.extend(placed.number.to_le_bytes());
        out.extend(meta.uid.to_le_bytes());
        out.extend(meta.gid.to_le_bytes());
        out.extend(meta.mtime.seconds.to_le_bytes());
        out.extend(meta.mtime.nanoseconds.to_le_bytes());
        out.extend(placed.links.to_le_bytes());
        out.extend([0; 16]);
    }
    out.extend(xattrs);
    let tail = placed.data.len() - usize::try_from(placed.inline).unwrap_or_default();
    out.extend(placed.data.get(tail..).unwrap_or_default());
    Ok(out)
}

pub fn inode_size(compact: bool) -> u64 {
    if compact { 32 } else { 64 }
}

/// A block number as it is stored.
fn block_number(block: u64) -> Result<u32> {
    u32::try_from(block).map_err(|_| Error::too_large("image: larger than 16 TiB"))
}

/// A device number as the kernel's `new_encode_dev` has it: 12 bits of major, 20 of minor.
fn device_number(major: u32, minor: u32) -> Result<u32> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::unsupported(format!("device {major}:{minor}: the number is too large")));
    }
    Ok((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// The attributes' header and entries, sorted; empty where there are none.
pub fn xattr_body(meta: &Meta) -> Result<Vec<u8>> {
    if meta.xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![0; XATTR_HEADER_SIZE]; // no name filter, none shared
    for (name, value) in &meta.xattrs {
        let shown = crate::tree::shown(name);
        let Some((index, rest)) = xattr_index(name) else {
            return Err(Error::unsupported(format!(
                "attribute {shown:?}: EROFS has no such name space"
            )));
        };
        let length = u8::try_from(rest.len());
        let length = length
            .map_err(|_| Error::refused(format!("attribute {shown:?}: its name is too long")))?;
        let size = u16::try_from(value.len());
        let size = size.map_err(|_| Error::refused(format!("attribute {shown:?}: over 64 KiB")))?;
        out.extend([length, index]);
        out.extend(size.to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        if out.len() > XATTRS_MAX {
            return Err(Error::refused(format!(
                "attribute {shown:?}: over 64 KiB with those before it"
            )));
        }
    }
    Ok(out)
}

/// The number of an attribute's name space, and the name without it. `None`: EROFS cannot store it.
pub fn xattr_index(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    let spaces: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    let named = spaces.iter().find_map(|(space, index)| Some((*index, name.strip_prefix(*space)?)));
    named.filter(|(_, rest)| !rest.is_empty())
}

/// The full name of an attribute: the other way round.
pub fn xattr_name(index: u8, rest: &[u8]) -> Result<Vec<u8>> {
    let space: &[u8] = match index {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        other => return Err(Error::refused(format!("an attribute in name space {other}"))),
    };
    Ok([space, rest].concat())
}

/// How `i_xattr_icount` says the size of the attributes.
fn xattr_count(body: &[u8]) -> Result<u16> {
    if body.is_empty() {
        return Ok(0);
    }
    let units = (body.len() - XATTR_HEADER_SIZE) / 4 + 1;
    u16::try_from(units).map_err(|_| Error::refused("attributes: more than an inode can hold"))
}

/// One entry of a directory.
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: u8,
}

/// How long a directory of these names is: whole blocks, and what the last one holds.
pub fn directory_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let block = usize::try_from(BLOCK).unwrap_or_default();
    let (mut full, mut used) = (0u64, 0);
    for name in names {
        let more = DIRENT_SIZE + name.len();
        if used + more > block {
            full += 1;
            used = 0;
        }
        used += more;
    }
    full * BLOCK + used as u64
}

/// A directory's blocks: in each, the fixed parts first, then the names; no entry crosses a block.
pub fn directory(entries: &[Entry<'_>]) -> Vec<u8> {
    let block = usize::try_from(BLOCK).unwrap_or_default();
    let mut out = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        out.resize(out.len().next_multiple_of(block), 0);
        let mut used = 0;
        let fits = |entry: &&Entry<'_>| {
            used += DIRENT_SIZE + entry.name.len();
            used <= block
        };
        let count = rest.iter().take_while(fits).count();
        let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        directory_block(now, &mut out);
        rest = later;
    }
    out
}

fn directory_block(entries: &[Entry<'_>], out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * DIRENT_SIZE;
    for entry in entries {
        out.extend(entry.nid.to_le_bytes());
        out.extend(u16::try_from(name_offset).unwrap_or_default().to_le_bytes());
        out.extend([entry.file_type, 0]);
        name_offset += entry.name.len();
    }
    entries.iter().for_each(|entry| out.extend(entry.name));
}

/// The type of an inode as directories note it.
pub fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::Device { class: DeviceClass::Char, .. } | Kind::Whiteout => 3,
        Kind::Device { class: DeviceClass::Block, .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// The names of a directory as its blocks have them: sorted, with its own two links among the rest.
pub fn with_own_links<'a>(names: impl Iterator<Item = &'a Name>) -> Vec<&'a [u8]> {
    let mut all: Vec<&[u8]> = vec![b".", b".."];
    all.extend(names.map(Name::as_bytes));
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283); // the check value of CRC-32C
    }

    #[test]
    fn device_numbers_are_packed_as_in_the_kernel() {
        assert_eq!(device_number(5, 1).unwrap(), 0x501);
        assert_eq!(device_number(259, 0x12345).unwrap(), 0x1231_0345);
        assert!(device_number(1 << 12, 0).is_err() && device_number(0, 1 << 20).is_err());
    }

    #[test]
    fn no_directory_entry_crosses_a_block() {
        let names: Vec<Vec<u8>> = (0..100).map(|n| format!("{n:0255}").into_bytes()).collect();
        let entries: Vec<_> =
            names.iter().map(|name| Entry { name, nid: 36, file_type: 1 }).collect();
        let bytes = directory(&entries);
        assert_eq!(bytes.len() as u64, directory_size(names.iter().map(Vec::as_slice)));
        let per_block = 4096 / (255 + 12);
        assert_eq!(bytes.len(), 100 / per_block * 4096 + 100 % per_block * (255 + 12));
        for block in bytes.chunks(4096) {
            let first = usize::from(u16::from_le_bytes([block[8], block[9]]));
            assert!(first == per_block * 12 || first == 100 % per_block * 12);
        }
    }

    #[test]
    fn attributes_of_other_name_spaces_are_refused() {
        assert_eq!(xattr_index(b"user.a"), Some((1, &b"a"[..])));
        assert_eq!(xattr_index(b"security.capability"), Some((6, &b"capability"[..])));
        assert_eq!(xattr_index(b"user."), None);
        assert_eq!(xattr_index(b"com.apple.provenance"), None);
    }
}
