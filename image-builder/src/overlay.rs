//! A layer's tree as overlayfs must find it (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
//! directories"): a whiteout is a character device 0:0, a directory that hides what lies below it has an attribute.
//!
//! Most layers say all that they mean. Some lean on those below them: a directory that is only named as a part of a
//! path has the owner and mode that it has there, and an opaque root, which overlayfs does not know, takes away each
//! name that there is. Such a layer means something else on other layers.

use crate::erofs::OPAQUE;
use crate::error::{Error, Result};
use crate::tree::{Inode, InodeId, Kind, Meta, Tree};

/// Whether what the layer means depends on those below it.
pub fn leans(layer: &Tree) -> bool {
    let is_opaque = layer.directory(InodeId::ROOT).is_some_and(|root| root.opaque);
    is_opaque || !implicit(layer).is_empty()
}

/// Settles that, on the layers below.
pub fn settle(layer: &mut Tree, base: &Tree) -> Result<()> {
    for (path, id) in implicit(layer) {
        let Some(below) = base.find(&path) else {
            continue;
        };
        if base.directory(below).is_none() {
            return Err(Error::refused(format!(
                "entry below {path:?}: a layer below has no directory there, maybe a link"
            )));
        }
        layer.inode_mut(id).meta = base.inode(below).meta.clone();
    }
    settle_root(layer, base)
}

fn settle_root(layer: &mut Tree, base: &Tree) -> Result<()> {
    match &mut layer.inode_mut(InodeId::ROOT).kind {
        Kind::Directory(root) if root.opaque => root.opaque = false,
        _ => return Ok(()),
    }
    let names = base.directory(InodeId::ROOT).into_iter().flat_map(|root| root.entries());
    for (name, _) in names {
        match layer.directory(InodeId::ROOT).and_then(|root| root.entry(name)) {
            None => {
                let inode = Inode { meta: Meta::default(), kind: Kind::Whiteout };
                layer.add(InodeId::ROOT, name.clone(), inode)?;
            }
            Some(own) => {
                if let Kind::Directory(directory) = &mut layer.inode_mut(own).kind {
                    directory.opaque = true;
                }
            }
        }
    }
    Ok(())
}

/// Directories below the root that no entry describes, and that do not hide what lies below them.
fn implicit(layer: &Tree) -> Vec<(crate::tree::Path, InodeId)> {
    let mut found = Vec::new();
    for visit in layer.walk() {
        let directory = layer.directory(visit.id);
        if visit.id != InodeId::ROOT
            && directory.is_some_and(|directory| directory.implicit && !directory.opaque)
        {
            found.push((visit.path, visit.id));
        }
    }
    found
}

/// Says in overlayfs' words what the tree says in ours. Below an opaque directory there is nothing to take away.
pub fn express(layer: &mut Tree) {
    let mut needless = Vec::new();
    let mut opaque = Vec::new();
    for visit in layer.walk() {
        let is_opaque = |id| layer.directory(id).is_some_and(|directory| directory.opaque);
        if is_opaque(visit.id) {
            opaque.push(visit.id);
        }
        let is_whiteout = matches!(layer.inode(visit.id).kind, Kind::Whiteout);
        if let Some((_, name)) =
            visit.path.split().filter(|_| is_whiteout && is_opaque(visit.parent))
        {
            needless.push((visit.parent, name.clone()));
        }
    }
    for id in opaque {
        layer.inode_mut(id).meta.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
    }
    for (parent, name) in needless {
        layer.unlink(parent, &name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::Path;

    fn at(tree: &Tree, path: &str) -> Option<InodeId> {
        tree.find(&Path::parse(path.as_bytes()).unwrap())
    }

    fn base() -> Tree {
        let mut base = Tree::default();
        base.put("tmp", Meta::root_owned(0o1777), Kind::directory()).unwrap();
        base.put("etc", Meta::root_owned(0o755), Kind::directory()).unwrap();
        base.put("lib", Meta::root_owned(0o777), Kind::Symlink(b"usr/lib".to_vec())).unwrap();
        base
    }

    fn with_implicit(path: &str) -> Tree {
        let mut layer = Tree::default();
        layer.make_directories(&Path::parse(path.as_bytes()).unwrap()).unwrap();
        layer
    }

    #[test]
    fn a_directory_that_is_only_named_is_as_it_was_below() {
        let mut layer = with_implicit("tmp/a");
        assert!(leans(&layer));
        settle(&mut layer, &base()).unwrap();
        assert_eq!(layer.inode(at(&layer, "tmp").unwrap()).meta.mode, 0o1777);
        assert_eq!(layer.inode(at(&layer, "tmp/a").unwrap()).meta.mode, 0o755);
        let err = settle(&mut with_implicit("lib/a"), &base()).unwrap_err().to_string();
        assert!(err.contains("\"/lib\"") && err.contains("link"), "{err}");
    }

    #[test]
    fn an_opaque_root_takes_every_name_away() {
        let mut layer = Tree::default();
        layer.put("etc", Meta::root_owned(0o755), Kind::directory()).unwrap();
        assert!(!leans(&layer));
        if let Kind::Directory(root) = &mut layer.inode_mut(InodeId::ROOT).kind {
            root.opaque = true;
        }
        assert!(leans(&layer));
        settle(&mut layer, &base()).unwrap();
        express(&mut layer);
        let kind = |path| &layer.inode(at(&layer, path).unwrap()).kind;
        assert!(matches!(kind("tmp"), Kind::Whiteout) && matches!(kind("lib"), Kind::Whiteout));
        let etc = layer.inode(at(&layer, "etc").unwrap());
        assert_eq!(etc.meta.xattrs.get(OPAQUE).map(Vec::as_slice), Some(&b"y"[..]));
        assert!(layer.inode(InodeId::ROOT).meta.xattrs.is_empty());
    }

    #[test]
    fn a_whiteout_below_an_opaque_directory_is_needless() {
        let mut layer = Tree::default();
        let dir = layer.put("d", Meta::root_owned(0o755), Kind::directory()).unwrap();
        layer.put("d/gone", Meta::default(), Kind::Whiteout).unwrap();
        layer.put("d/kept", Meta::default(), Kind::File(Content::default())).unwrap();
        layer.put("gone", Meta::default(), Kind::Whiteout).unwrap();
        if let Kind::Directory(directory) = &mut layer.inode_mut(dir).kind {
            directory.opaque = true;
        }
        express(&mut layer);
        assert_eq!(at(&layer, "d/gone"), None);
        assert!(at(&layer, "d/kept").is_some() && at(&layer, "gone").is_some());
    }
}
