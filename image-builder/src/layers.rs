//! A layer is a tar archive that says what changes (OCI image-spec, layer.md). It is read into a tree of its own, in
//! which whiteouts are entries and directories may be opaque; [`crate::merge`] puts such a tree on the ones below it.
//!
//! So the order of a layer's entries decides nothing, a whiteout never hides what its own layer brings, and one layer
//! can be stored alone. Names are judged here: a path that climbs, is absolute or goes through a link is refused, and
//! so is a second entry of one name. Contents are noted by their place: in the archive itself if that is a file, else
//! in a spool.

use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::limits::Budget;
use crate::place::{Place, content};
use crate::tar::{Archive, Entry, EntryKind, Source};
use crate::tree::{DeviceClass, Inode, InodeId, Kind, Meta, Name, PATH_MAX, Path, Tree, shown};
use std::cell::Cell;
use std::collections::BTreeMap;

/// What the name of an entry begins with that takes one of the layers below away.
const WHITEOUT: &[u8] = b".wh.";
/// Empties the directory that it lies in.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other bookkeeping of aufs, which is no part of the tree.
const AUFS: &[u8] = b".wh..wh.";

/// What was left out of a layer because an image cannot hold it, with how often.
pub type LeftOut = BTreeMap<String, usize>;

/// What lies below a layer, for hard links to files there.
pub struct Lower<'a> {
    /// `None`: it was not read yet, and a layer that asks for it is refused.
    tree: Option<&'a Tree>,
    is_asked: Cell<bool>,
}

impl<'a> Lower<'a> {
    pub fn new(tree: Option<&'a Tree>) -> Lower<'a> {
        Lower { tree, is_asked: Cell::new(false) }
    }

    /// Whether a layer had a link to what lies below it.
    pub fn is_asked(&self) -> bool {
        self.is_asked.get()
    }
}

/// Reads a layer.
pub fn read<S: Source>(
    archive: &mut Archive<S>,
    lower: &Lower<'_>,
    mut place: Place<'_>,
    budget: &mut Budget,
    left_out: &mut LeftOut,
) -> Result<Tree> {
    let mut layer = Layer { tree: Tree::default(), lower, left_out };
    if let Kind::Directory(root) = &mut layer.tree.inode_mut(InodeId::ROOT).kind {
        root.implicit = true;
    }
    let mut buffer = vec![0; 256 << 10];
    while let Some(entry) = archive.next_entry()? {
        let name = shown(&entry.path);
        account(&entry, budget).context(|| format!("entry {name:?}"))?;
        let content = content(archive, &entry, &mut place, &mut buffer)
            .context(|| format!("entry {name:?}"))?;
        layer.apply(entry, content, budget).context(|| format!("entry {name:?}"))?;
    }
    if let Place::Spool(spool) = place {
        spool.flush()?;
    }
    Ok(layer.tree)
}

fn account(entry: &Entry, budget: &mut Budget) -> Result<()> {
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    budget.take_entry(entry.path.len() + entry.target.len() + xattrs)?;
    budget.take_content(entry.size)
}

struct Layer<'a> {
    tree: Tree,
    lower: &'a Lower<'a>,
    left_out: &'a mut LeftOut,
}

impl Layer<'_> {
    fn apply(&mut self, entry: Entry, content: Content, budget: &Budget) -> Result<()> {
        let path = Path::parse(&entry.path)?;
        let Some((parent, name)) = path.split() else {
            return self.apply_root(entry);
        };
        let parent = self.parents(&parent)?;
        match name.as_bytes() {
            OPAQUE => {
                self.make_opaque(parent);
                Ok(())
            }
            bytes if bytes.starts_with(AUFS) => Ok(()),
            bytes => match bytes.strip_prefix(WHITEOUT) {
                Some(gone) => self.add_whiteout(parent, Name::new(gone)?),
                None if entry.kind == EntryKind::HardLink => self.add_link(parent, name, &entry),
                None => {
                    let kind = kind(&entry, content, budget)?;
                    self.add(parent, name, entry, kind)
                }
            },
        }
    }

    fn apply_root(&mut self, entry: Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::refused("the root is not a directory"));
        }
        let meta = self.meta(entry);
        self.describe(InodeId::ROOT, meta);
        Ok(())
    }

    /// The directory at this path of the layer, made where nothing said so. Nothing leads through a link.
    fn parents(&mut self, path: &Path) -> Result<InodeId> {
        let mut id = InodeId::ROOT;
        for name in path.names() {
            id = match self.child(id, name) {
                None => self.implicit_directory(id, name)?,
                Some(child) => match self.tree.inode(child).kind {
                    Kind::Directory(_) => child,
                    Kind::Whiteout => {
                        self.tree.unlink(id, name);
                        let made = self.implicit_directory(id, name)?;
                        self.make_opaque(made);
                        made
                    }
                    Kind::Symlink(_) => {
                        return Err(Error::refused(format!(
                            "it goes through {name:?}, a symbolic link"
                        )));
                    }
                    Kind::File(_) | Kind::Device { .. } | Kind::Fifo | Kind::Socket => {
                        return Err(Error::refused(format!(
                            "it goes through {name:?}, not a directory"
                        )));
                    }
                },
            };
        }
        Ok(id)
    }

    fn child(&self, parent: InodeId, name: &Name) -> Option<InodeId> {
        self.tree.directory(parent)?.entry(name)
    }

    fn implicit_directory(&mut self, parent: InodeId, name: &Name) -> Result<InodeId> {
        let mut kind = Kind::directory();
        if let Kind::Directory(directory) = &mut kind {
            directory.implicit = true;
        }
        self.tree.add(parent, name.clone(), Inode { meta: Meta::root_owned(0o755), kind })
    }

    /// Lets a directory hide what lies below it; of no consequence for anything else, which always does.
    fn make_opaque(&mut self, id: InodeId) {
        if let Kind::Directory(directory) = &mut self.tree.inode_mut(id).kind {
            directory.opaque = true;
        }
    }

    /// Gives a directory the metadata that its own entry has.
    fn describe(&mut self, id: InodeId, meta: Meta) {
        let inode = self.tree.inode_mut(id);
        inode.meta = meta;
        if let Kind::Directory(directory) = &mut inode.kind {
            directory.implicit = false;
        }
    }

    /// Notes that the layers below lose this name. What this layer itself has there stays.
    fn add_whiteout(&mut self, parent: InodeId, name: Name) -> Result<()> {
        match self.child(parent, &name) {
            Some(child) => {
                self.make_opaque(child);
                Ok(())
            }
            None => {
                let inode = Inode { meta: Meta::default(), kind: Kind::Whiteout };
                self.tree.add(parent, name, inode).map(drop)
            }
        }
    }

    fn add_link(&mut self, parent: InodeId, name: &Name, entry: &Entry) -> Result<()> {
        let operation = || format!("hard link to {:?}", shown(&entry.target));
        let target = Path::parse(&entry.target).context(operation)?;
        let id = match self.tree.find(&target) {
            Some(id) => id,
            None => self.copy_up(&target).context(operation)?,
        };
        match self.tree.inode(id).kind {
            Kind::Directory(_) => Err(Error::refused("it is a directory")).context(operation),
            Kind::Whiteout => Err(Error::refused("this layer removes it")).context(operation),
            Kind::File(_) | Kind::Symlink(_) | Kind::Device { .. } | Kind::Fifo | Kind::Socket => {
                self.clear(parent, name)?;
                self.tree.link(parent, name.clone(), id)
            }
        }
    }

    /// Takes a file of the layers below into this one, as overlayfs does when it gets one more name.
    fn copy_up(&mut self, path: &Path) -> Result<InodeId> {
        self.lower.is_asked.set(true);
        let found = self.lower.tree.and_then(|base| Some((base, base.find(path)?, path.split()?)));
        let Some((base, id, (parent, name))) = found else {
            return Err(Error::refused("there is no such file"));
        };
        let inode = base.inode(id).clone();
        if base.directory(id).is_some() {
            return Err(Error::refused("it is a directory"));
        }
        let parent = self.parents(&parent)?;
        self.tree.add(parent, name.clone(), inode)
    }

    /// Makes room for an entry: a whiteout of its name yields. Says whether there was one.
    fn clear(&mut self, parent: InodeId, name: &Name) -> Result<bool> {
        match self.child(parent, name) {
            Some(child) if matches!(self.tree.inode(child).kind, Kind::Whiteout) => {
                Ok(self.tree.unlink(parent, name))
            }
            Some(_) => Err(Error::refused("a second entry of this name")),
            None => Ok(false),
        }
    }

    fn add(&mut self, parent: InodeId, name: &Name, entry: Entry, kind: Kind) -> Result<()> {
        let is_directory = entry.kind == EntryKind::Directory;
        let meta = self.meta(entry);
        if let Some(child) = self.child(parent, name)
            && self.tree.directory(child).is_some()
            && is_directory
        {
            self.describe(child, meta);
            return Ok(());
        }
        let was_gone = self.clear(parent, name)?;
        let id = self.tree.add(parent, name.clone(), Inode { meta, kind })?;
        if was_gone {
            self.make_opaque(id);
        }
        Ok(())
    }

    /// The metadata of an entry, less the attributes that an image cannot or must not hold.
    fn meta(&mut self, entry: Entry) -> Meta {
        let Entry { mode, uid, gid, mtime, mut xattrs, .. } = entry;
        xattrs.retain(|name, _| {
            let kept =
                crate::erofs::can_store_xattr(name) && !name.starts_with(b"trusted.overlay.");
            if !kept {
                *self.left_out.entry(format!("attribute {:?}", shown(name))).or_default() += 1;
            }
            kept
        });
        Meta { mode, uid, gid, mtime, xattrs }
    }
}

fn kind(entry: &Entry, content: Content, budget: &Budget) -> Result<Kind> {
    match &entry.kind {
        EntryKind::File => Ok(Kind::File(content)),
        EntryKind::Directory => Ok(Kind::directory()),
        EntryKind::Symlink if entry.target.is_empty() => Err(Error::refused("a link to nowhere")),
        EntryKind::Symlink if entry.target.len() > PATH_MAX => {
            Err(Error::refused("a link whose target is over 4095 bytes"))
        }
        EntryKind::Symlink if entry.target.contains(&0) => {
            Err(Error::refused("a link whose target holds a zero byte"))
        }
        EntryKind::Symlink => Ok(Kind::Symlink(entry.target.clone())),
        EntryKind::Device { class: DeviceClass::Char, major: 0, minor: 0 } => {
            Err(Error::refused("character device 0:0, which overlayfs takes for a whiteout"))
        }
        EntryKind::Device { class, major, minor } if *major < 1 << 12 && *minor < 1 << 20 => {
            budget.check_device(*class, *major, *minor)?;
            Ok(Kind::Device { class: *class, major: *major, minor: *minor })
        }
        EntryKind::Device { major, minor, .. } => {
            Err(Error::refused(format!("device {major}:{minor}: no such number in Linux")))
        }
        EntryKind::Fifo => Ok(Kind::Fifo),
        EntryKind::HardLink => Err(Error::refused("a hard link has no kind of its own")),
    }
}
