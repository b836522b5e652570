//! Images of several layers out of the store: stacked in the guest, shared by pods, run as their configuration says.

use harness::command::{Place, until};
use harness::image::{self, Head, Tar};
use image_builder::store::Stored;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a Dockerfile would say.
fn config() -> Value {
    json!({
        "Env": ["GREETING=hello world", "PATH=/bin"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["trap 'echo told to stop; exit 7' USR1; echo ready; while :; do sleep 0.1; done"],
        "User": "alice:staff",
        "WorkingDir": "/work",
        "StopSignal": "SIGUSR1",
        "Volumes": {"/data": {}, "/new": {}},
    })
}

fn owned<'a>(path: &'a str, kind: u8, mode: u32) -> Head<'a> {
    Head { path: path.as_bytes(), kind, mode, uid: 1000, gid: 1001, ..Head::default() }
}

/// Three layers: each has a say in what the others brought.
fn layers() -> Vec<Tar> {
    let base = image::base_layer()
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/work:/bin/sh\n")
        .file("etc/group", b"root:x:0:\nstaff:x:50:\n")
        .entry(&owned("data", b'5', 0o750), b"")
        .entry(&Head { size: 5, ..owned("data/seed", b'0', 0o640) }, b"seed\n")
        .entry(&owned("work", b'5', 0o755), b"")
        .dir("opaque")
        .file("opaque/hidden", b"1")
        .dir("merged")
        .file("merged/low", b"low")
        .file("gone", b"1")
        .file("replaced", b"by the lowest");
    let middle = Tar::new()
        .file(".wh.gone", b"")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/shown", b"2")
        .dir("merged")
        .file("merged/middle", b"middle")
        .pax(&[("SCHILY.xattr.user.colour", b"blue")])
        .file("attributed", b"2")
        .entry(&Head { size: 6, ..owned("one", b'0', 0o4755) }, b"twice\n")
        .hard("two", "one");
    let top = Tar::new()
        .file("replaced", b"by the top")
        .entry(&owned("merged", b'5', 0o701), b"")
        .file("merged/.wh.low", b"")
        .file("again", b"3");
    vec![base, middle, top]
}

/// A place with a store of its own that has the image `demo`.
fn place() -> (Place, PathBuf, Stored) {
    let mut place = Place::new();
    let store = place.path("store");
    place.set("HYPERSTART_STORE_DIR", &store);
    let image = image::import(&store, "demo", &config(), layers());
    (place, store, image)
}

/// All that the layers say of each other, line by line.
const LOOK: &str = "cat /replaced; echo; ls /opaque /merged; test -e /gone; echo gone $?
    stat -c '%u:%g %a' /merged /one; stat -c %h /one; test /one -ef /two; echo same $?
    /probe xattr /attributed user.colour; touch /opaque/mine && cat /one";
const SEEN: &str = "by the top\n/merged:\nmiddle\n\n/opaque:\nshown\ngone 1\n1000:1001 701\n1000:1001 4755\n2\nsame 0\n\
    user.colour=blue\ntwice\n";

/// The guest stacks an image's layers: whiteouts, opaque directories, replaced files, hard links, attributes, owners. It
/// runs as the image says: user and group by name, working directory, environment, entry point, stop signal, volumes.
#[test]
fn image_of_three_layers_runs_as_it_says() {
    let (place, _, _) = place();
    place.run(["run", "-d", "--name", "web", "demo"]).ok();
    until("ready", || place.run(["logs", "web"]).ok() == "ready\n");
    let exec = |user: &str, script: &str| {
        place.run(["exec", "-u", user, "web", "/bin/sh", "-c", script]).ok().to_owned()
    };
    assert_eq!(exec("0", LOOK), SEEN);
    let own = "id -u; id -g; pwd; env | grep GREETING; touch /work/mine; stat -c %u /work/mine";
    let own = place.run(["exec", "web", "sh", "-c", own]);
    assert_eq!(own.ok(), "1000\n50\n/work\nGREETING=hello world\n1000\n");
    let volumes =
        "cat /data/seed; stat -c '%u:%g %a' /data /data/seed; grep -c ^volume /proc/mounts";
    assert_eq!(exec("0", volumes), "seed\n1000:1001 750\n1000:1001 640\n2\n");
    let run = |flags: &[&str], words: &[&str]| {
        place.run_words(&[&["run", "--rm", "--pod", "web"], flags, &["demo"], words].concat())
    };
    // On a root that cannot be written to, volumes can; and a container has its own.
    let read_only = run(&["--read-only", "-u", "0"], &["touch /data/a /new/b; ls /data; touch /c"]);
    assert!(
        read_only.stdout == "a\nseed\n" && read_only.stderr.contains("Read-only"),
        "{read_only:?}"
    );
    assert_eq!(exec("0", "ls /data"), "seed\n");
    let mapped = run(&["--tmpfs", "/data", "-u", "0:0"], &["ls /data; cat /replaced"]);
    assert_eq!(mapped.ok(), "by the top", "what the user mounts hides the volume");
    let ghost = run(&["-u", "ghost"], &["true"]);
    assert!(ghost.code != 0 && ghost.stderr.contains("\"ghost\""), "{ghost:?}");
    place.run(["stop", "web"]).ok();
    assert!(place.run(["ps", "-a"]).ok().contains("Exited (7)"));
    assert_eq!(place.run(["logs", "web"]).ok(), "ready\ntold to stop\n");
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// Two pods map the same layer files, read-only, from the host's page cache, in a user namespace too; what a container
/// writes is its own. The image cannot be removed while a pod runs from it.
#[test]
fn pods_share_the_layers_of_an_image() {
    let (place, store, image) = place();
    let before = inodes(&image::paths(&image));
    for (name, userns) in [("one", "host"), ("two", "private")] {
        let userns = format!("--userns={userns}");
        let flags = ["run", "-d", "--boot", "dax", &userns, "--name", name];
        place.run_words(&[&flags[..], &["demo", "while :; do sleep 1; done"]].concat()).ok();
        let look = place.run(["exec", "-u", "0", name, "/bin/sh", "-c", LOOK]);
        assert_eq!(look.ok(), SEEN, "{name}");
    }
    let qemus: Vec<u32> = place
        .processes()
        .into_iter()
        .filter(|(_, words)| words.contains("qemu-system"))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(qemus.len(), 2);
    for pid in qemus {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mapped = maps.lines().filter(|line| line.contains(&*store.to_string_lossy()));
        let mapped: Vec<Vec<&str>> = mapped.map(|line| line.split_whitespace().collect()).collect();
        assert!(mapped.iter().all(|fields| fields[1] == "r--s"), "{mapped:?}");
        let found: BTreeSet<u64> = mapped.iter().map(|fields| fields[4].parse().unwrap()).collect();
        assert_eq!(found, before, "the layers' own files");
    }
    assert_eq!(inodes(&image::paths(&image)), before);
    // Not by the name that it was run by, but itself: it may have another name by now.
    image::import(&store, "demo", &json!({"Cmd": ["true"]}), layers());
    let digest = image.digest.to_string();
    let refused = place.run(["image", "rm", &digest]);
    assert!(refused.code == 125 && refused.stderr.contains("pod \"one\" uses it"), "{refused:?}");
    place.run(["image", "prune"]).ok();
    place.run(["exec", "one", "cat", "/replaced"]).ok();
    for name in ["one", "two"] {
        place.run(["rm", "-f", name]).ok();
    }
    assert!(place.run(["image", "rm", &digest]).ok().contains(&digest));
    place.assert_nothing_left();
}

fn inodes(paths: &[PathBuf]) -> BTreeSet<u64> {
    paths.iter().map(|path| fs::metadata(path).unwrap().ino()).collect()
}

/// An image with more layers than a VM has room for runs from one that is made of them once; a pod that runs takes as
/// many layers as it has free slots for, lets them go, and takes the one that is made of too many.
#[test]
fn more_layers_than_room_are_one() {
    let (place, store, _) = place();
    let mut many = layers();
    let file = |number: u8| Tar::new().file(&format!("file{number}"), &[b'0' + number]);
    many.extend((0..6).map(file));
    let script = "cat /file*; cat /replaced";
    let image = image::import(&store, "many", &json!({"Cmd": ["sh", "-c", script]}), many);
    let flat = store.join(format!("flat/sha256/{}.erofs", image.digest.as_hex()));
    assert_eq!(place.run(["run", "--rm", "many"]).ok(), "012345by the top");
    let made = fs::metadata(&flat).unwrap();
    let slots = ["--machine", "q35", "--slots", "3"];
    place
        .run_words(
            &[&["run", "-d", "--name", "web"], &slots[..], &["busybox", "sleep", "1000"]].concat(),
        )
        .ok();
    for _ in 0..2 {
        let stacked = place.run(["run", "--rm", "--pod", "web", "-u", "0", "demo", LOOK]);
        assert_eq!(stacked.ok(), SEEN);
        assert_eq!(place.run(["run", "--rm", "--pod", "web", "many"]).ok(), "012345by the top");
    }
    let after = fs::metadata(&flat).unwrap();
    assert_eq!((made.ino(), made.mtime_nsec()), (after.ino(), after.mtime_nsec()), "made once");
    assert_eq!(flattened(&store), 1, "the image that fits is not");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

fn flattened(store: &Path) -> usize {
    fs::read_dir(store.join("flat/sha256")).unwrap().count()
}

/// A volume that would lie outside of the root, or over all of it, is refused by its name, before anything is started.
#[test]
fn volumes_outside_of_the_root_are_refused() {
    let (place, store, _) = place();
    for volume in ["/../../etc", "/"] {
        let config = json!({"Cmd": ["true"], "Volumes": {volume: {}}});
        image::import(&store, "hostile", &config, layers());
        let refused = place.run(["run", "--rm", "hostile"]);
        assert!(
            refused.code == 125 && refused.stderr.contains(&format!("{volume:?}")),
            "{refused:?}"
        );
    }
    place.assert_nothing_left();
}
