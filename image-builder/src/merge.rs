//! Puts a layer's tree on the tree of the layers below it: what overlayfs would show of the two
//! (Documentation/filesystems/overlayfs.rst, "Upper and Lower").

use crate::error::Result;
use crate::tree::{Inode, InodeId, Kind, Name, Tree};
use std::collections::HashMap;

/// Changes `base` into the merged tree. Both are trees, so it ends; a directory is visited once.
pub fn merge(base: &mut Tree, layer: &Tree) -> Result<()> {
    let mut merge =
        Merge { layer, moved: HashMap::new(), pairs: vec![(InodeId::ROOT, InodeId::ROOT)] };
    merge_root(base, layer);
    while let Some((into, from)) = merge.pairs.pop() {
        let Some(directory) = layer.directory(from) else {
            continue;
        };
        for (name, id) in directory.entries() {
            merge.entry(base, into, name, id)?;
        }
    }
    Ok(())
}

fn merge_root(base: &mut Tree, layer: &Tree) {
    let Some(root) = layer.directory(InodeId::ROOT) else {
        return;
    };
    if root.opaque {
        *base = Tree::new(base.inode(InodeId::ROOT).meta.clone());
    }
    if !root.implicit {
        base.inode_mut(InodeId::ROOT).meta = layer.inode(InodeId::ROOT).meta.clone();
    }
}

struct Merge<'a> {
    layer: &'a Tree,
    /// Where the layer's inodes are in the merged tree: several names stay one inode.
    moved: HashMap<InodeId, InodeId>,
    /// Directories still to merge: in the merged tree, in the layer.
    pairs: Vec<(InodeId, InodeId)>,
}

impl Merge<'_> {
    /// One name of the layer's directory, which goes into the directory `into`.
    fn entry(&mut self, base: &mut Tree, into: InodeId, name: &Name, id: InodeId) -> Result<()> {
        let inode = self.layer.inode(id);
        match &inode.kind {
            Kind::Whiteout => {
                base.unlink(into, name);
            }
            Kind::Directory(upper) => {
                let there = base.directory(into).and_then(|directory| directory.entry(name));
                let lower = there.filter(|there| base.directory(*there).is_some() && !upper.opaque);
                let merged = match lower {
                    Some(lower) => lower,
                    None => {
                        base.unlink(into, name);
                        let made = Inode { meta: inode.meta.clone(), kind: Kind::directory() };
                        base.add(into, name.clone(), made)?
                    }
                };
                if !upper.implicit {
                    base.inode_mut(merged).meta = inode.meta.clone();
                }
                self.pairs.push((merged, id));
            }
            Kind::File(_) | Kind::Symlink(_) | Kind::Device { .. } | Kind::Fifo | Kind::Socket => {
                base.unlink(into, name);
                match self.moved.get(&id) {
                    Some(there) => base.link(into, name.clone(), *there)?,
                    None => {
                        let there = base.add(into, name.clone(), inode.clone())?;
                        self.moved.insert(id, there);
                    }
                }
            }
        }
        Ok(())
    }
}
