//! Reads an image of ours back into a tree whose contents lie in the image: to see what is below a layer, and to make
//! one image of several. Not a reader of any EROFS: what our writer does not make is refused.

use super::BLOCK;
use super::format::{INODE_SLOT, MAGIC, OPAQUE, SUPERBLOCK_OFFSET, xattr_name};
use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::tree::{DeviceClass, Inode, InodeId, Kind, Meta, Name, PATH_MAX, Time, Tree};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The longest directory: more names than an image may have entries.
const DIRECTORY_MAX: u64 = 512 << 20;
const DIRENT_SIZE: usize = 12;

/// Reads the image in `file`.
pub fn read(file: &Rc<File>) -> Result<Tree> {
    let image = Image::open(file).context(|| "read EROFS image".into())?;
    image.tree().context(|| "read EROFS image".into())
}

struct Image {
    file: Rc<File>,
    length: u64,
    /// Where inode number 0 would be.
    metadata: u64,
    root: u64,
    inodes: u64,
    build_time: Time,
}

/// Numbers at a place of a record.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| Error::refused("a record is cut off"))
    }

    fn u8(&self, at: usize) -> Result<u8> {
        self.bytes(at).map(u8::from_le_bytes)
    }

    fn u16(&self, at: usize) -> Result<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

impl Image {
    fn open(file: &Rc<File>) -> Result<Image> {
        let length = file.metadata()?.len();
        let mut bytes = [0; 128];
        file.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)?;
        let record = Record(&bytes);
        if record.u32(0)? != MAGIC || record.u8(12)? != 12 || record.u32(80)? != 0 {
            return Err(Error::refused("not an image that image-builder wrote"));
        }
        Ok(Image {
            file: Rc::clone(file),
            length,
            metadata: u64::from(record.u32(40)?) * BLOCK,
            root: u64::from(record.u16(14)?),
            inodes: record.u64(16)?,
            build_time: Time { seconds: record.u64(24)?, nanoseconds: record.u32(32)? },
        })
    }

    fn tree(&self) -> Result<Tree> {
        let (root, data) = self.inode(self.root)?;
        let mut tree = Tree::new(root.meta);
        let mut known = HashMap::from([(self.root, InodeId::ROOT)]);
        let mut waiting = vec![(InodeId::ROOT, data)];
        while let Some((parent, data)) = waiting.pop() {
            for (name, nid) in entries(&data)? {
                let id = match known.get(&nid) {
                    Some(id) if tree.directory(*id).is_some() => {
                        return Err(Error::refused("a directory has two names"));
                    }
                    Some(id) => {
                        tree.link(parent, name, *id)?;
                        continue;
                    }
                    None if known.len() as u64 >= self.inodes => {
                        return Err(Error::refused("more inodes than its superblock says"));
                    }
                    None => {
                        let (inode, data) = self.inode(nid)?;
                        let is_directory = matches!(inode.kind, Kind::Directory(_));
                        let id = tree.add(parent, name, inode)?;
                        if is_directory {
                            waiting.push((id, data));
                        }
                        id
                    }
                };
                known.insert(nid, id);
            }
        }
        Ok(tree)
    }

    fn bytes(&self, place: u64, length: u64) -> Result<Vec<u8>> {
        if place.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::refused(format!("{length} bytes at {place}: beyond its end")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    /// An inode, and a directory's data.
    fn inode(&self, nid: u64) -> Result<(Inode, Vec<u8>)> {
        let place = nid.checked_mul(INODE_SLOT).and_then(|place| place.checked_add(self.metadata));
        let place = place.ok_or_else(|| Error::refused("an inode number is too large"))?;
        let head = self.bytes(place, 32)?;
        let format = Record(&head).u16(0)?;
        let is_compact = format & 1 == 0;
        let head = if is_compact { head } else { self.bytes(place, 64)? };
        let record = Record(&head);
        let mode = record.u16(4)?;
        let union = record.u32(16)?;
        let (size, uid, gid, mtime) = match is_compact {
            true => (
                u64::from(record.u32(8)?),
                u32::from(record.u16(24)?),
                u32::from(record.u16(26)?),
                self.build_time,
            ),
            false => {
                let mtime = Time { seconds: record.u64(32)?, nanoseconds: record.u32(40)? };
                (record.u64(8)?, record.u32(24)?, record.u32(28)?, mtime)
            }
        };
        let units = u64::from(record.u16(2)?);
        let attributes = if units == 0 { 0 } else { 12 + (units - 1) * 4 };
        let behind = place + head.len() as u64;
        let mut xattrs = xattrs(&self.bytes(behind, attributes)?)?;
        let opaque = xattrs.remove(OPAQUE).is_some();
        let stretch =
            Stretch { size, block: union, layout: format >> 1, tail: behind + attributes };
        let mut data = Vec::new();
        let kind = match mode & 0o170_000 {
            0o040_000 => {
                data = self.data(&stretch, DIRECTORY_MAX)?;
                let mut kind = Kind::directory();
                if let Kind::Directory(directory) = &mut kind {
                    directory.opaque = opaque;
                }
                kind
            }
            0o100_000 => Kind::File(self.content(&stretch)?),
            0o120_000 => Kind::Symlink(self.data(&stretch, PATH_MAX as u64)?),
            0o020_000 if union == 0 => Kind::Whiteout,
            0o020_000 => device(DeviceClass::Char, union),
            0o060_000 => device(DeviceClass::Block, union),
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            _ => return Err(Error::refused(format!("an inode of mode {mode:o}"))),
        };
        let meta = Meta { mode: mode & 0o7777, uid, gid, mtime, xattrs };
        Ok((Inode { meta, kind }, data))
    }

    /// The data of a directory or a link, which may end behind its inode.
    fn data(&self, stretch: &Stretch, limit: u64) -> Result<Vec<u8>> {
        if stretch.size > limit {
            return Err(Error::refused(format!("a directory or link of {} bytes", stretch.size)));
        }
        let inline = if stretch.layout == 2 { stretch.size % BLOCK } else { 0 };
        let place = u64::from(stretch.block) * BLOCK;
        let mut data = self.bytes(place, stretch.size - inline)?;
        data.extend(self.bytes(stretch.tail, inline)?);
        Ok(data)
    }

    fn content(&self, stretch: &Stretch) -> Result<Content> {
        let place = u64::from(stretch.block) * BLOCK;
        let fits = place.checked_add(stretch.size).is_some_and(|end| end <= self.length);
        match fits && stretch.layout == 0 {
            true => Ok(Content::stretch(&self.file, place, stretch.size)),
            false => Err(Error::refused("a file's data is not where our writer puts it")),
        }
    }
}

/// Where an inode's data lies.
struct Stretch {
    size: u64,
    block: u32,
    layout: u16,
    /// Where a last part would be.
    tail: u64,
}

fn device(class: DeviceClass, number: u32) -> Kind {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    Kind::Device { class, major, minor }
}

/// The names of a directory but its own two links, each with its inode.
fn entries(data: &[u8]) -> Result<Vec<(Name, u64)>> {
    let mut all = Vec::new();
    for block in data.chunks(usize::try_from(BLOCK).unwrap_or_default()) {
        let record = Record(block);
        let count = usize::from(record.u16(8)?) / DIRENT_SIZE;
        for at in (0..count).map(|index| index * DIRENT_SIZE) {
            let start = usize::from(record.u16(at + 8)?);
            let is_last = at + DIRENT_SIZE == count * DIRENT_SIZE;
            let end = match is_last {
                false => usize::from(record.u16(at + DIRENT_SIZE + 8)?),
                true => block.len(),
            };
            let name = block.get(start..end).ok_or_else(|| Error::refused("a name is cut off"))?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if name != b"." && name != b".." {
                all.push((Name::new(name)?, record.u64(at)?));
            }
        }
    }
    Ok(all)
}

fn xattrs(body: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut at = DIRENT_SIZE; // the header is as long
    while at < body.len() {
        let record = Record(body);
        let (length, index) = (usize::from(record.u8(at)?), record.u8(at + 1)?);
        let value = at + 4 + length;
        let end = value + usize::from(record.u16(at + 2)?);
        let (Some(name), Some(value)) = (body.get(at + 4..value), body.get(value..end)) else {
            return Err(Error::refused("an attribute is cut off"));
        };
        all.insert(xattr_name(index, name)?, value.to_vec());
        at = end.next_multiple_of(4);
    }
    Ok(all)
}
