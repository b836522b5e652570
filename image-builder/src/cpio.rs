//! Writes a tree as the archive that Linux unpacks into its first root: cpio in the "newc" form
//! (Documentation/driver-api/early-userspace/buffer-format.rst), as it is or compressed with LZ4 in the legacy frame,
//! which is the one LZ4 frame that the kernel's decompressor knows.
//!
//! Parents come before what is in them. Of an inode with several names the last one carries the data. Extended
//! attributes have no place in this format: a tree that has some is refused rather than changed.

use crate::error::{Context, Error, Result};
use crate::output::{Output, Written};
use crate::tree::{Inode, Kind, Tree, Visit};
use std::path::Path;

/// How the archive is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is: the kernel only copies.
    None,
    /// LZ4: smaller, and cheap to unpack.
    Lz4,
}

/// The most that one LZ4 block of the legacy frame holds before compression.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: u32 = 0x184c_2102;
/// An initrd is loaded into guest memory twice over; one this large is a mistake.
const SIZE_MAX: u64 = 512 << 20;

/// Writes the archive of `tree` to the file `path`, which appears when all of it is written.
pub fn write(tree: &Tree, compression: Compression, path: &Path) -> Result<Written> {
    let archive = archive(tree)?;
    let mut output = Output::create(path)?;
    match compression {
        Compression::None => output.append(&archive)?,
        Compression::Lz4 => compress(&archive, &mut output)?,
    }
    output.finish(path)
}

/// The archive as bytes.
pub fn archive(tree: &Tree) -> Result<Vec<u8>> {
    let links = tree.link_counts();
    let mut seen = vec![0u32; tree.table_len()];
    let mut out = Vec::new();
    for visit in tree.walk().filter(|visit| !visit.path.names().is_empty()) {
        let index = visit.id.index();
        let links = links.get(index).copied().unwrap_or(1);
        let is_last = seen.get_mut(index).is_none_or(|seen| {
            *seen += 1;
            *seen == links
        });
        member(tree, &visit, links, is_last, &mut out)
            .context(|| format!("archive {:?}", visit.path))?;
    }
    header(&mut out, &Header { links: 1, name: b"TRAILER!!!", ..Header::default() });
    Ok(out)
}

fn member(tree: &Tree, visit: &Visit, links: u32, is_last: bool, out: &mut Vec<u8>) -> Result<()> {
    let Inode { meta, kind } = tree.inode(visit.id);
    if !meta.xattrs.is_empty() {
        return Err(Error::unsupported("an initrd cannot hold extended attributes"));
    }
    let (size, device) = match kind {
        Kind::File(content) if is_last => (content.len(), (0, 0)),
        Kind::Symlink(target) => (target.len() as u64, (0, 0)),
        Kind::Device { major, minor, .. } => (0, (*major, *minor)),
        Kind::File(_) | Kind::Directory(_) | Kind::Fifo | Kind::Socket | Kind::Whiteout => {
            (0, (0, 0))
        }
    };
    if out.len() as u64 + size > SIZE_MAX {
        return Err(Error::too_large("an initrd is at most 512 MiB"));
    }
    let number =
        |value: u64| u32::try_from(value).map_err(|_| Error::too_large("does not fit in 32 bits"));
    header(
        out,
        &Header {
            inode: number(visit.id.index() as u64)?,
            mode: u32::from(kind.type_bits() | meta.mode & 0o7777),
            uid: meta.uid,
            gid: meta.gid,
            links,
            mtime: u32::try_from(meta.mtime.seconds).unwrap_or(u32::MAX),
            size: number(size)?,
            device,
            name: &visit.path.to_bytes(),
        },
    );
    match kind {
        Kind::File(content) if is_last => content.copy_to(&mut Vec::new(), |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?,
        Kind::Symlink(target) => out.extend(target),
        Kind::File(_)
        | Kind::Directory(_)
        | Kind::Device { .. }
        | Kind::Fifo
        | Kind::Socket
        | Kind::Whiteout => {}
    }
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}

#[derive(Default)]
struct Header<'a> {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
    name: &'a [u8],
}

/// Thirteen numbers of eight hexadecimal digits, then the name with a zero, all padded to four bytes.
fn header(out: &mut Vec<u8>, header: &Header<'_>) {
    let Header { inode, mode, uid, gid, links, mtime, size, device, name } = header;
    let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    out.extend(b"070701");
    let on_device = (0, 0); // where the inode numbers count; one archive is one place
    for number in [
        *inode,
        *mode,
        *uid,
        *gid,
        *links,
        *mtime,
        *size,
        on_device.0,
        on_device.1,
        device.0,
        device.1,
        name_size,
        0,
    ] {
        out.extend(format!("{number:08x}").bytes());
    }
    out.extend(*name);
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn compress(archive: &[u8], output: &mut Output) -> Result<()> {
    output.append(&LZ4_LEGACY_MAGIC.to_le_bytes())?;
    for block in archive.chunks(LZ4_BLOCK) {
        let packed = lz4_flex::block::compress(block);
        let size =
            u32::try_from(packed.len()).map_err(|_| Error::too_large("a block over 4 GiB"))?;
        output.append(&size.to_le_bytes())?;
        output.append(&packed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{InodeId, Meta, Name};

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.put("d", Meta::root_owned(0o1777), Kind::directory()).unwrap();
        let file = Kind::File(Content::bytes(b"hello"));
        let id = tree.put("d/a", Meta::root_owned(0o755), file).unwrap();
        tree.link(InodeId::ROOT, Name::new(b"z").unwrap(), id).unwrap();
        tree
    }

    #[test]
    fn the_last_of_several_names_carries_the_data() {
        let text = String::from_utf8(archive(&sample()).unwrap()).unwrap();
        let size_of = |name: &str| {
            let header = text.find(&format!("{name}\0")).unwrap() - 110;
            u32::from_str_radix(&text[header + 54..header + 62], 16).unwrap()
        };
        assert_eq!((size_of("d/a"), size_of("z")), (0, 5));
        assert!(text.starts_with("070701") && text.contains("TRAILER!!!"));
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn lz4_blocks_unpack_to_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initrd");
        write(&sample(), Compression::Lz4, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..4], LZ4_LEGACY_MAGIC.to_le_bytes());
        let unpacked = lz4_flex::block::decompress(&bytes[8..], 1 << 20).unwrap();
        assert_eq!(unpacked, archive(&sample()).unwrap());
    }

    #[test]
    fn attributes_are_refused_and_not_lost() {
        let mut tree = sample();
        tree.inode_mut(InodeId::ROOT).meta.xattrs.insert(b"user.a".to_vec(), vec![]);
        tree.for_each_meta(|meta| drop(meta.xattrs.insert(b"user.a".to_vec(), vec![])));
        assert!(archive(&tree).unwrap_err().to_string().contains("extended attributes"));
    }
}
