//! `hyperctl image`: images come into a store of the test's own, are listed, described and removed. Needs no VM.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says where"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("guest")).unwrap();
        Place(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperctl"));
        for (variable, directory) in [
            ("HYPERSTART_STORE_DIR", "store"),
            ("HYPERSTART_STATE_DIR", "state"),
            ("HYPERSTART_GUEST_DIR", "guest"),
        ] {
            command.env(variable, self.path(directory));
        }
        command.args(words).output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let run = self.run(words);
        assert!(run.status.success(), "{words:?}: {run:?}");
        String::from_utf8(run.stdout).unwrap()
    }

    /// What it says when it refuses.
    fn refused(&self, words: &[&str]) -> String {
        let run = self.run(words);
        assert_eq!(run.status.code(), Some(125), "{words:?}: {run:?}");
        String::from_utf8(run.stderr).unwrap()
    }

    /// A root directory with one file, to import.
    fn root(&self, name: &str) -> String {
        let root = self.path(name);
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/motd"), name).unwrap();
        root.to_str().unwrap().into()
    }
}

#[test]
fn an_image_comes_is_seen_and_goes() {
    let place = Place::new();
    assert_eq!(place.ok(&["image", "ls", "-q"]), "");
    let digest = place.ok(&["image", "import", &place.root("one"), "-n", "one", "-n", "me/one:2"]);
    let digest = digest.trim();
    assert_eq!(place.ok(&["images", "-q"]), "me/one:2\none:latest\n");
    let listed = place.ok(&["image", "ls"]);
    assert!(listed.starts_with("NAME") && listed.contains(&digest[7..19]), "{listed}");
    let described: Value = serde_json::from_str(&place.ok(&["image", "inspect", "one"])).unwrap();
    assert_eq!(described[0]["digest"], digest);
    let layer = PathBuf::from(described[0]["layers"][0]["path"].as_str().unwrap());
    assert!(layer.starts_with(place.path("store/layers/sha256")) && layer.is_file(), "{layer:?}");
    assert_eq!(place.ok(&["image", "rm", "one"]), "Untagged: one:latest\n");
    let gone = place.ok(&["image", "rm", "me/one:2"]);
    assert_eq!(gone, format!("Untagged: me/one:2\nDeleted: {digest}\n"));
    assert!(!layer.exists());
    assert!(place.refused(&["image", "rm", "one"]).contains("there is none of this name"));
    assert!(place.refused(&["image", "inspect", "one"]).contains("hyperctl images"));
}

#[test]
fn prune_takes_what_has_no_name_and_with_all_the_rest() {
    let place = Place::new();
    let nameless = place.ok(&["image", "import", &place.root("one")]);
    place.ok(&["image", "import", &place.root("two"), "-n", "two"]);
    let pruned = place.ok(&["image", "prune"]);
    assert!(pruned.contains(&format!("Deleted: {nameless}")) && pruned.contains("Freed: "));
    assert_eq!(place.ok(&["images", "-q"]), "two:latest\n");
    assert!(place.ok(&["image", "prune", "--all"]).contains("Untagged: two:latest"));
    assert_eq!(place.ok(&["images", "-q"]), "");
}

#[test]
fn what_is_hostile_is_refused_by_name_and_nothing_comes() {
    let place = Place::new();
    let root = place.root("root");
    let tar = place.path("evil.tar");
    let packed = Command::new("tar")
        .args(["-cPf", tar.to_str().unwrap(), "-C", &root, "--transform", "s,^etc/motd,../evil,"])
        .arg("etc/motd")
        .status();
    assert!(packed.unwrap().success());
    let words = ["image", "import", tar.to_str().unwrap(), "--format", "rootfs", "-n", "evil"];
    let said = place.refused(&words);
    assert!(said.contains("\"../evil\": it climbs"), "{said}");
    assert!(place.refused(&["image", "import", &root, "-n", "../x"]).contains("image name"));
    let missing = place.refused(&["image", "import", "/nowhere/x.tar"]);
    assert!(missing.contains("import \"/nowhere/x.tar\""), "{missing}");
    assert_eq!(place.ok(&["images", "-q"]), "");
}
