//! `hyperctl run --bundle` with bundles made by others.
//!
//! `bundle/runc*.json` and `bundle/crun*.json` are what `runc spec` 1.1.5 and `crun spec` 1.8.1 of Debian 12 write, with
//! and without `--rootless`, byte for byte.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use harness::bundle::{Bundle, put, take};
use harness::command::{Place, Said, finish_bytes, finish_started, start, until};
use serde_json::{Value, json};

const RUNC: &str = include_str!("bundle/runc.json");
const CRUN: &str = include_str!("bundle/crun.json");
const RUNC_ROOTLESS: &str = include_str!("bundle/runc-rootless.json");
const CRUN_ROOTLESS: &str = include_str!("bundle/crun-rootless.json");

fn parsed(config: &str) -> Value {
    serde_json::from_str(config).unwrap()
}

/// Runs a bundle with other words than its own.
fn run_words<const N: usize>(place: &Place, bundle: &Bundle, words: [&str; N]) -> Said {
    bundle.write();
    let mut command =
        place.command(["run", "--rm", "--bundle", bundle.directory.to_str().unwrap()]);
    finish_started(start(command.args(words).stdin(Stdio::null())))
}

/// As they were generated: a terminal, a read-only root, few capabilities.
#[test]
fn generated_bundles_run() {
    let place = Place::new();
    for (name, config) in [("runc", RUNC), ("crun", CRUN)] {
        let mut bundle = Bundle::new(&place, name);
        bundle.config = parsed(config);
        let script = "hostname; test -t 1 && echo terminal; echo x > /x || echo read-only; exit 7";
        let said = run_words(&place, &bundle, ["sh", "-c", script]);
        assert_eq!(said.code, 7, "{said:#?}");
        let lines: Vec<&str> = said.stdout.lines().collect();
        assert_eq!((lines[0], lines[1]), (name, "terminal"), "{said:#?}");
        assert!(
            lines.last() == Some(&"read-only") && !bundle.rootfs().join("x").exists(),
            "{said:#?}"
        );
    }
    place.assert_nothing_left();
}

/// Root of a user namespace that maps him to the guest's root alone: 9p shows him what is root's on the host as his, and
/// all else as nobody's. What crun writes lists the namespace and no mappings, which crun itself makes up: it is refused
/// by name, and runs with them.
#[test]
fn rootless_bundles_run_in_a_user_namespace() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    std::os::unix::fs::chown(bundle.rootfs().join("home/alice"), Some(1000), Some(1001)).unwrap();
    let script =
        "stat -c %u:%g /bin/busybox /home/alice; set -- $(cat /proc/self/uid_map); echo $*; exit 7";
    let words = ["sh", "-c", script];
    let seen = "0:0\r\n65534:65534\r\n0 0 1\r\n";
    bundle.config = parsed(RUNC_ROOTLESS);
    let said = run_words(&place, &bundle, words);
    assert_eq!((said.code, said.stdout.as_str()), (7, seen), "{said:#?}");
    bundle.config = parsed(CRUN_ROOTLESS);
    let said = run_words(&place, &bundle, words);
    assert!(said.code == 125, "{said:#?}");
    let why = "linux.namespaces[user]: neither uidMappings nor gidMappings";
    assert!(said.stderr.contains(why), "{said:#?}");
    for ids in ["uidMappings", "gidMappings"] {
        let root = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        put(&mut bundle.config, &format!("/linux/{ids}"), root);
    }
    let said = run_words(&place, &bundle, words);
    assert_eq!((said.code, said.stdout.as_str()), (7, seen), "{said:#?}");
    place.assert_nothing_left();
}

/// Any 1.x is taken, and no other.
#[test]
fn versions_from_1_0_to_1_3_are_taken() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"] {
        put(&mut bundle.config, "/ociVersion", json!(version));
        bundle.args(["/probe", "exit", "9"]);
        assert_eq!(bundle.run(&place).code, 9, "{version}");
    }
    for version in ["2.0.0", "0.9.0"] {
        put(&mut bundle.config, "/ociVersion", json!(version));
        let said = bundle.run(&place);
        assert!(said.code == 125 && said.stderr.contains("ociVersion"), "{said:#?}");
    }
    place.assert_nothing_left();
}

/// What the specification does not define changes nothing ("Extensibility"); what it defines and a guest cannot give
/// is refused by its name.
#[test]
fn unknown_properties_are_ignored_and_unserved_ones_refused() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    for pointer in
        ["", "/process", "/process/user", "/root", "/linux", "/linux/resources", "/mounts/0"]
    {
        put(&mut bundle.config, &format!("{pointer}/com.example.unknown"), json!({ "a": [1] }));
    }
    put(&mut bundle.config, "/annotations", json!({ "com.example": "kept by nobody" }));
    bundle.args(["/probe", "exit", "5"]);
    assert_eq!(bundle.run(&place).code, 5);
    let config = bundle.config.clone();
    for (pointer, value, name) in [
        ("/process/apparmorProfile", json!("p"), "process.apparmorProfile"),
        ("/linux/intelRdt", json!({ "enableCMT": true }), "linux.intelRdt"),
        ("/windows", json!({ "layerFolders": ["x"] }), "windows"),
        ("/freebsd", json!({}), "freebsd"),
    ] {
        bundle.config = config.clone();
        put(&mut bundle.config, pointer, value);
        let said = bundle.run(&place);
        assert!(said.code == 125 && said.stderr.contains(name), "{name}: {said:#?}");
    }
    place.assert_nothing_left();
}

/// A root may be anywhere, and have any name.
#[test]
fn root_is_relative_to_the_bundle_or_absolute() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    bundle.args(["/probe", "exit", "4"]);
    fs::create_dir(bundle.directory.join("sub")).unwrap();
    fs::rename(bundle.rootfs(), bundle.directory.join("sub/tree")).unwrap();
    put(&mut bundle.config, "/root/path", json!("sub/../sub/tree"));
    assert_eq!(bundle.run(&place).code, 4);
    let elsewhere = place.path("else where");
    fs::rename(bundle.directory.join("sub/tree"), &elsewhere).unwrap();
    put(&mut bundle.config, "/root/path", json!(elsewhere));
    assert_eq!(bundle.run(&place).code, 4);
    put(&mut bundle.config, "/root/path", json!("gone"));
    let said = bundle.run(&place);
    assert!(said.code == 125 && said.stderr.contains("gone"), "{said:#?}");
    place.assert_nothing_left();
}

/// What a container writes is on the host: content, owner, permissions, links, and what it removed is gone.
#[test]
fn writes_reach_the_rootfs() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    for set in ["bounding", "effective", "permitted"] {
        for name in ["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_FSETID"] {
            put(&mut bundle.config, &format!("/process/capabilities/{set}/-"), json!(name));
        }
    }
    let script = "umask 077; mkdir /made; echo content > /made/file; /bin/busybox chown 1000:1001 /made/file; \
                  /bin/busybox chmod 4750 /made/file; ln -s file /made/link; rm /etc/group; echo more >> /etc/passwd";
    bundle.args(["/bin/sh", "-c", script]);
    let said = bundle.run(&place);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:#?}");
    let made = bundle.rootfs().join("made");
    let meta = fs::metadata(made.join("file")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1001, 0o4750));
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_to_string(made.join("file")).unwrap(), "content\n");
    assert_eq!(fs::read_link(made.join("link")).unwrap().to_str(), Some("file"));
    assert!(!bundle.rootfs().join("etc/group").exists());
    assert!(fs::read_to_string(bundle.rootfs().join("etc/passwd")).unwrap().ends_with("more\n"));
    place.assert_nothing_left();
}

/// A megabyte on each stream, apart and whole; and the code beside it.
#[test]
fn streams_are_apart_and_complete() {
    const BYTES: usize = 1 << 20;
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    bundle.args(["/bin/sh", "-c", "/probe write-both 1048576; /probe write stderr 5; exit 200"]);
    bundle.write();
    let mut command =
        place.command(["run", "--rm", "--bundle", bundle.directory.to_str().unwrap()]);
    let (code, stdout, stderr) = finish_bytes(start(command.stdin(Stdio::null())));
    assert_eq!((code, stdout.len(), stderr.len()), (200, BYTES, BYTES + 5));
    assert_eq!(harness::sha256(&stdout), harness::sha256(&harness::pattern(BYTES)));
    let doubled = [harness::pattern(BYTES), harness::pattern(5)].concat();
    assert_eq!(harness::sha256(&stderr), harness::sha256(&doubled));
    assert_ne!(harness::sha256(&stderr), harness::sha256(&stdout), "a hash tells them apart");
    place.assert_nothing_left();
}

/// Input goes through, and its end; 0 is 0; a killed container is 137.
#[test]
fn input_and_exit_code_go_through() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    bundle.args(["/probe", "sum"]);
    bundle.write();
    let directory = bundle.directory.to_str().unwrap().to_owned();
    let input = harness::pattern(300_000);
    let said = place.run_with_input(["run", "-i", "--rm", "--bundle", &directory], &input);
    assert_eq!(said.ok(), format!("bytes=300000\nsha256={}\n", harness::sha256(&input)));
    bundle.args(["/bin/sh", "-c", "echo ready; exec sleep 1000"]);
    bundle.write();
    let running =
        start(place.command(["run", "--name", "b", "--bundle", &directory]).stdin(Stdio::null()));
    until("ready", || place.run(["logs", "b"]).stdout.contains("ready"));
    place.run(["kill", "b"]).ok();
    assert_eq!(finish_started(running).code, 137);
    place.run(["rm", "b"]).ok();
    place.assert_nothing_left();
}

/// A directory of the host is shared, a read-only file is there as it was; what cannot be is refused by its mount.
#[test]
fn host_paths_are_bound() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    let data = place.path("data");
    fs::create_dir_all(data.join("below")).unwrap();
    fs::write(data.join("file"), "from the host\n").unwrap();
    let hosts = place.path("hosts");
    fs::write(&hosts, "10.0.0.1 other\n").unwrap();
    let bind = |destination: &str, source: Value, options: &[&str]| json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    let binds = [
        bind("/data", json!(data), &["rbind", "rw", "nosuid"]),
        bind("/again", json!(data), &["bind", "ro"]),
        bind("/etc/hosts", json!(hosts), &["bind", "ro"]),
    ];
    let config = bundle.config.clone();
    for mount in &binds {
        put(&mut bundle.config, "/mounts/-", mount.clone());
    }
    let script = "cat /data/file /etc/hosts; echo written > /data/below/made; \
                  cat /again/below/made; echo x > /again/x || echo x > /etc/hosts || echo refused twice; ls /data/..";
    bundle.args(["/bin/sh", "-c", script]);
    let said = bundle.run(&place);
    assert!(
        said.stdout.starts_with("from the host\n10.0.0.1 other\nwritten\nrefused twice\n"),
        "{said:#?}"
    );
    assert_eq!(fs::read_to_string(data.join("below/made")).unwrap(), "written\n");
    assert!(!data.join("x").exists() && fs::read_to_string(&hosts).unwrap() == "10.0.0.1 other\n");
    for (source, options, why) in [
        (json!(hosts), &["bind"], "cannot be shared for writing"),
        (json!("/proc"), &["rbind"], "host's kernel"),
        (json!("/none"), &["bind"], "/none"),
    ] {
        bundle.config = config.clone();
        put(&mut bundle.config, "/mounts/-", bind("/data", source, options));
        let said = bundle.run(&place);
        assert!(said.code == 125 && said.stderr.contains(why), "{said:#?}");
        assert!(said.stderr.contains("mounts[7] \"/data\""), "{said:#?}");
    }
    place.assert_nothing_left();
}

/// The mounts that a config has and the rootfs has no place for are made, and a mount may be taken away.
#[test]
fn an_empty_rootfs_is_enough() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    bundle.config = parsed(RUNC);
    put(&mut bundle.config, "/process/terminal", json!(false));
    take(&mut bundle.config, "/mounts/4");
    for directory in ["dev", "proc", "sys", "tmp", "etc", "home", "root", "bin", "expect"] {
        fs::remove_dir_all(bundle.rootfs().join(directory)).unwrap();
    }
    bundle.args(["/probe", "view"]);
    let said = bundle.run(&place);
    assert!(said.code == 0 && said.stdout.contains("mount./dev/pts=devpts"), "{said:#?}");
    place.assert_nothing_left();
}
