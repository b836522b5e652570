//! The files that a guest and its payload are made of, where the build leaves them.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

use image_builder::content::Content;
use image_builder::erofs;
use image_builder::tree::{Kind, Meta, Tree};

const PROBE_DIRECTORIES: [(&str, u16); 8] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("guest", 0o755),
    ("home", 0o755),
    ("home/alice", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("tmp", 0o1777),
];
/// `alice` is in two more groups than her own; `1000` is a name that looks like the id of somebody else.
const PASSWD: &str =
    "root:x:0:0:root:/:/probe\nalice:x:1000:1001::/home/alice:/probe\n1000:x:0:0::/:/probe\n";
const GROUP: &str =
    "root:x:0:\nalice:x:1001:\nwheel:x:10:alice\naudio:x:29:bob,alice\nstaff:x:50:bob\n";

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the workspace")
}

/// A file of the guest's, such as `vmlinux`; `HYPERSTART_GUEST_DIR` overrides where, as for hyperctl. Fails the test if
/// it has not been built.
pub fn file(name: &str) -> PathBuf {
    let directory = std::env::var_os("HYPERSTART_GUEST_DIR")
        .map_or_else(|| workspace().join("target/guest"), PathBuf::from);
    built(directory.join(name), "make kernel image")
}

/// A host binary as users run it.
pub fn binary(name: &str) -> PathBuf {
    built(workspace().join("target/release").join(name), "make build")
}

/// A static binary for the guest, of the tests' own.
pub fn payload(name: &str) -> PathBuf {
    let path = workspace().join("target/x86_64-unknown-linux-musl/tiny").join(name);
    built(path, &format!("scripts/guest-binary hyperstart-probe {name}"))
}

fn built(path: PathBuf, how: &str) -> PathBuf {
    assert!(path.is_file(), "{path:?} is missing: run `{how}`");
    path
}

/// Where tests keep what they make: beside the build, on the same file system.
pub fn scratch() -> PathBuf {
    let path = workspace().join("target/tests");
    fs::create_dir_all(&path).expect("make target/tests");
    path
}

/// An image that holds the probe, users and groups, and empty directories. Made once a run.
pub fn probe_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let path = scratch().join("probe.erofs");
        write_image(&probe_tree(), &path);
        path
    })
}

fn probe_tree() -> Tree {
    let probe = fs::File::open(payload("probe")).expect("open the probe");
    let length = probe.metadata().expect("stat the probe").len();
    let mut tree = Tree::default();
    let mut put = |path: &str, mode: u16, kind: Kind| {
        tree.put(path, Meta::root_owned(mode), kind).expect("put a file into the probe's image");
    };
    for (path, mode) in PROBE_DIRECTORIES {
        put(path, mode, Kind::directory());
    }
    put("probe", 0o755, Kind::File(Content::stretch(&Rc::new(probe), 0, length)));
    put("etc/passwd", 0o644, Kind::File(Content::bytes(PASSWD.as_bytes())));
    put("etc/group", 0o644, Kind::File(Content::bytes(GROUP.as_bytes())));
    put("not-executable", 0o644, Kind::File(Content::bytes(b"no program\n")));
    tree
}

fn write_image(tree: &Tree, path: &Path) {
    erofs::write(tree, &erofs::Options::default(), path, &image_builder::progress::Silent)
        .expect("write an image");
}
