//! `hyperctl cp`, as a person who knows docker uses it, and as a container that is not to be trusted meets it.

use harness::command::Place;
use harness::{pattern, sha256};
use hyperstart_archive::{Entry, Kind, Reader, encode};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

fn boot(place: &Place, more: &[&str]) {
    let words = [&["run", "-d", "--name", "web"], more, &["busybox", "sleep", "6000"]].concat();
    place.run_words(&words).ok();
}

fn end(place: &Place) {
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// What a tree is like: for each path its mode, size, number of links, time, and a link's target.
fn facts(top: &Path) -> BTreeMap<String, String> {
    fn look(path: &Path, name: &str, found: &mut BTreeMap<String, String>) {
        let stat = fs::symlink_metadata(path).unwrap();
        let size = if stat.is_file() { stat.len() } else { 0 };
        let links = if stat.is_dir() { 0 } else { stat.nlink() };
        let target = fs::read_link(path).unwrap_or_default();
        let fact = format!("{:o} {size} {links} {} {target:?}", stat.mode(), stat.mtime());
        found.insert(name.to_owned(), fact);
        if stat.is_dir() {
            for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
                let below = format!("{name}/{}", entry.file_name().to_str().unwrap());
                look(&entry.path(), &below, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    look(top, "", &mut found);
    found
}

fn make_tree(top: &Path) {
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::create_dir(top.join("empty")).unwrap();
    fs::write(top.join("f"), "hello").unwrap();
    fs::write(top.join("a/odd \n'é$(x)"), "odd").unwrap();
    fs::write(top.join("a/b").join("n".repeat(200)), "long").unwrap();
    fs::hard_link(top.join("f"), top.join("a/same")).unwrap();
    symlink("../f", top.join("a/link")).unwrap();
    symlink("/nowhere", top.join("dangling")).unwrap();
    for (name, mode) in [("f", 0o640), ("empty", 0o1777), ("a", 0o510)] {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for name in ["f", "empty", "a"] {
        fs::File::open(top.join(name)).unwrap().set_modified(old).unwrap();
    }
}

/// Files and trees are copied both ways, to the places that docker's rules name, and are what they were.
#[test]
fn trees_are_copied_both_ways() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    make_tree(&place.path("tree"));
    boot(&place, &[]);
    let copy = |from: &str, to: &str| {
        let said = place.run(["cp", from, to]);
        assert_eq!(
            (said.code, said.stdout.as_str(), said.stderr.as_str()),
            (0, "", ""),
            "{from} {to}"
        );
    };
    let tree = path("tree");
    copy(&tree, "web:/tmp/new"); // a copy of that name
    copy(&tree, "web:/tmp"); // into it
    copy(&format!("{tree}/."), "web:/tmp/new/empty"); // what is in it
    copy(&format!("{tree}/f"), "web:tmp/renamed");
    copy(&format!("{tree}/f"), "web:/tmp/renamed");
    copy(&format!("{tree}/f"), "web:/tmp/new/");
    let look = "cd /tmp; stat -c '%n %A %u:%g %Y' new tree tree/f new/empty/f renamed new/f; cat new/a/same; readlink new/a/link";
    let said = place.run(["exec", "web", "sh", "-c", look]);
    let lines: Vec<&str> = said.ok().lines().collect();
    assert!(lines[0].starts_with("new drwx") && lines[1].starts_with("tree drwx"), "{lines:?}");
    for (line, name) in lines[2..6].iter().zip(["tree/f", "new/empty/f", "renamed", "new/f"]) {
        assert_eq!(*line, format!("{name} -rw-r----- 0:0 1000000000"));
    }
    assert_eq!(lines[6], "hello../f");

    copy("web:/tmp/tree", &path("out")); // a copy of that name
    fs::create_dir(place.path("into")).unwrap();
    copy("web:/tmp/tree", &path("into"));
    fs::create_dir(place.path("content")).unwrap();
    copy("web:/tmp/tree/.", &path("content"));
    let mut sent = facts(&place.path("tree"));
    assert_eq!(facts(&place.path("out")), sent);
    assert_eq!(facts(&place.path("into/tree")), sent);
    let mut content = facts(&place.path("content"));
    // The directory itself stays what it was.
    assert!(content.remove("").is_some() && sent.remove("").is_some());
    assert_eq!(content, sent);
    copy("web:/tmp/tree/f", &path("one"));
    copy("web:/tmp/tree/f", &path("one")); // once more
    assert_eq!(fs::read(place.path("one")).unwrap(), b"hello");
    copy("web:/tmp/tree/a/link", &path("link"));
    assert_eq!(fs::read_link(place.path("link")).unwrap(), Path::new("../f"));
    for words in [
        ["cp", "-L", "web:/tmp/tree/a/link", &path("target")],
        ["cp", "-L", &format!("{tree}/a/link"), "web:/tmp/target"],
    ] {
        place.run_words(&words).ok();
    }
    assert_eq!(fs::read(place.path("target")).unwrap(), b"hello");
    assert_eq!(place.run(["exec", "web", "cat", "/tmp/target"]).ok(), "hello");
    end(&place);
}

/// A large file comes through both ways as it was, and so does the archive of a stream, with its owners where they are to
/// be kept.
#[test]
fn large_files_and_streams_come_through() {
    const SIZE: usize = 100 << 20;
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    boot(&place, &["--memory", "300m"]);
    let data = pattern(SIZE);
    fs::write(place.path("big"), &data).unwrap();
    place.run(["cp", &path("big"), "web:/tmp/big"]).ok();
    let sum = place.run(["exec", "web", "sha256sum", "/tmp/big"]);
    assert!(sum.ok().starts_with(&sha256(&data)), "{sum:?}");
    place.run(["cp", "web:/tmp/big", &path("back")]).ok();
    assert!(fs::read(place.path("back")).unwrap() == data, "other bytes came back");

    let entry = Entry {
        path: b"dir/f".to_vec(),
        kind: Kind::File,
        mode: 0o4755,
        uid: 1000,
        gid: 1001,
        mtime: 1,
        size: 5,
    };
    let archive = [encode(&entry).unwrap(), b"hello".to_vec(), vec![0; 507 + 1024]].concat();
    for (flag, owner) in [("-a", "1000:1001"), ("-L", "0:0")] {
        place.run_with_input(["cp", flag, "-", "web:/tmp"], &archive).ok();
        let said = place.run(["exec", "web", "stat", "-c", "%u:%g %A", "/tmp/dir/f"]);
        assert_eq!(said.ok(), format!("{owner} -rwsr-xr-x\n"));
    }
    let out = place.command(["cp", "web:/tmp/dir", "-"]).stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let mut bytes = out.stdout.as_slice();
    let mut reader = Reader::new(&mut bytes);
    let paths: Vec<Vec<u8>> =
        std::iter::from_fn(|| reader.next_entry().unwrap()).map(|entry| entry.path).collect();
    assert_eq!(paths, [b"dir/".to_vec(), b"dir/f".to_vec()]);
    // On the host a set-user-id bit is a stranger's gift.
    place.run(["cp", "web:/tmp/dir/f", &path("plain")]).ok();
    assert_eq!(fs::metadata(place.path("plain")).unwrap().mode() & 0o7777, 0o755);
    place.run(["cp", "-a", "web:/tmp/dir/f", &path("kept")]).ok();
    let kept = fs::metadata(place.path("kept")).unwrap();
    assert_eq!((kept.mode() & 0o7777, kept.uid()), (0o4755, 0));
    end(&place);
}

/// What cannot be copied is an error with its reason, and exit code 125.
#[test]
fn what_cannot_be_copied_is_said() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    make_tree(&place.path("tree"));
    let tree = path("tree");
    let file = format!("{tree}/f");
    boot(&place, &["--read-only"]);
    for (from, to, text) in [
        ("web:/nowhere", &*path("x"), "ENOENT"),
        (&*path("nowhere"), "web:/tmp", "No such file"),
        ("web:/etc", &file, "is no directory"),
        (&tree, "web:/etc/passwd", "is no directory"),
        (&file, "web:/nowhere/", "no such directory"),
        (&file, "web:/nowhere/f", "ENOENT"),
        ("web:/etc/passwd", &path("no/f"), "No such file"),
        ("web:/etc/passwd", &path("no/"), "no such directory"),
        (&tree, "/tmp", "neither SRC nor DST"),
        ("web:/etc", "web:/tmp", "both SRC and DST"),
        ("nobody:/etc", &tree, "nobody"),
        (&file, "web:/f", "Read-only file system"),
        (&tree, "web:/new", "Read-only file system"),
        ("-", "web:/etc/passwd", "no such directory"),
        ("-", "web:/dev", "truncated"),
        ("web:", &tree, "no path after the colon"),
    ] {
        let said = place.run(["cp", from, to]);
        assert!(
            said.code == 125 && said.stderr.contains(text) && said.stdout.is_empty(),
            "{from} {to}: {said:?}"
        );
    }
    assert_eq!(place.run(["exec", "web", "ls", "/f"]).code, 1);
    end(&place);
}

/// A container that changes what it is asked for between two copies has nothing of the host's written to: neither through a
/// link that it gave before, nor by another name, nor as a device.
#[test]
fn hostile_container_writes_nowhere_else() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    fs::create_dir(place.path("victim")).unwrap();
    fs::write(place.path("victim/f"), "mine").unwrap();
    boot(&place, &[]);
    let victim = path("victim");
    let sh = |script: &str| place.run(["exec", "web", "sh", "-c", script]).ok().to_owned();
    sh(&format!("mkdir /d; ln -s {victim} /d/l; ln -s {victim}/f /d/g"));
    fs::create_dir(place.path("to")).unwrap();
    place.run(["cp", "web:/d/.", &path("to")]).ok();
    assert_eq!(fs::read_link(place.path("to/l")).unwrap(), place.path("victim"));
    sh("cd /d; rm l g; mkdir l; echo bad > l/f; echo bad > g");
    let said = place.run(["cp", "web:/d/.", &path("to")]);
    assert!(
        said.code == 125 && said.stderr.contains("\"l\": what is there is no directory"),
        "{said:?}"
    );
    sh("rm -r /d/l");
    place.run(["cp", "web:/d/.", &path("to")]).ok();
    assert_eq!(fs::read_to_string(place.path("victim/f")).unwrap(), "mine");
    assert_eq!(
        fs::read_to_string(place.path("to/g")).unwrap(),
        "bad\n",
        "in the place of the link"
    );
    sh("mknod /d/null c 1 3");
    let said = place.run(["cp", "web:/d", &path("to")]);
    assert!(
        said.code == 125 && said.stderr.contains("is a device, and none may be made here"),
        "{said:?}"
    );
    let names: Vec<_> = fs::read_dir(place.path("victim"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["f"]);

    // Into the container: links of its own lead nowhere but to its own.
    fs::write(place.path("f"), "new").unwrap();
    sh("mkdir /in; ln -s /etc /in/etc; ln -s ../../../../../run /in/run");
    place.run(["cp", &path("f"), "web:/in/etc"]).ok();
    place.run(["cp", &path("f"), "web:/in/run"]).ok();
    assert_eq!(sh("cat /etc/f /run/f"), "newnew");
    end(&place);
}
