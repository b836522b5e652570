#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed test panics

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, mknodat, utimensat,
};
use tempfile::TempDir;

use super::*;
use crate::header::encode;

const HOST: Options = Options {
    owner: Owner::Caller,
    links: Links::Refused,
    devices: false,
    set_id: false,
    rename: None,
};

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn packed(directory: &Path, name: &str, as_name: &str) -> Vec<u8> {
    let source = Source::open(File::open(directory).unwrap().into(), name.as_bytes(), false);
    let (mut bytes, mut notes) = (Vec::new(), Vec::new());
    pack(&source.unwrap(), as_name.as_bytes(), &mut bytes, &mut |note| notes.push(note.to_owned()))
        .unwrap();
    assert_eq!(notes, Vec::<String>::new());
    bytes
}

fn unpacked(mut bytes: &[u8], directory: &Path, options: &Options) -> Result<()> {
    unpack(&mut bytes, File::open(directory).unwrap().as_fd(), options)
}

/// What an archive says: a name, its kind, and the data of a file.
fn archive(entries: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let mut bytes = open_archive(entries);
    bytes.extend([0; 2 * BLOCK]);
    bytes
}

fn open_archive(entries: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, data) in entries {
        let entry = Entry {
            path: path.as_bytes().to_owned(),
            kind: kind.clone(),
            mode: 0o6755,
            uid: 4321,
            gid: 4321,
            mtime: 1_000_000_000,
            size: data.len() as u64,
        };
        bytes.extend(encode(&entry).unwrap());
        bytes.extend(*data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes
}

fn link(target: &str) -> Kind {
    Kind::Link(target.as_bytes().to_owned())
}

fn hard_link(target: &str) -> Kind {
    Kind::HardLink(target.as_bytes().to_owned())
}

fn set_time(path: &Path, seconds: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (directory(), directory());
    let top = from.path().join("top");
    let long = "l".repeat(200);
    let deep = top.join("a").join(&long).join(&long);
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(top.join("empty")).unwrap();
    fs::write(deep.join("f"), b"deep").unwrap();
    fs::write(top.join("big"), vec![7; 200_001]).unwrap();
    fs::hard_link(top.join("big"), top.join("a/same")).unwrap();
    fs::write(top.join(OsStr::from_bytes(b"odd \xff\n'\"$name")), b"odd").unwrap();
    symlink("/nowhere/../at all", top.join("link")).unwrap();
    symlink(&deep, top.join("long link")).unwrap();
    let fifo = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, top.join("fifo"), FileType::Fifo, fifo, 0).unwrap();
    for (name, mode) in [("empty", 0o1777), ("big", 0o640), ("a", 0o500)] {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, time) in [("big", -77), ("link", 123_456), ("empty", 1 << 34), ("a", 5)] {
        set_time(&top.join(name), time);
    }
    unpacked(&packed(from.path(), "top", "top"), to.path(), &HOST).unwrap();
    let new = to.path().join("top");
    let same = |name: &OsStr| {
        let [one, two] = [&top, &new].map(|top| fs::symlink_metadata(top.join(name)).unwrap());
        assert_eq!(
            (one.mode(), one.mtime(), one.len()),
            (two.mode(), two.mtime(), two.len()),
            "{name:?}"
        );
    };
    for name in ["a", "empty", "big", "link", "fifo", "long link"] {
        same(OsStr::new(name));
    }
    same(OsStr::from_bytes(b"odd \xff\n'\"$name"));
    assert_eq!(fs::read(new.join("a").join(&long).join(&long).join("f")).unwrap(), b"deep");
    assert_eq!(fs::read(new.join("a/same")).unwrap(), vec![7; 200_001]);
    assert_eq!(fs::metadata(new.join("a/same")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(new.join("long link")).unwrap(), deep);
    assert!(fs::symlink_metadata(new.join("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn one_file_and_one_link_are_archives_too() {
    let (from, to) = (directory(), directory());
    fs::write(from.path().join("f"), b"1").unwrap();
    symlink("f", from.path().join("l")).unwrap();
    unpacked(&packed(from.path(), "f", "g"), to.path(), &HOST).unwrap();
    unpacked(&packed(from.path(), "l", "l"), to.path(), &HOST).unwrap();
    assert_eq!(fs::read(to.path().join("g")).unwrap(), b"1");
    assert_eq!(fs::read_link(to.path().join("l")).unwrap(), Path::new("f"));
    let source = Source::open(File::open(from.path()).unwrap().into(), b"l", true).unwrap();
    let mut bytes = Vec::new();
    pack(&source, b"followed", &mut bytes, &mut |_| {}).unwrap();
    unpacked(&bytes, to.path(), &HOST).unwrap();
    assert_eq!(fs::read(to.path().join("followed")).unwrap(), b"1");
}

#[test]
fn the_top_gets_another_name() {
    let renamed = Options { rename: Some(b"new".to_vec()), ..HOST };
    let dir = Kind::Directory;
    for top in ["old", ".", "./old"] {
        let to = directory();
        let inner = if top == "./old" { "old/f" } else { &format!("{top}/f") };
        let (file, same) = (format!("{top}/f"), format!("{top}/g"));
        let entries = [
            (top, dir.clone(), &b""[..]),
            (&file, Kind::File, b"1"),
            (&same, hard_link(inner), b""),
        ];
        match unpacked(&archive(&entries), to.path(), &renamed) {
            Ok(()) => assert_eq!(fs::metadata(to.path().join("new/g")).unwrap().nlink(), 2),
            Err(err) => assert!(
                top == "./old" && err.to_string().contains("more than one top"),
                "{top}: {err}"
            ),
        }
    }
    let to = directory();
    let two = archive(&[("a", dir.clone(), b""), ("b", dir, b"")]);
    let err = unpacked(&two, to.path(), &renamed).unwrap_err();
    assert!(err.to_string().contains("more than one top"), "{err}");
}

/// The directory beside the one that is unpacked into.
const VICTIM: &str = "victim";

#[test]
fn hostile_archives_stay_below() {
    let file = || (Kind::File, &b"bad"[..]);
    type Attack<'a> = (&'a str, Vec<(&'a str, (Kind, &'a [u8]))>);
    let attacks: [Attack<'_>; 12] = [
        ("up", vec![("../victim/f", file())]),
        ("up in the middle", vec![("a/../../victim/f", file())]),
        ("a link, then a file through it", vec![("l", (link("../victim"), b"")), ("l/f", file())]),
        ("an absolute link", vec![("l", (link("/tmp"), b"")), ("l/f", file())]),
        (
            "a link to a link",
            vec![("a", (link(".."), b"")), ("b", (link("a/victim"), b"")), ("b/f", file())],
        ),
        (
            "a directory on a link",
            vec![("l", (link("../victim"), b"")), ("l", (Kind::Directory, b"")), ("l/f", file())],
        ),
        ("a hard link outside", vec![("h", (hard_link("../victim/mine"), b""))]),
        (
            "a hard link through a link",
            vec![("l", (link("../victim"), b"")), ("h", (hard_link("l/mine"), b""))],
        ),
        ("a hard link to a place that there is not", vec![("h", (hard_link("/etc/passwd"), b""))]),
        ("a device", vec![("d", (Kind::Character(1, 3), b""))]),
        ("a link to nothing", vec![("l", (link(""), b""))]),
        ("the directory itself", vec![(".", file())]),
    ];
    for (what, entries) in &attacks {
        for links in [Links::Refused, Links::Below] {
            let around = directory();
            let (to, victim) = (around.path().join("to"), around.path().join(VICTIM));
            fs::create_dir(&to).unwrap();
            fs::create_dir(&victim).unwrap();
            fs::write(victim.join("mine"), b"mine").unwrap();
            let entries: Vec<_> =
                entries.iter().map(|(path, (kind, data))| (*path, kind.clone(), *data)).collect();
            unpacked(&archive(&entries), &to, &Options { links, ..HOST }).expect_err(what);
            let names: Vec<_> =
                fs::read_dir(&victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["mine"], "{what}");
            let mine = fs::metadata(victim.join("mine")).unwrap();
            assert_eq!((mine.nlink(), mine.len()), (1, 4), "{what}");
        }
    }
}

#[test]
fn what_is_in_the_place_of_a_file_is_not_written_to() {
    let around = directory();
    let to = around.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(around.path().join("mine"), b"mine").unwrap();
    fs::hard_link(around.path().join("mine"), to.join("same")).unwrap();
    symlink("../mine", to.join("link")).unwrap();
    let names = ["same", "link", "twice", "twice"];
    let mut entries: Vec<_> = names.map(|name| (name, Kind::File, &b"new"[..])).into();
    entries.push(("l", link("../mine"), b""));
    entries.push(("l", Kind::File, b"new"));
    unpacked(&archive(&entries), &to, &HOST).unwrap();
    assert_eq!(fs::read(around.path().join("mine")).unwrap(), b"mine");
    for name in ["same", "link", "twice", "l"] {
        assert_eq!(fs::read(to.join(name)).unwrap(), b"new", "{name}");
    }
    assert_eq!(fs::metadata(to.join("same")).unwrap().mode() & 0o7777, 0o755, "no set-id bits");
    // A directory is not replaced by a file, nor a file by a directory.
    fs::create_dir(to.join("d")).unwrap();
    unpacked(&archive(&[("d", Kind::File, b"x")]), &to, &HOST).unwrap_err();
    unpacked(&archive(&[("same", Kind::Directory, b"")]), &to, &HOST).unwrap_err();
    unpacked(&archive(&[("d", Kind::Directory, b""), ("/abs", Kind::File, b"x")]), &to, &HOST)
        .unwrap();
    assert!(to.join("abs").is_file(), "an absolute name is one below");
}

#[test]
fn links_inside_are_followed_where_that_is_said() {
    let to = directory();
    fs::create_dir_all(to.path().join("usr/lib")).unwrap();
    symlink("usr/lib", to.path().join("lib")).unwrap();
    let entries = [("lib", Kind::Directory, &b""[..]), ("lib/f", Kind::File, b"x")];
    unpacked(&archive(&entries), to.path(), &HOST).unwrap_err();
    unpacked(&archive(&entries), to.path(), &Options { links: Links::Below, ..HOST }).unwrap();
    assert_eq!(fs::read(to.path().join("usr/lib/f")).unwrap(), b"x");
    assert!(to.path().join("lib").is_symlink());
}

#[test]
fn a_broken_archive_is_an_error_by_name() {
    let whole = archive(&[("d", Kind::Directory, b""), ("d/f", Kind::File, &[1; 1000])]);
    for length in
        (0..whole.len() - BLOCK).step_by(100).chain([BLOCK, 2 * BLOCK, whole.len() - 2 * BLOCK])
    {
        if length > whole.len() - 2 * BLOCK {
            continue; // one block of the end is one
        }
        let to = directory();
        let err = unpacked(&whole[..length], to.path(), &HOST).unwrap_err();
        assert!(err.to_string().contains("truncated"), "{length}: {err}");
    }
    let mut wrong = whole.clone();
    wrong[3] ^= 1;
    for (bytes, text) in [
        (wrong, "checksum"),
        (vec![b'x'; 2048], "checksum"),
        (extension(b'x', b"11 path=abc\n"), "malformed"),
        (extension(b'x', b"99999999999999999999 path=a\n"), "malformed"),
        (extension(b'x', b"13 size=-100\n"), "no number"),
        (extension(b'x', b"22 GNU.sparse.major=1\n"), "sparse"),
        (extension(b'L', &[b'n'; 5000]), "more than 4096"),
    ] {
        let err = unpacked(&bytes, directory().path(), &HOST).unwrap_err();
        assert!(err.to_string().contains(text), "{text}: {err}");
    }
}

/// An extension, and a file after it.
fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut head = open_archive(&[("././@Header", Kind::File, content)]);
    head[156] = kind;
    let sum: u32 = head[..BLOCK]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head.extend(archive(&[("f", Kind::File, b"1")]));
    head
}

#[test]
fn sizes_from_outside_size_nothing() {
    // A file of almost 2^63 bytes and a header of 2^33: of both no more is taken than comes.
    let mut file = open_archive(&[("huge", Kind::File, b"")]);
    let entry = Entry {
        path: b"huge".to_vec(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
        size: i64::MAX.cast_unsigned(),
    };
    file.extend(encode(&entry).unwrap());
    file.extend([1; 3000]);
    let to = directory();
    let err = unpacked(&file, to.path(), &HOST).unwrap_err();
    assert!(err.to_string().contains("truncated"), "{err}");
    assert_eq!(fs::metadata(to.path().join("huge")).unwrap().len(), 3000);
    let mut header = extension(b'x', b"");
    header[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = header[..BLOCK]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let err = unpacked(&header, to.path(), &HOST).unwrap_err();
    assert!(err.to_string().contains("a header of 8589934591 bytes"), "{err}");
}

#[test]
fn noise_is_survived() {
    let mut noise = 0x5eed_u64;
    let base = archive(&[
        ("a", Kind::Directory, b""),
        ("a/f", Kind::File, b"123"),
        (&"x".repeat(150), link(&"y".repeat(150)), b""),
    ]);
    for _ in 0..2000 {
        let mut bytes = base.clone();
        for _ in 0..3 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(noise >> 33).unwrap() % bytes.len();
            bytes[at] = noise.to_le_bytes()[3];
        }
        let mut input = bytes.as_slice();
        let mut reader = Reader::new(&mut input);
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}

#[test]
fn a_changing_tree_is_packed_as_it_is_found() {
    let from = directory();
    let path = from.path().join("f");
    fs::write(&path, [1; 1000]).unwrap();
    let source = Source::open(File::open(from.path()).unwrap().into(), b"f", false).unwrap();
    fs::write(from.path().join("other"), b"other").unwrap();
    fs::rename(from.path().join("other"), &path).unwrap();
    let err = pack(&source, b"f", &mut Vec::new(), &mut |_| {}).unwrap_err();
    assert!(err.to_string().contains("replaced meanwhile"), "{err}");
    let mut deep = from.path().join("deep");
    for _ in 0..450 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    let source = Source::open(File::open(from.path()).unwrap().into(), b"deep", false).unwrap();
    let err = pack(&source, b"deep", &mut Vec::new(), &mut |_| {}).unwrap_err();
    assert!(err.to_string().contains("too many directories"), "{err}");
}

#[test]
fn what_stands_after_the_end_is_read() {
    let mut bytes = archive(&[("f", Kind::File, b"1")]);
    bytes.extend(vec![0; 20 * BLOCK]);
    let mut input = bytes.as_slice();
    unpack(&mut input, File::open(directory().path()).unwrap().as_fd(), &HOST).unwrap();
    assert_eq!(input.read(&mut [0]).unwrap(), 0);
}
