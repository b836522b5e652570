//! One image of several layers, for a machine that has no slot for each: made from the layers' images when it is first
//! asked for, and kept.

use super::{Layer, Store, Stored, lock};
use crate::digest::Digest;
use crate::erofs::{self, Options};
use crate::error::{Context, Result};
use crate::merge::merge;
use crate::progress::Progress;
use crate::tree::{InodeId, Kind, Meta, Tree};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Below the store's directory.
pub const DIRECTORY: &str = "flat/sha256";

/// Where the one image of all layers lies below the store's directory.
pub fn place(digest: &Digest) -> String {
    format!("{DIRECTORY}/{}.erofs", digest.as_hex())
}

impl Store {
    /// The EROFS image of all layers of an image.
    pub fn flatten(&self, image: &Stored, progress: &dyn Progress) -> Result<PathBuf> {
        let operation = || format!("flatten image {}", image.digest);
        let path = self.directory.join(place(&image.digest));
        if path.try_exists().context(operation)? {
            return Ok(path);
        }
        self.make(DIRECTORY).context(operation)?;
        let _lock = lock::share(&self.directory).context(operation)?;
        let mut tree = Tree::default();
        for Layer { path, .. } in &image.layers {
            let layer = read(path).context(operation)?;
            merge(&mut tree, &layer).context(operation)?;
        }
        erofs::write(&tree, &Options::default(), &path, progress).context(operation)?;
        Ok(path)
    }
}

/// The tree of a layer's image. A root that no entry described was written with the metadata that such a one has.
pub fn read(path: &Path) -> Result<Tree> {
    let operation = || format!("read layer {path:?}");
    let file = File::open(path).context(operation)?;
    let mut tree = erofs::read(&Rc::new(file)).context(operation)?;
    let root = tree.inode_mut(InodeId::ROOT);
    let is_plain = root.meta == Meta::root_owned(0o755);
    if let Kind::Directory(directory) = &mut root.kind {
        directory.implicit = is_plain;
    }
    Ok(tree)
}
