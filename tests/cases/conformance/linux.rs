//! Namespaces, kernel parameters, devices.

use harness::bundle::{put, take};
use serde_json::json;

use super::{conforms, other, wrong};

/// A network namespace of its own where it is listed, and the sandbox's where it is not.
#[test]
fn namespaces_are_those_of_the_config() {
    conforms(|_| {}, &[wrong(&["linux.namespaces"], |config| take(config, "/linux/namespaces/1"))]);
    conforms(
        |config| take(config, "/linux/namespaces/1"),
        &[
            other(&["linux.namespaces"], "/linux/namespaces/-", json!({ "type": "network" })),
            other(
                &["linux.uidMappings"],
                "/linux/uidMappings",
                json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]),
            ),
            other(
                &["linux.gidMappings"],
                "/linux/gidMappings",
                json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]),
            ),
        ],
    );
}

/// Parameters of the container's own namespaces.
#[test]
fn sysctls_are_those_of_the_config() {
    conforms(
        |config| {
            put(
                config,
                "/linux/sysctl",
                json!({
                    "net.ipv4.ip_forward": "1", "kernel.shmmax": "1048576", "kernel.sem": "32000 1024000 500 32001",
                }),
            );
        },
        &[
            other(&["linux.sysctl"], "/linux/sysctl/net.ipv4.ip_forward", json!("0")),
            other(&["linux.sysctl"], "/linux/sysctl/kernel.sem", json!("32000 1024000 500 32000")),
        ],
    );
}

/// Nodes of every kind, with number, mode and owner.
#[test]
fn devices_are_those_of_the_config() {
    conforms(
        |config| {
            put(
                config,
                "/linux/devices",
                json!([
                    { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6 },
                    { "path": "/dev/deep/disk", "type": "b", "major": 7, "minor": 8, "fileMode": 0o600 },
                    { "path": "/dev/fifo", "type": "p", "fileMode": 0o622 },
                    { "path": "/dev/plain", "type": "u", "major": 1, "minor": 11 },
                    { "path": "/dev/full", "type": "c", "major": 1, "minor": 3 },
                ]),
            );
        },
        &[
            other(&["linux.devices.type"], "/linux/devices/0/type", json!("b")),
            other(&["linux.devices.type"], "/linux/devices/3/type", json!("p")),
            other(&["linux.devices.number"], "/linux/devices/0/major", json!(11)),
            other(&["linux.devices.number"], "/linux/devices/1/minor", json!(9)),
            other(&["linux.devices.fileMode"], "/linux/devices/2/fileMode", json!(0o666)),
            other(&["linux.devices.fileMode"], "/linux/devices/3/fileMode", json!(0o600)),
            other(&["linux.devices.uid"], "/linux/devices/0/uid", json!(6)),
            other(&["linux.devices.gid"], "/linux/devices/0/gid", json!(5)),
            wrong(&["default-devices"], |config| take(config, "/linux/devices/4")),
        ],
    );
}

/// What may be made, read and written, by actual nodes.
#[test]
fn device_rules_are_those_of_the_config() {
    conforms(
        |config| {
            for set in ["bounding", "effective", "permitted"] {
                put(config, &format!("/process/capabilities/{set}/-"), json!("CAP_MKNOD"));
            }
            put(
                config,
                "/linux/resources/devices",
                json!([
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 241, "minor": 11, "access": "rm" },
                    { "allow": true, "type": "b", "major": 7, "access": "m" },
                    { "allow": false, "type": "b", "major": 7, "minor": 3, "access": "m" },
                ]),
            );
        },
        &[
            other(&["linux.resources.devices"], "/linux/resources/devices/0/allow", json!(true)),
            other(&["linux.resources.devices"], "/linux/resources/devices/1/access", json!("rw")),
            other(&["linux.resources.devices"], "/linux/resources/devices/2/access", json!("rwm")),
            other(&["linux.resources.devices"], "/linux/resources/devices/2/minor", json!(12)),
            other(&["linux.resources.devices"], "/linux/resources/devices/3/type", json!("c")),
            other(&["linux.resources.devices"], "/linux/resources/devices/4/allow", json!(true)),
        ],
    );
}

/// Ids of a user namespace of its own, as they are said and for all ranges. Who is no user of the range is nobody.
#[test]
fn ids_are_mapped_as_the_config_says() {
    let range = |inside: u32, outside: u32, size: u32| json!({ "containerID": inside, "hostID": outside, "size": size });
    conforms(
        |config| {
            put(config, "/linux/namespaces/-", json!({ "type": "user" }));
            let uids = json!([range(0, 0, 1), range(1, 100_000, 65_535)]);
            put(config, "/linux/uidMappings", uids);
            put(config, "/linux/gidMappings", json!([range(0, 0, 1000)]));
        },
        &[
            other(&["linux.uidMappings"], "/linux/uidMappings/0/size", json!(2)),
            other(&["linux.uidMappings"], "/linux/uidMappings/1/hostID", json!(100_001)),
            other(&["linux.uidMappings"], "/linux/uidMappings/1/containerID", json!(2)),
            wrong(&["linux.uidMappings"], |config| take(config, "/linux/uidMappings/1")),
            other(&["linux.gidMappings"], "/linux/gidMappings/0/size", json!(999)),
            wrong(&["linux.gidMappings"], |config| take(config, "/linux/gidMappings")),
            wrong(&["linux.namespaces"], |config| take(config, "/linux/namespaces/6")),
        ],
    );
}

/// Clocks of a time namespace of its own, each with its own offset.
#[test]
fn clocks_are_set_off_as_the_config_says() {
    conforms(
        |config| {
            put(config, "/linux/namespaces/-", json!({ "type": "time" }));
            let offsets = json!({
                "boottime": { "secs": 86_400, "nanosecs": 5 }, "monotonic": { "secs": 3600 },
            });
            put(config, "/linux/timeOffsets", offsets);
        },
        &[
            other(&["linux.timeOffsets"], "/linux/timeOffsets/boottime/secs", json!(86_401)),
            other(&["linux.timeOffsets"], "/linux/timeOffsets/boottime/nanosecs", json!(6)),
            other(&["linux.timeOffsets"], "/linux/timeOffsets/monotonic/secs", json!(0)),
            wrong(&["linux.namespaces"], |config| take(config, "/linux/namespaces/6")),
        ],
    );
}

/// A policy of memory, on the one node that a machine has at least.
#[test]
fn memory_policy_is_that_of_the_config() {
    conforms(
        |config| {
            let policy =
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
            put(config, "/linux/memoryPolicy", policy);
        },
        &[
            other(&["linux.memoryPolicy"], "/linux/memoryPolicy/mode", json!("MPOL_PREFERRED")),
            other(&["linux.memoryPolicy"], "/linux/memoryPolicy/flags", json!([])),
        ],
    );
}

/// Clocks without an offset, and no policy of memory.
#[test]
fn clocks_and_memory_are_the_kernels() {
    conforms(
        |_| {},
        &[
            other(&[], "/linux/timeOffsets", json!({ "boottime": { "secs": 0, "nanosecs": 0 } })),
            other(
                &["linux.timeOffsets"],
                "/linux/timeOffsets",
                json!({ "boottime": { "secs": 5 } }),
            ),
            other(
                &["linux.timeOffsets"],
                "/linux/timeOffsets",
                json!({ "monotonic": { "nanosecs": 1 } }),
            ),
            other(
                &["linux.memoryPolicy"],
                "/linux/memoryPolicy",
                json!({ "mode": "MPOL_BIND", "nodes": "0" }),
            ),
        ],
    );
}
