//! Writes a tree as an EROFS image that a guest can map instead of read.
//!
//! ```text
//! 0        1024         1152                    metadata end      data start (4 KiB)        end (padded)
//! | zeros | superblock | inodes, xattrs, inline tails | zeros | directory blocks, file data ... | hole |
//! ```
//! With an info block ([`crate::info_block`]) there are two file systems over the same data, so that the image is one
//! whether a kernel takes the block for an offset of 8 KiB or knows nothing of it:
//! ```text
//! 0                4096         8 KiB                                                           data
//! | superblock A | info block | metadata B, as above, counted from here | metadata A | directory blocks, file data ...
//! ```
//!
//! The layout is the plain one: nothing is compressed, a regular file's data is a run of whole 4 KiB blocks and never
//! packed behind its inode, since DAX maps only such files (`FLAT_PLAIN`). Directories and symbolic links do keep
//! their last part behind their inode when it fits. Planning ([`plan`]) is pure arithmetic, so the image is then
//! written from front to back in one pass. Nothing in it depends on the host: the UUID is fixed, times come from the
//! tree, names are sorted. Facts about the format: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux 6.12.

mod draft;
mod format;
mod plan;
mod read;

use crate::error::{Context, Error, Result};
use crate::info_block;
use crate::output::{Output, Written};
use crate::progress::Progress;
use crate::tree::{Inode, Kind, Time, Tree};
use crate::verity::{self, Verity};
pub use draft::Draft;
pub use format::OPAQUE;
use plan::{Order, Placed, Plan};
pub use read::read;
use std::path::Path;

/// The size of a block, and the unit in which file data is placed.
pub const BLOCK: u64 = 4096;
/// What pmem devices must be a multiple of on x86-64 (one memory sub-section, and one huge page).
pub const PMEM_ALIGNMENT: u64 = 2 << 20;

/// What may differ between two images of one tree.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The time that small inodes share; an inode with another one takes 32 bytes more.
    pub build_time: Time,
    /// The file's length is made a multiple of this many bytes; itself a multiple of 4096.
    pub alignment: u64,
    /// It begins with an info block, for kernels that map an nvdimm only then.
    pub info_block: bool,
    /// A hash tree follows the file system: see [`crate::verity`].
    pub verity: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            build_time: Time::default(),
            alignment: PMEM_ALIGNMENT,
            info_block: false,
            verity: false,
        }
    }
}

/// Writes the image of `tree` to the file `path`, which appears when all of it is written.
pub fn write(
    tree: &Tree,
    options: &Options,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Written> {
    let mut output = Output::create(path)?;
    let verity = write_all(&mut output, tree, options, progress)?;
    Ok(Written { verity, ..output.finish(path)? })
}

/// As [`write`], into a file that is not to be seen yet.
pub fn write_to(
    output: &mut Output,
    tree: &Tree,
    options: &Options,
    progress: &dyn Progress,
) -> Result<()> {
    write_all(output, tree, options, progress).map(drop)
}

fn write_all(
    output: &mut Output,
    tree: &Tree,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Option<Verity>> {
    let mut plan = Plan::new(tree, options.build_time, Order::MetadataFirst)?;
    let metadata = match options.info_block {
        true => two_views(tree, &mut plan, options)?,
        false => one_view(tree, &plan, options)?,
    };
    output.append(&metadata)?;
    output.pad(BLOCK)?;
    let mut buffer = Vec::new();
    progress.begin("writing", plan.blocks * BLOCK);
    for placed in &plan.inodes {
        write_data(tree, placed, output, &mut buffer, progress)?;
    }
    progress.end();
    let verity = options.verity.then(|| verity::append(output)).transpose()?;
    output.pad(options.alignment)?;
    Ok(verity)
}

/// Everything before the first data block.
fn one_view(tree: &Tree, plan: &Plan, options: &Options) -> Result<Vec<u8>> {
    let mut bytes = records(tree, plan, options)?;
    put_superblock(&mut bytes, plan, options)?;
    Ok(bytes)
}

/// The same of an image that is seen from its start (A) and from behind its info block (B).
fn two_views(tree: &Tree, plan: &mut Plan, options: &Options) -> Result<Vec<u8>> {
    let blocks = plan.metadata_size.div_ceil(BLOCK);
    let skipped = info_block::DATA_OFFSET / BLOCK;
    plan.move_by(0, blocks); // A's metadata lies between B's and the data
    let behind = one_view(tree, plan, options)?;
    plan.move_by(skipped + blocks, skipped);
    let mut first = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
    put_superblock(&mut first, plan, options)?;
    Ok([first, info_block::bytes(), behind, records(tree, plan, options)?].concat())
}

/// The inodes with all that lies behind them, in whole blocks.
fn records(tree: &Tree, plan: &Plan, options: &Options) -> Result<Vec<u8>> {
    let size = usize::try_from(plan.metadata_size.next_multiple_of(BLOCK));
    let mut bytes =
        vec![0; size.map_err(|_| Error::too_large("image: too much metadata for this machine"))?];
    for placed in &plan.inodes {
        let record = format::inode(tree.inode(placed.id), placed, options.build_time)?;
        put(&mut bytes, placed.offset, &record)?;
    }
    Ok(bytes)
}

/// Puts the superblock into the first block of the image.
fn put_superblock(bytes: &mut [u8], plan: &Plan, options: &Options) -> Result<()> {
    let root = plan.inodes.first().map_or(0, Placed::nid);
    let superblock = format::superblock(plan, root, options.build_time)?;
    put(bytes, format::SUPERBLOCK_OFFSET, &superblock)?;
    format::seal_superblock(bytes);
    Ok(())
}

fn put(bytes: &mut [u8], offset: u64, record: &[u8]) -> Result<()> {
    let place =
        usize::try_from(offset).ok().and_then(|start| bytes.get_mut(start..start + record.len()));
    place
        .ok_or_else(|| Error::io(format!("image: no place for a record at {offset}")))?
        .copy_from_slice(record);
    Ok(())
}

/// The blocks of one inode: all of a file, or what of a directory or link does not lie behind its inode.
fn write_data(
    tree: &Tree,
    placed: &Placed,
    output: &mut Output,
    buffer: &mut Vec<u8>,
    progress: &dyn Progress,
) -> Result<()> {
    let Inode { kind, .. } = tree.inode(placed.id);
    match kind {
        Kind::File(content) => content
            .copy_to(buffer, |piece| {
                progress.advance(piece.len() as u64);
                output.append(piece)
            })
            .context(|| format!("copy {:?}", placed.path))?,
        Kind::Directory(_) | Kind::Symlink(_) => {
            output.append(placed.blocks())?;
        }
        Kind::Device { .. } | Kind::Fifo | Kind::Socket | Kind::Whiteout => {}
    }
    output.pad(BLOCK)
}

/// Whether an image can hold an attribute of this name.
pub fn can_store_xattr(name: &[u8]) -> bool {
    format::xattr_index(name).is_some_and(|(_, rest)| rest.len() <= usize::from(u8::MAX))
}
