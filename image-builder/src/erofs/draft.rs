//! An image whose file contents come first, as they arrive, and whose metadata is written behind them: a layer goes
//! from its archive into its image in one pass, without a copy that waits in between.
//!
//! ```text
//! 0        1024         4096                                metadata                              end (padded)
//! | zeros | superblock | files, each from a 4 KiB block on | inodes, xattrs, inline tails | directories | hole |
//! ```
//! The superblock says where the metadata lies (`meta_blkaddr`), so the format is the same.

use super::plan::{Order, Placed, Plan};
use super::{BLOCK, Options, records};
use crate::error::{Context, Result};
use crate::output::Hidden;
use crate::spool::Spool;
use crate::tree::{Kind, Tree};
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

/// An image under construction.
pub struct Draft {
    hidden: Hidden,
    spool: Spool,
}

impl Draft {
    /// An empty one on the file system of this directory.
    pub fn new(directory: &Path) -> Result<Draft> {
        let operation = || format!("create a file in {directory:?}");
        let hidden = Hidden::new(directory).context(operation)?;
        let file = hidden.file().try_clone().context(operation)?;
        Ok(Draft { hidden, spool: Spool::within(Rc::new(file), BLOCK, BLOCK) })
    }

    /// Where file contents go.
    pub fn spool(&mut self) -> &mut Spool {
        &mut self.spool
    }

    /// Adds what the tree has beside the contents that lie in the image. Gives the file, still without a name, and its
    /// length.
    pub fn finish(mut self, tree: &Tree, options: &Options) -> Result<(Hidden, u64)> {
        self.spool.flush()?;
        let order = Order::DataFirst { file: self.spool.file(), end: self.spool.end() };
        let plan = Plan::new(tree, options.build_time, order)?;
        let file = self.hidden.file();
        let at = |bytes: &[u8], place: u64| {
            file.write_all_at(bytes, place)
                .context(|| format!("write {} bytes at {place}", bytes.len()))
        };
        at(&records(tree, &plan, options)?, plan.metadata_block * BLOCK)?;
        let mut buffer = Vec::new();
        for placed in &plan.inodes {
            write_data(tree, placed, &plan, file, &mut buffer)?;
        }
        let mut first = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        super::put_superblock(&mut first, &plan, options)?;
        at(&first, 0)?;
        let length = (plan.blocks * BLOCK).next_multiple_of(options.alignment);
        file.set_len(length).context(|| "set the length of the image".into())?;
        let mode = Permissions::from_mode(0o644); // whatever the umask is
        file.set_permissions(mode).context(|| "chmod the image".into())?;
        Ok((self.hidden, length))
    }
}

/// The blocks of one inode that are not there yet.
fn write_data(
    tree: &Tree,
    placed: &Placed,
    plan: &Plan,
    file: &File,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let mut place = placed.block * BLOCK;
    match &tree.inode(placed.id).kind {
        Kind::File(_) if placed.block < plan.metadata_block => Ok(()),
        Kind::File(content) => content.copy_to(buffer, |piece| {
            if piece.iter().any(|byte| *byte != 0) {
                file.write_all_at(piece, place)?;
            }
            place += piece.len() as u64;
            Ok(())
        }),
        Kind::Directory(_) | Kind::Symlink(_) => {
            file.write_all_at(placed.blocks(), place).map_err(Into::into)
        }
        Kind::Device { .. } | Kind::Fifo | Kind::Socket | Kind::Whiteout => Ok(()),
    }
    .context(|| format!("copy {:?}", placed.path))
}
