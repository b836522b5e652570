//! A file tree in memory: what every source (a recipe, a directory, layers) makes and every writer (cpio, EROFS) takes.
//!
//! Inodes live in one table and directories map names to places in it, so a hard link is two names for one place and
//! nothing else. Names are kept sorted by their bytes, which is the order that EROFS needs and that makes images
//! reproducible. File contents are not here: a [`Content`] says where they can be read. A tree never touches the
//! host's file system, so a name in it cannot lead out of it; what a name may be is checked by [`Name`] and [`Path`].

use crate::content::Content;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;

/// The longest name that Linux and EROFS take, in bytes.
const NAME_MAX: usize = 255;
/// The longest path that Linux takes, in bytes, less its closing zero. It bounds the depth of a tree, too.
pub const PATH_MAX: usize = 4095;

/// One name in a directory: 1 to 255 bytes, without `/` and zero, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    pub fn new(bytes: &[u8]) -> Result<Name> {
        let reason = match bytes {
            b"" => "it is empty",
            b"." | b".." => "it names a directory's own links",
            _ if bytes.len() > NAME_MAX => "it is longer than 255 bytes",
            _ if bytes.contains(&b'/') || bytes.contains(&0) => "it holds a slash or a zero byte",
            _ => return Ok(Name(bytes.to_vec())),
        };
        Err(Error::refused(format!("name {:?}: {reason}", shown(bytes))))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", shown(&self.0))
    }
}

/// Bytes from outside as text for a message: lossy, and cut where nobody would read on.
pub fn shown(bytes: &[u8]) -> String {
    const ENOUGH: usize = 256;
    match bytes.get(..ENOUGH) {
        Some(start) if bytes.len() > ENOUGH => format!("{}...", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A path below the root of a tree. It cannot leave the tree: there is no way to say `..` in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(Vec<Name>);

impl Path {
    /// Reads a relative path as archives write it (`./a/b/`); empty and `.` are the root. Refused are absolute paths,
    /// `..`, zero bytes, names over 255 and paths over 4095 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Path> {
        if bytes.len() > PATH_MAX {
            return Err(Error::refused(format!("path {:?}: longer than 4095 bytes", shown(bytes))));
        }
        if bytes.first() == Some(&b'/') {
            return Err(Error::refused(format!("path {:?}: it is absolute", shown(bytes))));
        }
        let mut names = Vec::new();
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    let text = shown(bytes);
                    return Err(Error::refused(format!("path {text:?}: it climbs with \"..\"")));
                }
                _ => names.push(Name::new(part)?),
            }
        }
        Ok(Path(names))
    }

    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The directory that holds it, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(Path, &Name)> {
        let (last, parent) = self.0.split_last()?;
        Some((Path(parent.to_vec()), last))
    }

    pub fn join(&self, name: Name) -> Path {
        let mut names = self.0.clone();
        names.push(name);
        Path(names)
    }

    /// As archives and the initramfs write it: relative, without `./`; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", format!("/{}", shown(&self.to_bytes())))
    }
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    pub seconds: u64,
    pub nanoseconds: u32,
}

impl Time {
    pub const fn seconds(seconds: u64) -> Time {
        Time { seconds, nanoseconds: 0 }
    }
}

/// What every inode has, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with set-uid, set-gid and sticky: `mode & 0o7777`. The kind gives the type bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Owned by root, dated at the epoch.
    pub fn root_owned(mode: u16) -> Meta {
        Meta { mode, ..Meta::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClass {
    Char,
    Block,
}

#[derive(Clone, Debug, Default)]
pub struct Directory {
    entries: BTreeMap<Name, InodeId>,
    /// Made only because something lies in it; its metadata says nothing and yields to a lower layer's.
    pub implicit: bool,
    /// Hides what lower layers have at this place.
    pub opaque: bool,
}

impl Directory {
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Name, InodeId)> {
        self.entries.iter().map(|(name, id)| (name, *id))
    }

    pub fn entry(&self, name: &Name) -> Option<InodeId> {
        self.entries.get(name).copied()
    }
}

#[derive(Clone, Debug)]
pub enum Kind {
    Directory(Directory),
    File(Content),
    Symlink(Vec<u8>),
    Device {
        class: DeviceClass,
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
    /// Says that a lower layer's entry of this name is gone. Only in a layer's tree.
    Whiteout,
}

impl Kind {
    pub fn directory() -> Kind {
        Kind::Directory(Directory::default())
    }

    /// `S_IFMT` bits of `st_mode`.
    pub fn type_bits(&self) -> u16 {
        match self {
            Kind::Directory(_) => 0o040_000,
            Kind::File(_) => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Device { class: DeviceClass::Char, .. } | Kind::Whiteout => 0o020_000,
            Kind::Device { class: DeviceClass::Block, .. } => 0o060_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Inode {
    pub meta: Meta,
    pub kind: Kind,
}

/// A place in one tree's table. It means nothing in another tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(usize);

impl InodeId {
    pub const ROOT: InodeId = InodeId(0);

    /// Its number in the table, for side tables of [`Tree::table_len`] places.
    pub fn index(self) -> usize {
        self.0
    }
}

/// The root directory and all below it.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new(Meta::root_owned(0o755))
    }
}

impl Tree {
    /// An empty tree whose root directory has this metadata.
    pub fn new(root: Meta) -> Tree {
        Tree { inodes: vec![Inode { meta: root, kind: Kind::directory() }] }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "only this tree makes ids, and its table never shrinks"
    )]
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "only this tree makes ids, and its table never shrinks"
    )]
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0]
    }

    /// Places in the table, those of removed inodes included.
    pub fn table_len(&self) -> usize {
        self.inodes.len()
    }

    pub fn directory(&self, id: InodeId) -> Option<&Directory> {
        match &self.inode(id).kind {
            Kind::Directory(directory) => Some(directory),
            Kind::File(_)
            | Kind::Symlink(_)
            | Kind::Device { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::Whiteout => None,
        }
    }

    fn directory_mut(&mut self, id: InodeId) -> Option<&mut Directory> {
        match &mut self.inode_mut(id).kind {
            Kind::Directory(directory) => Some(directory),
            Kind::File(_)
            | Kind::Symlink(_)
            | Kind::Device { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::Whiteout => None,
        }
    }

    /// The inode at this path. Symbolic links are not followed, not even in the middle.
    pub fn find(&self, path: &Path) -> Option<InodeId> {
        path.names().iter().try_fold(InodeId::ROOT, |id, name| self.directory(id)?.entry(name))
    }

    /// Puts a new inode into a directory. A name that is taken is refused.
    pub fn add(&mut self, parent: InodeId, name: Name, inode: Inode) -> Result<InodeId> {
        let id = InodeId(self.inodes.len());
        self.inodes.push(inode);
        match self.link(parent, name, id) {
            Ok(()) => Ok(id),
            Err(err) => {
                self.inodes.pop();
                Err(err)
            }
        }
    }

    /// Gives an inode one more name. A name that is taken is refused, and so is a second name for a directory.
    pub fn link(&mut self, parent: InodeId, name: Name, id: InodeId) -> Result<()> {
        let Some(directory) = self.directory_mut(parent) else {
            return Err(Error::refused(format!("entry {name:?}: its parent is not a directory")));
        };
        match directory.entries.entry(name) {
            std::collections::btree_map::Entry::Occupied(taken) => {
                Err(Error::refused(format!("entry {:?}: a second one of this name", taken.key())))
            }
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(id);
                Ok(())
            }
        }
    }

    /// Takes a name out of a directory, with all below it. Says whether it was there.
    pub fn unlink(&mut self, parent: InodeId, name: &Name) -> bool {
        self.directory_mut(parent).is_some_and(|dir| dir.entries.remove(name).is_some())
    }

    /// Adds an inode at a path whose parent directories exist; for recipes.
    pub fn put(&mut self, path: &str, meta: Meta, kind: Kind) -> Result<InodeId> {
        let path = Path::parse(path.as_bytes())?;
        let Some((parent, name)) = path.split() else {
            return Err(Error::refused("the root is there already"));
        };
        let Some(parent) = self.find(&parent) else {
            return Err(Error::refused(format!("put {path:?}: no such directory {parent:?}")));
        };
        self.add(parent, name.clone(), Inode { meta, kind })
    }

    /// The directory at this path; it and those above it are made, owned by root and 0755, where they are missing.
    pub fn make_directories(&mut self, path: &Path) -> Result<InodeId> {
        let mut id = InodeId::ROOT;
        for name in path.names() {
            let next = self.directory(id).and_then(|directory| directory.entry(name));
            id = match next {
                Some(next) => next,
                None => {
                    let made = Directory { implicit: true, ..Directory::default() };
                    let kind = Kind::Directory(made);
                    self.add(id, name.clone(), Inode { meta: Meta::root_owned(0o755), kind })?
                }
            };
        }
        match self.directory(id) {
            Some(_) => Ok(id),
            None => Err(Error::refused(format!("path {path:?}: not a directory"))),
        }
    }

    /// Every name in the tree, parents before their children, siblings sorted; the root first.
    pub fn walk(&self) -> Walk<'_> {
        Walk {
            tree: self,
            stack: vec![Visit { path: Path::default(), id: InodeId::ROOT, parent: InodeId::ROOT }],
        }
    }

    /// How many names each inode has, by its index; a directory counts as `stat` would (2 and one a subdirectory).
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.inodes.len()];
        let mut bump = |id: InodeId, by: u32| {
            if let Some(count) = counts.get_mut(id.0) {
                *count = count.saturating_add(by);
            }
        };
        for visit in self.walk() {
            if self.directory(visit.id).is_some() {
                bump(visit.id, 2);
                if visit.id != InodeId::ROOT {
                    bump(visit.parent, 1);
                }
            } else {
                bump(visit.id, 1);
            }
        }
        counts
    }

    /// Applies a change to the metadata of every inode.
    pub fn for_each_meta(&mut self, change: impl Fn(&mut Meta)) {
        self.inodes.iter_mut().for_each(|inode| change(&mut inode.meta));
    }
}

/// One name met on a walk.
#[derive(Clone, Debug)]
pub struct Visit {
    pub path: Path,
    pub id: InodeId,
    /// The directory that holds the name; the root is its own.
    pub parent: InodeId,
}

/// See [`Tree::walk`].
pub struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<Visit>,
}

impl Iterator for Walk<'_> {
    type Item = Visit;

    fn next(&mut self) -> Option<Visit> {
        let visit = self.stack.pop()?;
        if let Some(directory) = self.tree.directory(visit.id) {
            let children = directory.entries.iter().rev();
            self.stack.extend(children.map(|(name, id)| Visit {
                path: visit.path.join(name.clone()),
                id: *id,
                parent: visit.id,
            }));
        }
        Some(visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Kind {
        Kind::File(Content::default())
    }

    #[test]
    fn paths_that_leave_the_tree_cannot_be_said() {
        for bad in [&b"/etc"[..], b"..", b"a/../../b", b"a\0b", b"a/..", &[b'a'; 256], &[b'/'; 1]] {
            assert!(Path::parse(bad).is_err(), "{}", shown(bad));
        }
        assert!(Path::parse("a/".repeat(2048).as_bytes()).is_err());
        assert_eq!(Path::parse(b"./a//b/.").unwrap().to_bytes(), b"a/b");
        assert_eq!(Path::parse(b"./").unwrap(), Path::default());
    }

    #[test]
    fn a_walk_is_sorted_and_parents_come_first() {
        let mut tree = Tree::default();
        for (path, kind) in
            [("b", Kind::directory()), ("a", file()), ("b/z", file()), ("b/y", file())]
        {
            tree.put(path, Meta::root_owned(0o755), kind).unwrap();
        }
        let seen: Vec<_> = tree.walk().map(|visit| shown(&visit.path.to_bytes())).collect();
        assert_eq!(seen, ["", "a", "b", "b/y", "b/z"]);
    }

    #[test]
    fn a_taken_name_is_refused_and_leaves_no_trace() {
        let mut tree = Tree::default();
        tree.put("a", Meta::root_owned(0o755), file()).unwrap();
        let err = tree.put("a", Meta::root_owned(0o755), file()).unwrap_err();
        assert_eq!(err.to_string(), "entry \"a\": a second one of this name");
        assert_eq!(tree.table_len(), 2);
    }

    #[test]
    fn links_are_counted_as_stat_does() {
        let mut tree = Tree::default();
        let id = tree.put("a", Meta::root_owned(0o644), file()).unwrap();
        tree.link(InodeId::ROOT, Name::new(b"b").unwrap(), id).unwrap();
        tree.put("d", Meta::root_owned(0o755), Kind::directory()).unwrap();
        assert_eq!(tree.link_counts(), [3, 2, 2]);
    }
}
