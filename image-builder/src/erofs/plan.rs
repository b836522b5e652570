//! Where everything in an EROFS image lies: pure arithmetic over a tree, nothing is read or written.
//!
//! Inodes are placed in the order of a walk (so the root is first and its number fits 16 bits), each at a multiple of
//! 32 bytes; one that fits into a block does not cross into the next, which is what the kernel asks of inline tails.

use super::BLOCK;
use super::format::{self, Entry, INODE_SLOT, Layout, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use crate::error::{Context, Error, Result};
use crate::tree::{Inode, InodeId, Kind, Path, Time, Tree};
use std::fs::File;
use std::rc::Rc;

/// One inode and its place.
pub struct Placed {
    pub id: InodeId,
    /// Its first name, for messages.
    pub path: Path,
    /// 1, 2, 3 ... for `i_ino`.
    pub number: u32,
    pub links: u32,
    /// `st_size`.
    pub size: u64,
    pub layout: Layout,
    /// Where its record lies, in bytes.
    pub offset: u64,
    /// How many bytes of data lie behind the record.
    pub inline: u64,
    /// The first of its data blocks.
    pub block: u64,
    /// The data of a directory or a symbolic link.
    pub data: Vec<u8>,
}

impl Placed {
    pub fn nid(&self) -> u64 {
        self.offset / INODE_SLOT
    }

    /// The data of a directory or a link that does not lie behind the record.
    pub fn blocks(&self) -> &[u8] {
        let inline = usize::try_from(self.inline).unwrap_or(usize::MAX);
        self.data.get(..self.data.len().saturating_sub(inline)).unwrap_or_default()
    }

    /// Whole blocks that its data takes, the inline tail not counted.
    fn data_blocks(&self) -> u64 {
        (self.size - self.inline).div_ceil(BLOCK)
    }
}

/// What comes first.
pub enum Order<'a> {
    /// Superblock, inodes, data: written from front to back.
    MetadataFirst,
    /// The contents that lie in this file, which is the image itself, up to `end`; then inodes and all other data.
    DataFirst { file: &'a Rc<File>, end: u64 },
}

impl Order<'_> {
    /// The first block of the metadata.
    fn metadata_block(&self) -> u64 {
        match self {
            Order::MetadataFirst => 0,
            Order::DataFirst { end, .. } => end.div_ceil(BLOCK),
        }
    }

    /// Where the data of this inode lies already.
    fn block_of(&self, inode: &Inode) -> Option<u64> {
        match (self, &inode.kind) {
            (Order::DataFirst { file, .. }, Kind::File(content)) => {
                content.place_in(file).filter(|place| place % BLOCK == 0).map(|place| place / BLOCK)
            }
            _ => None,
        }
    }
}

/// The whole image.
pub struct Plan {
    /// In the order of their records and of their data.
    pub inodes: Vec<Placed>,
    /// The first block of the records.
    pub metadata_block: u64,
    /// The end of the last record, counted from there.
    pub metadata_size: u64,
    /// All blocks of the image, padding not counted.
    pub blocks: u64,
}

impl Plan {
    pub fn new(tree: &Tree, build_time: Time, order: Order<'_>) -> Result<Plan> {
        let links = tree.link_counts();
        let metadata_block = order.metadata_block();
        let mut plan = Plan { inodes: Vec::new(), metadata_block, metadata_size: 0, blocks: 0 };
        let mut places: Vec<Option<Place>> = vec![None; tree.table_len()];
        let mut end = SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE;
        for visit in tree.walk() {
            let Some(place) = places.get_mut(visit.id.index()).filter(|place| place.is_none())
            else {
                continue; // one more name of an inode that has its place
            };
            let inode = tree.inode(visit.id);
            let links = links.get(visit.id.index()).copied().unwrap_or(1);
            let mut placed = measure(inode, visit.id, links, plan.inodes.len())?;
            placed.path = visit.path;
            end = place_record(inode, &mut placed, end, build_time)
                .context(|| format!("store {:?}", placed.path))?;
            *place = Some(Place { nid: placed.nid(), parent: visit.parent });
            plan.inodes.push(placed);
        }
        plan.metadata_size = end;
        plan.blocks = metadata_block + end.div_ceil(BLOCK);
        for placed in &mut plan.inodes {
            match order.block_of(tree.inode(placed.id)) {
                Some(block) => placed.block = block,
                None => {
                    placed.block = plan.blocks;
                    plan.blocks += placed.data_blocks();
                }
            }
            fill(tree, placed, &places);
        }
        Ok(plan)
    }

    /// The records begin at block `metadata`, and all data lies `shift` blocks further on.
    pub fn move_by(&mut self, metadata: u64, shift: u64) {
        self.metadata_block = metadata;
        self.blocks += shift;
        self.inodes.iter_mut().for_each(|placed| placed.block += shift);
    }
}

/// What a directory entry must know of an inode.
#[derive(Clone, Copy)]
struct Place {
    nid: u64,
    parent: InodeId,
}

/// Sizes, without places.
fn measure(inode: &Inode, id: InodeId, links: u32, before: usize) -> Result<Placed> {
    let size = match &inode.kind {
        Kind::Directory(dir) => {
            let names = format::with_own_links(dir.entries().map(|(name, _)| name));
            format::directory_size(names.into_iter())
        }
        Kind::File(content) => content.len(),
        Kind::Symlink(target) => target.len() as u64,
        Kind::Device { .. } | Kind::Fifo | Kind::Socket | Kind::Whiteout => 0,
    };
    let number =
        u32::try_from(before + 1).map_err(|_| Error::too_large("image: over 2^32 inodes"))?;
    let (path, layout) = (Path::default(), Layout::Plain);
    Ok(Placed {
        id,
        path,
        number,
        links,
        size,
        layout,
        offset: 0,
        inline: 0,
        block: 0,
        data: Vec::new(),
    })
}

/// Finds the place for a record, which may start at `free`; gives the place after it.
fn place_record(inode: &Inode, placed: &mut Placed, free: u64, build_time: Time) -> Result<u64> {
    let compact = format::is_compact(&inode.meta, placed.links, placed.size, build_time);
    let head = format::inode_size(compact) + format::xattr_body(&inode.meta)?.len() as u64;
    let tail = match &inode.kind {
        Kind::Directory(_) | Kind::Symlink(_) => placed.size % BLOCK,
        Kind::File(_) | Kind::Device { .. } | Kind::Fifo | Kind::Socket | Kind::Whiteout => 0,
    };
    if tail > 0 && head + tail <= BLOCK {
        placed.layout = Layout::Inline;
        placed.inline = tail;
    }
    let record = head + placed.inline;
    let start = free.next_multiple_of(INODE_SLOT);
    let crosses = start % BLOCK + record > BLOCK;
    placed.offset = if crosses { start.next_multiple_of(BLOCK) } else { start };
    Ok(placed.offset + record)
}

/// Makes the data of directories and links, for which all places must be known.
fn fill(tree: &Tree, placed: &mut Placed, places: &[Option<Place>]) {
    placed.data = match &tree.inode(placed.id).kind {
        Kind::Directory(dir) => {
            let place = |id: InodeId| places.get(id.index()).copied().flatten();
            let nid = |id: InodeId| place(id).map_or(0, |place| place.nid);
            let parent = place(placed.id).map_or(InodeId::ROOT, |place| place.parent);
            let own = |name, id| Entry { name, nid: nid(id), file_type: 2 };
            let mut entries: Vec<Entry<'_>> = vec![own(b".", placed.id), own(b"..", parent)];
            entries.extend(dir.entries().map(|(name, id)| Entry {
                name: name.as_bytes(),
                nid: nid(id),
                file_type: format::file_type(&tree.inode(id).kind),
            }));
            entries.sort_unstable_by_key(|entry| entry.name);
            format::directory(&entries)
        }
        Kind::Symlink(target) => target.clone(),
        Kind::File(_) | Kind::Device { .. } | Kind::Fifo | Kind::Socket | Kind::Whiteout => {
            Vec::new()
        }
    };
}
