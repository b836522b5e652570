//! `hyperctl run -v` and `--mount`, and `hyperctl volume`: what a user gives a container to mount.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::command::{Place, Said};
use harness::disk::{Filesystem, disk};
use hyperstart_vmm::virtiofs;
use serde_json::Value;

fn run(place: &Place, flags: &[&str], script: &str) -> Said {
    let words = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
    place.run_words(&words)
}

/// Directories, a volume by its name, a disk and memory are where they were said to be; what is read-only is, and so is the
/// root; what was written is there for the next pod. By virtio-fs, and by 9p where that is asked for.
#[test]
fn mounts_are_where_they_were_said_to_be() {
    virtiofs::usable().unwrap_or_else(|err| panic!("{err}"));
    let (place, file) = (Place::new(), disk(Filesystem::Ext4, 32 << 20));
    let (source, fixed) = (place.path("a dir"), place.path("fixed"));
    for directory in [&source, &fixed] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("in"), "from the host\n").unwrap();
    }
    let image = file.attached().path;
    let flags = [
        "--read-only",
        "-v",
        &format!("{}:/src", source.display()),
        "-v",
        &format!("{}:/fixed:ro", fixed.display()),
        "-v",
        "cache:/cache",
        "--mount",
        &format!("type=block,source={},target=/disk", image.display()),
        "--mount",
        "type=tmpfs,target=/mem,tmpfs-size=1m,tmpfs-mode=750",
    ];
    let script = "cat /src/in /fixed/in; echo out > /src/$NAME; echo x > /fixed/new; echo x > /new; \
                  echo $NAME >> /cache/file; echo $NAME >> /disk/file; cat /cache/file /disk/file; \
                  df -k /mem | awk 'END { print $2 }'; stat -c %a /mem; \
                  for d in src fixed cache disk mem; do grep \" /$d \" /proc/mounts | awk '{ print $3 }'; done";
    let mut written = String::new();
    for (share, fstype) in [("virtio-fs", "virtiofs"), ("9p", "9p")] {
        let name = format!("NAME={share}");
        let more = ["-e", &name, "--share", share];
        let said = run(&place, &[&flags[..], &more].concat(), script);
        written.push_str(&format!("{share}\n"));
        let expected = format!(
            "from the host\nfrom the host\n{written}{written}1024\n750\n{fstype}\n{fstype}\n{fstype}\next4\ntmpfs\n"
        );
        assert_eq!(said.ok(), expected, "{said:?}");
        assert_eq!(said.stderr.matches("Read-only file system").count(), 2, "{said:?}");
        assert_eq!(fs::read_to_string(source.join(share)).unwrap(), "out\n");
    }
    assert_eq!(fs::read_dir(&fixed).unwrap().count(), 1);
    assert!(!Path::new(&place.path("new")).exists());
    place.assert_nothing_left();
}

/// A volume is made by its first use, listed with who uses it, not removed while a pod mounts it, and gone when it is
/// removed; `inspect` says what a pod mounts and how.
#[test]
fn volumes_are_kept_until_they_are_removed() {
    let place = Place::new();
    assert_eq!(place.run(["volume", "create", "one", "two"]).ok(), "one\ntwo\n");
    place
        .run(["run", "-d", "--name", "web", "-v", "db:/data:ro", "busybox", "sleep", "10000"])
        .ok();
    assert_eq!(place.run(["volume", "ls", "-q"]).ok(), "db\none\ntwo\n");
    let inspected: Value = serde_json::from_str(place.run(["inspect", "web"]).ok()).unwrap();
    let mount = &inspected[0]["mounts"][0];
    let expected = if virtiofs::usable().is_ok() { "virtio-fs" } else { "9p" };
    assert_eq!(mount["driver"], expected, "{inspected}");
    assert_eq!((&mount["volume"], &mount["target"]), (&"db".into(), &"/data".into()));
    assert_eq!(mount["read_only"], true);
    let volume: Value = serde_json::from_str(place.run(["volume", "inspect", "db"]).ok()).unwrap();
    assert_eq!(volume[0]["used_by"][0], "web");
    let data = Path::new(volume[0]["path"].as_str().unwrap()).to_owned();
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o755);
    let refused = place.run(["volume", "rm", "db", "two"]);
    assert!(refused.code != 0 && refused.stderr.contains("pod \"web\" uses it"), "{refused:?}");
    assert_eq!(place.run(["volume", "ls", "-q"]).ok(), "db\none\n", "the other was removed");
    place.run(["rm", "-f", "web"]).ok();
    assert_eq!(place.run(["volume", "rm", "db"]).ok(), "db\n");
    assert!(!data.exists());
    let none = place.run(["volume", "rm", "db"]);
    assert!(none.code != 0 && none.stderr.contains("none of this name"), "{none:?}");
    place.assert_nothing_left();
}

/// What cannot be mounted is refused by name before a VM is started.
#[test]
fn what_cannot_be_mounted_is_refused_by_name() {
    let place = Place::new();
    let blank = place.path("blank");
    fs::write(&blank, [0; 8192]).unwrap();
    let block = format!("type=block,source={},target=/d", blank.display());
    let writable = format!("{}:/f", blank.display());
    for (flags, words) in [
        (["-v", "/no/such/directory:/d"], "/no/such/directory"),
        (["-v", "/proc:/d"], "host's kernel"),
        (["-v", "/tmp:relative"], "relative"),
        (["-v", "/tmp:/d:z"], "only ro and rw"),
        (["-v", "b@d:/d"], "neither a path"),
        (["-v", &writable], "cannot be shared for writing"),
        (["--mount", "type=nfs,source=x,target=/d"], "nfs"),
        (
            ["--mount", "type=bind,source=/tmp,target=/d,bind-propagation=shared"],
            "bind-propagation",
        ),
        (["--mount", &block], "mkfs.ext4"),
    ] {
        let said = run(&place, &flags, "true");
        assert!(said.code != 0 && said.stderr.contains(words), "{flags:?}: {said:?}");
    }
    place.assert_nothing_left();
}

/// A further container gets a disk that is plugged in for it, memory, and the directories that its pod was started with; a
/// directory that the pod does not have is refused by name.
#[test]
fn further_container_gets_its_mounts() {
    let (place, file) = (Place::new(), disk(Filesystem::Ext4, 32 << 20));
    let block = format!("type=block,source={},target=/disk", file.attached().path.display());
    let web = ["run", "-d", "--name", "web", "--machine", "q35", "--slots", "1", "-v", "db:/data"];
    place.run_words(&[&web[..], &["busybox", "sleep", "10000"]].concat()).ok();
    let further = |flags: &[&str], script: &str| {
        let words = ["run", "--rm", "--pod", "web"];
        place.run_words(&[&words[..], flags, &["busybox", "sh", "-c", script]].concat())
    };
    for expected in ["", "x\n"] {
        let script = "cat /disk/file 2> /dev/null; echo x > /disk/file; echo y > /db/file";
        assert_eq!(further(&["--mount", &block, "-v", "db:/db"], script).ok(), expected);
    }
    assert_eq!(place.run(["exec", "web", "cat", "/data/file"]).ok(), "y\n");
    place.run(["volume", "create", "other"]).ok();
    for (volume, words) in
        [("other:/x", "not started with it"), ("db:/x:ro", ""), ("none:/x", "none of this name")]
    {
        let said = further(&["-v", volume], "true");
        assert_eq!(said.code == 0, words.is_empty(), "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
    }
    assert_eq!(place.run(["volume", "ls", "-q"]).ok(), "db\nother\n");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}
