//! The root, mounts, and what hides paths.

use harness::bundle::{Bundle, put, take};
use harness::command::Place;
use serde_json::{Value, json};

use super::{check, conforms, other, wrong};

/// The root is read-only or not.
#[test]
fn root_is_read_only_or_not() {
    conforms(
        |config| put(config, "/root/readonly", json!(true)),
        &[other(&["root.readonly"], "/root/readonly", json!(false))],
    );
    conforms(
        |config| put(config, "/root/readonly", json!(false)),
        &[other(&["root.readonly"], "/root/readonly", json!(true))],
    );
}

/// The places of the mounts that a case adds to the seven of `runc spec`.
const FIRST: usize = 7;

fn mount(config: &mut Value, value: Value) {
    put(config, "/mounts/-", value);
}

/// Destination, type, source, options and order of each, and nothing besides.
#[test]
fn mounts_are_those_of_the_config() {
    conforms(
        |config| {
            mount(
                config,
                json!({ "destination": "/a/deep/place", "type": "tmpfs", "source": "one",
                "options": ["nosuid", "nodev", "noexec", "size=128k", "mode=700", "noatime"] }),
            );
            mount(
                config,
                json!({ "destination": "/tmp", "type": "tmpfs", "source": "two",
                "options": ["ro", "nosymfollow", "strictatime", "mode=1777"] }),
            );
            mount(
                config,
                json!({ "destination": "/a/deep/place/below", "type": "tmpfs",
                "source": "three", "options": ["ro", "rw", "size=1m"] }),
            );
            mount(config, json!({ "destination": "/tmp", "type": "tmpfs", "source": "four" }));
        },
        &[
            wrong(&["mounts.destination"], |config| {
                mount(config, json!({ "destination": "/nowhere", "type": "tmpfs", "source": "x" }));
            }),
            wrong(&["mounts.no-other"], |config| take(config, &at(2, ""))),
            other(&["mounts.type"], "/mounts/7/type", json!("ramfs")),
            other(&["mounts.source"], "/mounts/8/source", json!("one")),
            other(&["mounts.options"], "/mounts/7/options/0", json!("suid")),
            other(&["mounts.options"], "/mounts/7/options/3", json!("size=256k")),
            other(&["mounts.options"], "/mounts/7/options/4", json!("mode=755")),
            other(&["mounts.options"], "/mounts/7/options/5", json!("relatime")),
            other(&["mounts.options"], "/mounts/8/options", json!(["ro", "strictatime", "nodev"])),
            other(&["mounts.options"], "/mounts/9/options", json!(["rw", "ro", "size=1m"])),
            wrong(&["mounts.order"], |config| {
                let list = config["mounts"].as_array_mut().unwrap();
                list.swap(FIRST, FIRST + 1);
            }),
        ],
    );
}

fn at(index: usize, rest: &str) -> String {
    format!("/mounts/{}{rest}", FIRST + index)
}

/// Attributes of a whole tree, and propagation of each mount.
#[test]
fn mounts_have_recursive_options_and_propagation() {
    conforms(
        |config| {
            mount(
                config,
                json!({ "destination": "/shared", "type": "tmpfs", "source": "s",
                "options": ["shared"] }),
            );
            mount(
                config,
                json!({ "destination": "/unbindable", "type": "tmpfs", "source": "u",
                "options": ["unbindable", "rnosuid", "rro"] }),
            );
        },
        &[
            other(&["mounts.propagation"], "/mounts/7/options", json!(["private"])),
            other(&["mounts.propagation"], "/mounts/7/options", json!(["rslave"])),
            other(&["mounts.propagation"], "/mounts/8/options/0", json!("shared")),
            other(&["mounts.options.recursive"], "/mounts/8/options/-", json!("rnoexec")),
            other(&["mounts.options.recursive"], "/mounts/8/options/2", json!("rrw")),
        ],
    );
}

/// What a config does not list is there by default; a container that has broken it is noticed.
#[test]
fn default_filesystems_links_and_devices_are_there() {
    conforms(|config| put(config, "/mounts", json!([])), &[]);
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    let sets = ["bounding", "effective", "permitted"];
    for set in sets {
        put(&mut bundle.config, &format!("/process/capabilities/{set}/-"), json!("CAP_SYS_ADMIN"));
    }
    put(&mut bundle.config, "/mounts", json!([]));
    let sabotage = "cd /dev; rm stdin zero ptmx; ln -s /proc/self/fd/1 stdin; ln -s null zero; \
                    ln -s pts/0 ptmx; /bin/busybox mount -t ramfs x /dev/shm";
    let said = check(&place, &mut bundle, &[], sabotage);
    for name in
        ["default-filesystems: /dev/shm", "default-links: /dev/stdin", "default-devices: /dev/zero"]
    {
        assert!(said.stdout.contains(name), "{name} in {said:#?}");
    }
    assert!(said.stdout.contains("/dev/ptmx expected pts/ptmx"), "{said:#?}");
    place.assert_nothing_left();
}

/// Files and directories that are masked are empty, what is read-only refuses writing.
#[test]
fn hidden_paths_are_those_of_the_config() {
    conforms(
        |config| {
            put(
                config,
                "/linux/maskedPaths",
                json!(["/proc/version", "/proc/fs", "/etc/group", "/none"]),
            );
            put(
                config,
                "/linux/readonlyPaths",
                json!(["/proc/sys", "/home", "/etc/passwd", "/none"]),
            );
        },
        &[
            other(&["linux.maskedPaths"], "/linux/maskedPaths/-", json!("/proc/uptime")),
            other(&["linux.maskedPaths"], "/linux/maskedPaths/-", json!("/home")),
            other(&["linux.readonlyPaths"], "/linux/readonlyPaths/-", json!("/root")),
            other(&["linux.readonlyPaths"], "/linux/readonlyPaths/-", json!("/probe")),
            // Hidden, and no longer said to be.
            wrong(&["mounts.no-other"], |config| take(config, "/linux/maskedPaths/2")),
            wrong(&["mounts.no-other"], |config| take(config, "/linux/readonlyPaths/1")),
        ],
    );
}

/// The root's own propagation.
#[test]
fn rootfs_propagation_is_that_of_the_config() {
    for (propagation, another) in [
        ("shared", "private"),
        ("rslave", "shared"),
        ("unbindable", "slave"),
        ("rprivate", "rshared"),
    ] {
        conforms(
            move |config| put(config, "/linux/rootfsPropagation", json!(propagation)),
            &[other(&["linux.rootfsPropagation"], "/linux/rootfsPropagation", json!(another))],
        );
    }
}
