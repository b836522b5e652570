//! Same input, same bytes: images are built twice, in other places, by other paths, with another umask, time zone and
//! locale, from files that were made in another order and have other times, and are compared.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Names that sort in other ways in other locales.
const NAMES: [&str; 6] = ["Zebra", "apple", "Äpfel", "i", "I", "_"];

/// What is built, by the words that build it, in the directory that holds the input.
const IMAGES: [(&str, &[&str]); 6] = [
    ("initrd.img", &["initrd", "--init", "init", "--overlay", "more"]),
    ("initrd.lz4", &["initrd", "--init", "init", "--compress", "lz4", "--files", "list"]),
    ("rootfs.erofs", &["rootfs", "--init", "init", "--overlay", "more"]),
    ("verity.erofs", &["rootfs", "--init", "init", "--verity", "--add", "more:/opt/more"]),
    ("busybox.erofs", &["busybox", "--binary", "init", "--applets", "applets"]),
    ("image.erofs", &["container", "--from", "more", "--root-owned"]),
];

struct Place {
    umask: &'static str,
    variables: [(&'static str, &'static str); 3],
    names: Vec<&'static str>,
    age: Duration,
}

/// The least that passes for a static program.
fn program() -> Vec<u8> {
    let mut bytes = vec![0x5a; 10_000];
    bytes[..5].copy_from_slice(b"\x7fELF\x02");
    bytes[54..58].fill(0); // no program headers
    bytes
}

fn fill(directory: &Path, place: &Place) {
    let more = directory.join("more");
    fs::create_dir_all(more.join("deep")).unwrap();
    for name in &place.names {
        fs::write(more.join(name), name.repeat(3000)).unwrap();
        symlink(name, more.join("deep").join(name)).unwrap();
    }
    fs::write(directory.join("init"), program()).unwrap();
    fs::write(directory.join("applets"), "sh\nusr/bin/env\ncat\n").unwrap();
    fs::write(directory.join("list"), "more/apple:/etc/apple\nmore/deep:/opt/deep\n").unwrap();
    let time = SystemTime::now() - place.age;
    for path in place.names.iter().map(|name| more.join(name)).chain([directory.join("init")]) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    for path in [more.clone(), more.join("deep")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// All that is built there: bytes and mode of each file.
fn build(directory: &Path, place: &Place) -> BTreeMap<String, (Vec<u8>, u32)> {
    fs::create_dir_all(directory).unwrap();
    fill(directory, place);
    let out = directory.join("out");
    for (output, words) in IMAGES {
        let built = Command::new("sh")
            .args([
                "-c",
                "umask $0 && exec \"$@\"",
                place.umask,
                env!("CARGO_BIN_EXE_image-builder"),
            ])
            .args(words)
            .arg("--output")
            .arg(out.join(output))
            .envs(place.variables)
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::metadata(&path).unwrap().mode();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(name, (fs::read(&path).unwrap(), mode));
    }
    files
}

#[test]
fn nothing_but_the_input_makes_a_difference() {
    let (near, far) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let here = Place {
        umask: "022",
        variables: [("TZ", "UTC"), ("LC_ALL", "C"), ("LANG", "C")],
        names: NAMES.to_vec(),
        age: Duration::ZERO,
    };
    let there = Place {
        umask: "077",
        variables: [("TZ", "Asia/Kathmandu"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "de_DE.UTF-8")],
        names: NAMES.iter().rev().copied().collect(),
        age: Duration::from_secs(400 * 86_400),
    };
    let first = build(near.path(), &here);
    let second = build(&far.path().join("a/much/deeper/place"), &there);
    assert!(first.len() == 2 * IMAGES.len(), "images and what describes them: {:?}", first.keys());
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, content) in &first {
        assert!(*content == second[name], "{name} differs");
    }
    assert!(first.values().all(|(_, mode)| mode & 0o777 == 0o644), "whatever the umask");
}

#[test]
fn another_byte_makes_another_image() {
    let place = Place {
        umask: "022",
        variables: [("TZ", "UTC"), ("LC_ALL", "C"), ("LANG", "C")],
        names: NAMES.to_vec(),
        age: Duration::ZERO,
    };
    let dir = tempfile::tempdir().unwrap();
    let first = build(dir.path(), &place);
    fs::remove_dir_all(dir.path().join("more")).unwrap();
    let other = Place { names: NAMES[1..].to_vec(), ..place };
    let second = build(dir.path(), &other);
    assert!(first["rootfs.erofs"] != second["rootfs.erofs"]);
    assert!(first["busybox.erofs"] == second["busybox.erofs"], "which has no part in it");
}
