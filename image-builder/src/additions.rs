//! What a user adds to a guest's own tree beside init: single files (`--add SRC:DST`), a list of them (`--files`), and
//! directories that are laid over it whole (`--overlay`).
//!
//! All of it becomes root's and has the time of all other files, so that who adds it, where and when makes no
//! difference; modes stay. A name that is taken is refused: what is in an image is said once. Only an overlay's
//! directories may be there already, and what init needs stays as it is under an overlay.

use crate::config::read_bounded;
use crate::content::Content;
use crate::dir;
use crate::error::{Context, Error, Result};
use crate::limits::{Budget, Limits};
use crate::merge::merge;
use crate::progress::Progress;
use crate::tree::{Inode, Kind, Meta, Path as TreePath, Tree};
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

/// The largest list of files that is read, in bytes.
const LIST_MAX: u64 = 1 << 20;

/// One file or directory of this machine, and its place in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    pub source: PathBuf,
    /// Absolute.
    pub destination: String,
}

impl FromStr for Addition {
    type Err = String;

    /// `SRC:DST`, or `SRC` alone if that is absolute: it has the same place in the image.
    fn from_str(text: &str) -> std::result::Result<Addition, String> {
        let (source, destination) = text.rsplit_once(':').unwrap_or((text, text));
        if source.is_empty() || !destination.starts_with('/') {
            return Err(format!(
                "{text:?}: neither SRC:DST with an absolute DST nor an absolute SRC"
            ));
        }
        Ok(Addition { source: source.into(), destination: destination.into() })
    }
}

/// A file with an addition a line; empty lines and those that begin with `#` say nothing. A relative SRC counts from the
/// list's own directory.
pub fn read_list(list: &Path) -> Result<Vec<Addition>> {
    let bytes = read_bounded(list, LIST_MAX)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::refused(format!("read {list:?}: not UTF-8")))?;
    let directory = list.parent().unwrap_or(Path::new(""));
    let mut additions = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.parse::<Addition>();
        let mut addition =
            parsed.map_err(|why| Error::refused(format!("{list:?} line {}: {why}", index + 1)))?;
        addition.source = directory.join(addition.source);
        additions.push(addition);
    }
    Ok(additions)
}

/// Puts a file or a directory into the tree. A symbolic link that the user names is followed; those below it are kept.
pub fn add(tree: &mut Tree, addition: &Addition, progress: &dyn Progress) -> Result<()> {
    let Addition { source, destination } = addition;
    put(tree, source, destination, progress)
        .context(|| format!("add {source:?} as {destination:?}"))
}

fn put(tree: &mut Tree, source: &Path, destination: &str, progress: &dyn Progress) -> Result<()> {
    let path = TreePath::parse(destination.trim_start_matches('/').as_bytes())?;
    let metadata = std::fs::metadata(source).context(|| "stat".into())?;
    if metadata.is_dir() {
        return put_directory(tree, source, &path, progress);
    }
    if !metadata.is_file() {
        return Err(Error::refused("neither a file nor a directory"));
    }
    let mode = u16::try_from(metadata.permissions().mode() & 0o7777).unwrap_or_default();
    let file = Rc::new(File::open(source).context(|| "open".into())?);
    let content = Content::stretch(&file, 0, metadata.size());
    put_new(tree, &path, Meta::root_owned(mode), Kind::File(content))
}

/// A name that is taken is refused, but directories lie on one another.
fn put_new(tree: &mut Tree, path: &TreePath, meta: Meta, kind: Kind) -> Result<()> {
    let Some((parent, name)) = path.split() else {
        return Err(Error::refused("the image's root is a directory"));
    };
    let parent = tree.make_directories(&parent)?;
    tree.add(parent, name.clone(), Inode { meta, kind }).map(drop)
}

fn put_directory(
    tree: &mut Tree,
    source: &Path,
    below: &TreePath,
    progress: &dyn Progress,
) -> Result<()> {
    let more = read_directory(source, progress)?;
    tree.make_directories(below)?;
    for visit in more.walk() {
        let path =
            visit.path.names().iter().fold(below.clone(), |path, name| path.join(name.clone()));
        let Inode { meta, kind } = more.inode(visit.id).clone();
        let is_directory = more.directory(visit.id).is_some();
        let there = tree.find(&path);
        if is_directory && there.is_some_and(|there| tree.directory(there).is_some()) {
            continue;
        }
        put_new(tree, &path, meta, if is_directory { Kind::directory() } else { kind })?;
    }
    Ok(())
}

/// Lays the files below a directory of this machine over the tree; what the guest has of its own stays.
pub fn overlay(tree: &mut Tree, directory: &Path, progress: &dyn Progress) -> Result<()> {
    below(tree, read_directory(directory, progress)?)
}

/// Puts a tree under what there is.
pub fn below(tree: &mut Tree, more: Tree) -> Result<()> {
    let ours = std::mem::replace(tree, more);
    merge(tree, &ours)
}

fn read_directory(directory: &Path, progress: &dyn Progress) -> Result<Tree> {
    let mut more = dir::read(directory, &mut Budget::new(Limits::default()), progress)?;
    more.for_each_meta(|meta| *meta = Meta::root_owned(meta.mode));
    Ok(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn addition(source: &Path, destination: &str) -> Addition {
        Addition { source: source.into(), destination: destination.into() }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.walk().map(|visit| String::from_utf8(visit.path.to_bytes()).unwrap()).collect()
    }

    #[test]
    fn an_addition_is_a_source_and_an_absolute_place() {
        let parsed: Addition = "a:b:/c".parse().unwrap();
        assert_eq!(parsed, addition(Path::new("a:b"), "/c"));
        let parsed: Addition = "/bin/busybox".parse().unwrap();
        assert_eq!(parsed, addition(Path::new("/bin/busybox"), "/bin/busybox"));
        for bad in ["", ":", "a", "a:b", ":/b", "./a"] {
            assert!(bad.parse::<Addition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_and_directories_become_roots_at_their_places() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("more/deep")).unwrap();
        fs::write(dir.path().join("more/deep/file"), "x").unwrap();
        symlink("deep/file", dir.path().join("more/link")).unwrap();
        let mut tree = Tree::default();
        let more = dir.path().join("more");
        add(&mut tree, &addition(&more, "/opt/x"), &Silent).unwrap();
        add(&mut tree, &addition(&more.join("link"), "/opt/x/deep/copy"), &Silent).unwrap();
        let have = paths(&tree);
        for path in ["opt/x/deep/file", "opt/x/link", "opt/x/deep/copy"] {
            assert!(have.iter().any(|name| name == path), "{path}: {have:?}");
        }
        let copy = tree.find(&TreePath::parse(b"opt/x/deep/copy").unwrap()).unwrap();
        assert!(matches!(tree.inode(copy).kind, Kind::File(_)), "a named link is followed");
        assert_eq!((tree.inode(copy).meta.uid, tree.inode(copy).meta.mtime.seconds), (0, 0));
    }

    #[test]
    fn a_name_that_is_taken_and_what_is_no_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let mut tree = Tree::default();
        add(&mut tree, &addition(&file, "/init"), &Silent).unwrap();
        let err = add(&mut tree, &addition(&file, "/init"), &Silent).unwrap_err().to_string();
        assert!(err.contains("/init") && err.contains("second one"), "{err}");
        for (source, destination) in [
            (Path::new("/dev/null"), "/x"),
            (Path::new("/nowhere"), "/x"),
            (&file, "/../x"),
            (&file, "/"),
        ] {
            add(&mut tree, &addition(source, destination), &Silent).unwrap_err();
        }
    }

    #[test]
    fn a_list_says_where_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        fs::write(&list, "# tools\n\n/bin/busybox\nmore/x:/y\n").unwrap();
        let additions = read_list(&list).unwrap();
        assert_eq!(additions[0].destination, "/bin/busybox");
        assert_eq!(additions[1].source, dir.path().join("more/x"));
        fs::write(&list, "/a\nb\n").unwrap();
        let err = read_list(&list).unwrap_err().to_string();
        assert!(err.contains("line 2"), "{err}");
    }
}
