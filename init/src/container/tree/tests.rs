use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A directory of this test's own, with `root/` to be the tree and `outside/` that nothing may touch.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("hyperstart-tree-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("root")).unwrap();
        fs::create_dir_all(path.join("outside")).unwrap();
        Self(path)
    }

    fn tree(&self) -> Tree {
        let root =
            openat(CWD, self.0.join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                .unwrap();
        Tree::new(root)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn makes_what_is_missing_on_the_way() {
    let scratch = Scratch::new("missing");
    let tree = scratch.tree();
    assert!(is_directory(tree.create("/a/b/c", Leaf::Directory).unwrap().as_fd()).unwrap());
    assert!(!is_directory(tree.create("a/d/file", Leaf::File).unwrap().as_fd()).unwrap());
    assert!(scratch.0.join("root/a/b/c").is_dir());
    assert!(scratch.0.join("root/a/d/file").is_file());
    assert!(is_directory(tree.create("/", Leaf::Directory).unwrap().as_fd()).unwrap());
}

#[test]
fn links_and_dots_stay_inside() {
    let scratch = Scratch::new("inside");
    let outside = scratch.0.join("outside");
    symlink(&outside, scratch.0.join("root/absolute")).unwrap();
    symlink("../outside", scratch.0.join("root/relative")).unwrap();
    let tree = scratch.tree();
    for path in ["/absolute/x", "/relative/y", "/../outside/z", "/a/../../outside/w"] {
        tree.create(path, Leaf::Directory).unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    assert!(scratch.0.join("root/outside/y").is_dir(), "`..` at the top is the top");
}

#[test]
fn a_link_to_nothing_has_its_target_made() {
    let scratch = Scratch::new("dangling");
    fs::create_dir(scratch.0.join("root/etc")).unwrap();
    symlink("../run/resolve/stub", scratch.0.join("root/etc/resolv.conf")).unwrap();
    scratch.tree().create("/etc/resolv.conf", Leaf::File).unwrap();
    assert!(scratch.0.join("root/run/resolve/stub").is_file());
}

#[test]
fn links_in_a_circle_are_an_error() {
    let scratch = Scratch::new("circle");
    symlink("b", scratch.0.join("root/a")).unwrap();
    symlink("a", scratch.0.join("root/b")).unwrap();
    let tree = scratch.tree();
    assert_eq!(tree.create("/a", Leaf::Directory).unwrap_err(), Errno::LOOP);
    assert_eq!(tree.open("/a", OFlags::PATH, Links::Refuse).unwrap_err(), Errno::LOOP);
}

#[test]
fn a_file_is_no_directory_on_the_way() {
    let scratch = Scratch::new("file");
    fs::write(scratch.0.join("root/file"), "").unwrap();
    assert_eq!(scratch.tree().create("/file/below", Leaf::Directory).unwrap_err(), Errno::NOTDIR);
}
