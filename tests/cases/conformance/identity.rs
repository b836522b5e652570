//! Who the process is, and what it may.

use harness::bundle::{put, take};
use serde_json::{Value, json};

use super::{conforms, other, wrong};

/// Numbers are taken as they are, and no group is added.
#[test]
fn ids_and_groups_are_those_of_the_config() {
    conforms(
        |config| {
            put(
                config,
                "/process/user",
                json!({
                    "uid": 1000, "gid": 7, "additionalGids": [30, 20, 4_000_000_000_u32],
                }),
            );
            capabilities(config, ["CAP_KILL"; 5].map(|name| vec![name]));
        },
        &[
            other(&["process.user.uid"], "/process/user/uid", json!(1001)),
            other(&["process.user.gid"], "/process/user/gid", json!(1000)),
            other(
                &["process.user.additionalGids"],
                "/process/user/additionalGids",
                json!([20, 30]),
            ),
            wrong(&["process.user.additionalGids"], |config| {
                put(config, "/process/user/additionalGids/-", json!(7));
            }),
        ],
    );
}

/// Each of the five sets by itself, as far as execve(2) lets it be seen: of somebody who is not root.
#[test]
fn capabilities_of_a_user_are_those_of_the_config() {
    conforms(
        |config| {
            put(config, "/process/user", json!({ "uid": 1000, "gid": 1001 }));
            capabilities(
                config,
                [
                    vec!["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_MKNOD"],
                    vec!["CAP_CHOWN", "CAP_KILL"],
                    vec!["CAP_KILL", "CAP_NET_RAW"],
                    vec!["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
                    vec!["CAP_KILL"],
                ],
            );
        },
        &[
            wrong(&["process.capabilities.bounding"], |config| {
                put(config, "/process/capabilities/bounding/-", json!("CAP_CHECKPOINT_RESTORE"));
            }),
            wrong(&["process.capabilities.bounding"], |config| {
                take(config, "/process/capabilities/bounding/0");
            }),
            wrong(&["process.capabilities.inheritable"], |config| {
                put(config, "/process/capabilities/inheritable/-", json!("CAP_CHOWN"));
            }),
            wrong(&AMBIENT, |config| take(config, "/process/capabilities/ambient/0")),
            other(&AMBIENT, "/process/capabilities/ambient", json!(["CAP_KILL", "CAP_NET_RAW"])),
        ],
    );
}

/// What is ambient is permitted and effective after execve(2), and nothing else is.
const AMBIENT: [&str; 3] = [
    "process.capabilities.ambient",
    "process.capabilities.effective",
    "process.capabilities.permitted",
];

/// Of root, with no_new_privs: what he was not permitted before, execve(2) does not give him.
#[test]
fn capabilities_of_root_are_those_of_the_config() {
    conforms(
        |config| {
            put(config, "/process/noNewPrivileges", json!(true));
            capabilities(
                config,
                [
                    vec!["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
                    vec!["CAP_KILL"],
                    vec![],
                    vec!["CAP_CHOWN", "CAP_KILL"],
                    vec![],
                ],
            );
        },
        &[
            wrong(
                &["process.capabilities.effective", "process.capabilities.permitted"],
                |config| {
                    take(config, "/process/capabilities/permitted/0");
                },
            ),
            wrong(&["process.capabilities.bounding"], |config| {
                put(config, "/process/capabilities/bounding/-", json!("CAP_BPF"));
            }),
        ],
    );
}

/// Every capability that the kernel numbers, in all five sets; and none at all.
#[test]
fn every_capability_can_be_had_and_none() {
    conforms(
        |config| {
            put(config, "/process/user", json!({ "uid": 1000, "gid": 1001 }));
            capabilities(config, std::array::from_fn(|_| EVERY.to_vec()));
        },
        &[wrong(
            &[
                "process.capabilities.bounding",
                "process.capabilities.effective",
                "process.capabilities.inheritable",
                "process.capabilities.permitted",
                "process.capabilities.ambient",
            ],
            |config| {
                for set in SETS {
                    take(config, &format!("/process/capabilities/{set}/40"));
                }
            },
        )],
    );
    conforms(
        |config| take(config, "/process/capabilities"),
        &[other(
            &["process.capabilities.inheritable"],
            "/process/capabilities/inheritable",
            json!(["CAP_BPF"]),
        )],
    );
}

const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

fn capabilities(config: &mut Value, sets: [Vec<&str>; 5]) {
    for (name, set) in SETS.into_iter().zip(sets) {
        put(config, &format!("/process/capabilities/{name}"), json!(set));
    }
}

const EVERY: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];
