//! An image with an info block is one and the same from its start and from behind the block, for our own reader and for
//! Debian's erofs-utils.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test"
)]
#![allow(dead_code, reason = "the support of other tests")]

mod support;

use image_builder::content::Content;
use image_builder::erofs::{self, Options};
use image_builder::info_block::{DATA_OFFSET, OFFSET};
use image_builder::progress::Silent;
use image_builder::tree::{Kind, Meta, Tree};
use std::fs;
use std::process::Command;

/// Files of no, one and many blocks, a directory whose entries take blocks of their own, an inline link.
fn tree() -> Tree {
    let mut tree = Tree::default();
    let mut put = |path: &str, kind: Kind| {
        tree.put(path, Meta::root_owned(0o755), kind).unwrap();
    };
    put("many", Kind::directory());
    for index in 0..300 {
        put(&format!("many/{index:0100}"), Kind::Symlink(vec![b'x'; index + 1]));
    }
    for (name, length) in [("empty", 0), ("one", 4096), ("large", 1_000_003)] {
        let bytes: Vec<u8> = (0..length).map(|index: usize| index.to_le_bytes()[0] ^ 7).collect();
        put(name, Kind::File(Content::bytes(&bytes)));
    }
    tree
}

#[test]
fn both_views_are_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, info_block: bool| {
        let options = Options { info_block, ..Options::default() };
        let path = dir.path().join(name);
        erofs::write(&tree(), &options, &path, &Silent).unwrap();
        path
    };
    let plain = support::erofs::read(&fs::read(write("plain", false)).unwrap());
    let path = write("both", true);
    let bytes = fs::read(&path).unwrap();
    let offset = usize::try_from(OFFSET).unwrap();
    assert_eq!(&bytes[offset..offset + 15], b"NVDIMM_PFN_INFO");
    assert_eq!(support::erofs::read(&bytes), plain, "from the start");
    let mut behind = bytes[usize::try_from(DATA_OFFSET).unwrap()..].to_vec();
    behind.resize(bytes.len(), 0); // what the reader wants of a file
    assert_eq!(support::erofs::read(&behind), plain, "from behind the block");
    fs::write(dir.path().join("behind"), behind).unwrap();
    for name in ["both", "behind"] {
        let Ok(said) = Command::new("fsck.erofs").arg(dir.path().join(name)).output() else {
            println!("not checked: fsck.erofs is missing (apt-get install erofs-utils)");
            return;
        };
        assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    }
}
