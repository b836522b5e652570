//! Mounts of a spec as a container sees them: options, order, destinations. Each option stands beside its wrong twin.

use harness::edit::put;
use harness::volume::{VOLUME, add_mounts, tmpfs};
use harness::{Run, Vm, VmConfig};
use hyperstart::Code;
use serde_json::{Value, json};

/// A new tmpfs with these options, on a path of its own.
fn new_tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

/// Option, what mountinfo shows for it, and what its opposite is called.
const ATTRIBUTES: [(&str, &str, &str); 8] = [
    ("ro", "ro", "rw"),
    ("nosuid", "nosuid", "suid"),
    ("nodev", "nodev", "dev"),
    ("noexec", "noexec", "exec"),
    ("nosymfollow", "nosymfollow", "symfollow"),
    ("noatime", "noatime", "atime"),
    ("nodiratime", "nodiratime", "diratime"),
    ("nostrictatime", "relatime", "strictatime"),
];

/// Every attribute of a mount is seen on a new filesystem and on a bind, and its opposite takes it back.
#[test]
fn attributes_are_set_and_taken_back() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let mounts = vm.mounts_with("web", |spec| {
        for (on, _, off) in ATTRIBUTES {
            add_mounts(
                spec,
                json!([
                    new_tmpfs(&format!("/new/{on}"), &[on]),
                    new_tmpfs(&format!("/new/{off}"), &[on, off]),
                    bind(VOLUME, &format!("/bound/{on}"), &["bind", on]),
                    bind(VOLUME, &format!("/bound/{off}"), &["rbind", on, off]),
                ]),
            );
        }
    });
    for (on, seen, off) in ATTRIBUTES {
        for kind in ["new", "bound"] {
            assert!(mounts.at(&format!("/{kind}/{on}")).has(seen), "{kind} {on}");
            assert!(!mounts.at(&format!("/{kind}/{off}")).has(seen), "{kind} {off}");
        }
    }
    holder.remove();
    vm.shutdown();
}

/// What the guest's mount of a volume forbids, a bind may allow again: `rw`, `suid`, `dev`, `exec`, `atime`, `diratime`.
#[test]
fn a_bind_has_the_attributes_of_its_source_until_it_says_otherwise() {
    let vm = Vm::boot(&VmConfig::default());
    let strict = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    let source = "/run/kata-containers/sandbox/strict";
    let run = Run::busybox(["cat", "/proc/self/mountinfo"]).storage(tmpfs(source, &strict));
    let said = vm.finish_well("web", &run, |spec| {
        let all = ["rw", "suid", "dev", "exec", "atime", "diratime"];
        let more = all.map(|option| bind(source, &format!("/b/{option}"), &["bind", option]));
        add_mounts(spec, json!(more));
        add_mounts(spec, json!([bind(source, "/b/plain", &["bind"])]));
    });
    let mounts = harness::mountinfo::Mounts::parse(said.stdout());
    for (option, taken) in
        ["rw", "suid", "dev", "exec", "atime", "diratime"].into_iter().zip(strict)
    {
        assert!(!mounts.at(&format!("/b/{option}")).has(taken), "{option}");
        assert!(mounts.at("/b/plain").has(taken), "{taken} is the source's");
    }
    vm.shutdown();
}

/// An `r` before an attribute is for the mount and for all below it; without, for the top alone.
#[test]
fn recursive_attributes_reach_what_is_below() {
    let vm = Vm::boot(&VmConfig::default());
    let below = format!("{VOLUME}/below");
    let run = Run::busybox(["cat", "/proc/self/mountinfo"])
        .storage(tmpfs(VOLUME, &[]))
        .storage(tmpfs(&below, &[]));
    let options = [
        ("rro", "ro", "rrw"),
        ("rnosuid", "nosuid", "rsuid"),
        ("rnodev", "nodev", "rdev"),
        ("rnoexec", "noexec", "rexec"),
        ("rnosymfollow", "nosymfollow", "rsymfollow"),
        ("rnoatime", "noatime", "ratime"),
        ("rnodiratime", "nodiratime", "rdiratime"),
        ("rrelatime", "relatime", "rnorelatime"),
        ("rnostrictatime", "relatime", "rstrictatime"),
    ];
    let said = vm.finish_well("web", &run, |spec| {
        for (on, _, off) in options {
            let plain = &on[1..];
            add_mounts(
                spec,
                json!([
                    bind(VOLUME, &format!("/r/{on}"), &["rbind", on]),
                    bind(VOLUME, &format!("/r/{off}"), &["rbind", on, off]),
                    bind(VOLUME, &format!("/top/{on}"), &["rbind", "rstrictatime", plain]),
                ]),
            );
        }
    });
    let mounts = harness::mountinfo::Mounts::parse(said.stdout());
    for (on, seen, off) in options {
        assert!(mounts.at(&format!("/r/{on}")).has(seen), "{on}");
        assert!(mounts.at(&format!("/r/{on}/below")).has(seen), "{on} below");
        assert!(!mounts.at(&format!("/r/{off}/below")).has(seen), "{off} below");
    }
    for (on, seen, _) in options.into_iter().filter(|(_, seen, _)| *seen != "relatime") {
        assert!(!mounts.at(&format!("/top/{on}/below")).has(seen), "{on} without its r");
    }
    vm.shutdown();
}

/// `sync`, `dirsync` and `lazytime` are the filesystem's, and refused by name where there is none of its own.
#[test]
fn superblock_flags_are_set_on_new_filesystems_alone() {
    let vm = Vm::boot(&VmConfig::default());
    let flags = ["sync", "dirsync", "lazytime"];
    let mounts = vm.mounts_with("web", |spec| {
        for flag in flags {
            add_mounts(spec, json!([new_tmpfs(&format!("/{flag}"), &["silent", flag, "loud"])]));
        }
        let undone =
            ["iversion", "noiversion", "sync", "async", "lazytime", "nolazytime", "nomand"];
        add_mounts(spec, json!([new_tmpfs("/none", &undone)]));
    });
    for flag in flags {
        assert!(mounts.at(&format!("/{flag}")).super_has(flag), "{flag}");
        assert!(!mounts.at("/none").super_has(flag), "{flag}");
    }
    let other = |kind: &str, option: &str| json!([{ "destination": "/m", "type": kind, "source": "/proc", "options": [option] }]);
    for (kind, option) in [
        ("bind", "sync"),
        ("bind", "size=1m"),
        ("sysfs", "dirsync"),
        ("cgroup", "lazytime"),
        ("proc", "iversion"),
        ("tmpfs", "mand"),
    ] {
        let created = vm.try_create("bad", &Run::probe(["exit", "0"]), |spec| {
            add_mounts(spec, other(kind, option));
        });
        let err = created.expect_err(option);
        assert!(
            err.message().contains("mounts[7].options") && err.message().contains(option),
            "{err}"
        );
    }
    vm.shutdown();
}

/// What a filesystem does not know is its own error, which names the option; a type that is not served is named too.
#[test]
fn unknown_options_and_types_are_named() {
    let vm = Vm::boot(&VmConfig::default());
    for (kind, option, code, text) in [
        ("tmpfs", "fastboot", Code::InvalidArgument, "fastboot"),
        ("tmpfs", "size=lots", Code::InvalidArgument, "size"),
        ("sysfs", "hidepid=1", Code::InvalidArgument, "hidepid"),
        ("nfs", "ro", Code::Unimplemented, "mounts[7].type \"nfs\""),
    ] {
        let created = vm.try_create("bad", &Run::probe(["exit", "0"]), |spec| {
            add_mounts(
                spec,
                json!([{ "destination": "/m", "type": kind, "source": "x", "options": [option] }]),
            );
        });
        let err = created.expect_err(option);
        assert!(err.code() == code && err.message().contains(text), "{:?} {err}", err.code());
    }
    vm.shutdown();
}

/// `remount` changes what is there, and leaves what it does not name: attributes of any mount, the filesystem's own
/// options where the filesystem is the container's own.
#[test]
fn remount_changes_what_is_mounted() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let remount = |destination: &str, options: &[&str]| {
        let options: Vec<&str> = ["remount"].iter().chain(options).copied().collect();
        json!({ "destination": destination, "type": "none", "source": "none", "options": options })
    };
    let mounts = vm.mounts_with("web", |spec| {
        add_mounts(
            spec,
            json!([
                new_tmpfs("/t", &["nosuid", "size=1m"]),
                remount("/t", &["nodev", "size=2m", "sync"]),
                new_tmpfs("/late", &["ro"]),
                remount("/late", &["rw"]),
                new_tmpfs("/closed", &[]),
                remount("/closed", &["ro"]),
                new_tmpfs("/closed/inner", &[]),
                bind(VOLUME, "/v", &["rbind"]),
                remount("/v", &["bind", "ro"]),
                remount("/dev/shm", &["size=128k"]),
            ]),
        );
    });
    let t = mounts.at("/t");
    assert!(
        t.has("nosuid") && t.has("nodev") && t.super_has("size=2048k") && t.super_has("sync"),
        "{t:?}"
    );
    assert!(mounts.at("/late").has("rw") && mounts.at("/closed").has("ro"));
    assert!(mounts.find("/closed/inner").is_some(), "mount points are made before it is closed");
    assert!(
        mounts.at("/v").has("ro") && mounts.at("/v").super_has("rw"),
        "the mount, not the volume"
    );
    assert!(mounts.at("/dev/shm").super_has("size=128k"));
    assert_eq!(vm.in_volume("echo x > /volume/file; cat /volume/file"), "x\n");
    for (wrong, why) in [
        (remount("/etc", &["ro"]), "nothing is mounted there"),
        (remount("/nowhere", &["ro"]), "ENOENT"),
        (remount("/v", &["size=1m"]), "not the container's own"),
        (remount("/sys", &["sync"]), "not the container's own"),
    ] {
        let created =
            vm.try_create("bad", &Run::probe(["exit", "0"]).storage(tmpfs(VOLUME, &[])), |spec| {
                add_mounts(spec, json!([bind(VOLUME, "/v", &["rbind"]), wrong]));
            });
        let err = created.expect_err(why);
        assert!(err.message().contains("remount") && err.message().contains(why), "{err}");
    }
    holder.remove();
    vm.shutdown();
}

/// Mounts are made in the order of the list: a later one covers an earlier one, or is in it.
#[test]
fn mounts_are_made_in_their_order() {
    let vm = Vm::boot(&VmConfig::default());
    let (over, on) = (new_tmpfs("/a", &["size=1m"]), new_tmpfs("/a/b", &["size=2m"]));
    let size = |list: Value| {
        let mounts = vm.mounts_with("web", |spec| add_mounts(spec, list));
        let all = mounts.all().iter().filter(|mount| mount.target.starts_with("/a"));
        all.map(|mount| (mount.target.clone(), mount.parent)).collect::<Vec<_>>()
    };
    let nested = size(json!([over.clone(), on.clone()]));
    assert_eq!((nested[0].0.as_str(), nested[1].0.as_str()), ("/a", "/a/b"));
    assert_ne!(nested[0].1, nested[1].1, "one in the other");
    let covered = size(json!([on, over]));
    assert_eq!((covered[0].0.as_str(), covered[1].0.as_str()), ("/a/b", "/a"));
    assert_eq!(covered[0].1, covered[1].1, "side by side, and only the later is seen");
    vm.shutdown();
}

/// A destination is made where it is missing, is relative to /, and follows the links of the image inside the root; a
/// file is mounted on a file and a directory on a directory.
#[test]
fn destinations_are_made_and_found() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    vm.in_volume(
        "cd /volume && echo data > file && mkdir -p links && ln -s /target/of/link links/away",
    );
    let file = format!("{VOLUME}/file");
    let mounts = vm.mounts_with("web", |spec| {
        add_mounts(
            spec,
            json!([
                new_tmpfs("relative/path", &[]),
                bind(&file, "/made/for/a/file", &["bind"]),
                bind(&format!("{VOLUME}/links"), "/links", &["bind"]),
                new_tmpfs("/links/away/deeper", &[]),
            ]),
        );
    });
    for target in ["/relative/path", "/made/for/a/file", "/target/of/link/deeper"] {
        assert!(mounts.find(target).is_some(), "{target}");
    }
    for (wrong, why) in [
        (bind(&file, "/etc", &["bind"]), "destination is a directory"),
        (new_tmpfs("/bin/busybox", &[]), "destination is no directory"),
        (new_tmpfs("/", &[]), "root.path"),
        (new_tmpfs("/etc/..", &[]), "root.path"),
        (bind(&format!("{VOLUME}/links/away"), "/x", &["bind"]), "symbolic link"),
        (bind(&format!("{VOLUME}/nothing"), "/x", &["bind"]), "ENOENT"),
    ] {
        let run = Run::busybox(["true"]).storage(tmpfs(VOLUME, &[]));
        let err =
            vm.try_create("bad", &run, |spec| add_mounts(spec, json!([wrong]))).expect_err(why);
        assert!(err.message().contains(why), "{why}: {err}");
    }
    holder.remove();
    vm.shutdown();
}

/// A root that is the guest's own, or that a link leads to, is refused by whatever name it comes.
#[test]
fn the_root_is_a_directory_of_its_own() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    vm.in_volume("ln -s / /volume/root");
    for (path, why) in [
        ("/run/..".to_owned(), "the guest's own root"),
        (format!("{VOLUME}/root"), "symbolic link"),
        (format!("{VOLUME}/nothing"), "ENOENT"),
    ] {
        let run = Run::busybox(["true"]).storage(tmpfs(VOLUME, &[]));
        let created = vm.try_create("bad", &run, |spec| put(spec, "/root/path", json!(path)));
        let err = created.expect_err(why);
        assert!(err.message().contains(why), "{path}: {err}");
    }
    holder.remove();
    vm.shutdown();
}

/// Nodes of the spec have their type, numbers, mode and owner; a /dev that is bound stays as it is, and must have them.
#[test]
fn devices_of_the_spec_are_made_or_found() {
    let vm = Vm::boot(&VmConfig::default());
    let device = |path: &str, kind: &str, major: i64, minor: i64| json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o640, "uid": 7, "gid": 8 });
    let list = json!([
        device("/dev/c", "c", 10, 200),
        device("/dev/u", "u", 10, 201),
        device("/dev/b", "b", 7, 3),
        device("/srv/deep/p", "p", 0, 0),
        device("/dev/null", "c", 1, 3),
    ]);
    let stat =
        "stat -c '%n %F %t:%T %a %u:%g' /dev/c /dev/u /dev/b /srv/deep/p /dev/null /dev/zero";
    let said = vm.finish_well("web", &Run::shell(stat), |spec| put(spec, "/linux/devices", list));
    let expected = [
        "/dev/c character special file a:c8 640 7:8",
        "/dev/u character special file a:c9 640 7:8",
        "/dev/b block special file 7:3 640 7:8",
        "/srv/deep/p fifo 0:0 640 7:8",
        "/dev/null character special file 1:3 640 7:8",
        "/dev/zero character special file 1:5 666 0:0",
    ];
    assert_eq!(said.stdout().lines().collect::<Vec<_>>(), expected);
    let run = Run::shell("ls /dev | wc -l; stat -c %a /dev/null").storage(tmpfs(VOLUME, &[]));
    let with_bound_dev = |devices: Value| {
        vm.try_create("bound", &run, |spec| {
            add_mounts(spec, json!([bind(VOLUME, "/dev", &["bind"])]));
            put(spec, "/linux/devices", devices);
        })
    };
    let err = with_bound_dev(json!([device("/dev/null", "c", 1, 3)])).expect_err("no such device");
    assert!(err.message().contains("/dev/null") && err.code() == Code::NotFound, "{err}");
    vm.shutdown();
}

/// Each container has a /dev of its own: what one puts there the other does not see.
#[test]
fn no_two_containers_share_a_dev() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::shell("touch /dev/mine && echo made && sleep 1000"));
    web.says("made");
    assert_eq!(vm.finish("db", &Run::shell("test -e /dev/mine")).code, 1);
    assert_eq!(web.exec("look", &Run::shell("test -e /dev/mine")).finish().code, 0);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// /dev/console is the container's terminal, and there is none without one.
#[test]
fn a_console_is_there_with_a_terminal() {
    let vm = Vm::boot(&VmConfig::default());
    let stat = "stat -c '%F %t' /dev/console; cat /proc/self/mountinfo | grep -c ' /dev/console '";
    let with = vm.finish("with", &Run::shell(stat).terminal());
    assert_eq!(
        with.stdout().replace('\r', ""),
        "character special file 88\n1\n",
        "88 is 136, a pty"
    );
    let without = vm.finish("without", &Run::shell(stat));
    assert_eq!((without.stdout(), without.code), ("0\n", 1), "{without:?}");
    vm.shutdown();
}

/// A create that fails at a mount, the first or the last, leaves no mount in the guest, in a volume that it shares
/// neither.
#[test]
fn a_create_that_fails_at_a_mount_leaves_nothing() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let mounts = || vm.guest_view().all("guest_mount").join("\n");
    let before = mounts();
    assert!(before.contains(VOLUME), "the guest's mounts are seen");
    for wrong in [
        bind("/run/nothing", "/w", &["bind"]),
        new_tmpfs("/bin/busybox", &[]),
        new_tmpfs("/w", &["size=lots"]),
        json!({ "destination": "/w", "type": "none", "source": "none", "options": ["remount"] }),
        bind("/proc", "/w", &["bind", "idmap"]),
    ] {
        let run = Run::busybox(["true"]).storage(tmpfs(VOLUME, &[]));
        let created = vm.try_create("bad", &run, |spec| {
            let shared = bind(VOLUME, "/v", &["rbind", "rshared"]);
            add_mounts(spec, json!([new_tmpfs("/a", &[]), shared, wrong, new_tmpfs("/z", &[])]));
        });
        created.expect_err("a wrong mount");
        assert_eq!(mounts(), before);
    }
    holder.remove();
    vm.shutdown();
}
