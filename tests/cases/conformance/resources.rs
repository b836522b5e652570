//! Limits of the container's cgroup.

use harness::bundle::put;
use serde_json::json;

use super::{conforms, other};

/// Memory, processors and processes.
#[test]
fn limits_are_those_of_the_config() {
    conforms(
        |config| {
            put(
                config,
                "/linux/resources/memory",
                json!({
                    "limit": 48 << 20, "reservation": 16 << 20, "swap": 50 << 20,
                }),
            );
            put(
                config,
                "/linux/resources/cpu",
                json!({
                    "shares": 2048, "quota": 40_000, "period": 80_000, "cpus": "0", "mems": "0",
                }),
            );
            put(
                config,
                "/linux/resources/hugepageLimits",
                json!([{ "pageSize": "2MB", "limit": 4 << 20 }]),
            );
            put(config, "/linux/resources/pids", json!({ "limit": 77 }));
        },
        &[
            // What is counted with swap is seen in the swap's own limit too.
            other(
                &["linux.resources.memory.limit", "linux.resources.memory.swap"],
                "/linux/resources/memory/limit",
                json!(49 << 20),
            ),
            other(
                &["linux.resources.memory.reservation"],
                "/linux/resources/memory/reservation",
                json!(-1),
            ),
            other(
                &["linux.resources.memory.swap"],
                "/linux/resources/memory/swap",
                json!(48 << 20),
            ),
            other(&["linux.resources.cpu.shares"], "/linux/resources/cpu/shares", json!(1024)),
            other(&["linux.resources.cpu.quota"], "/linux/resources/cpu/quota", json!(-1)),
            other(&["linux.resources.cpu.period"], "/linux/resources/cpu/period", json!(100_000)),
            other(&["linux.resources.cpu.cpus"], "/linux/resources/cpu/cpus", json!("0-1")),
            other(&["linux.resources.cpu.mems"], "/linux/resources/cpu/mems", json!("1")),
            other(
                &["linux.resources.hugepageLimits"],
                "/linux/resources/hugepageLimits/0/limit",
                json!(2 << 20),
            ),
            other(&["linux.resources.pids.limit"], "/linux/resources/pids/limit", json!(-1)),
        ],
    );
}

/// What the kernel has by default is seen as such, and what was given by another property is there.
#[test]
fn limits_that_are_not_given_are_the_kernels() {
    conforms(
        |config| put(config, "/linux/resources/pids", json!({ "limit": 77 })),
        &[
            other(&[], "/linux/resources/cpu", json!({ "burst": 0, "idle": 0 })),
            other(&["linux.resources.cpu.burst"], "/linux/resources/cpu", json!({ "burst": 1000 })),
            other(&["linux.resources.cpu.idle"], "/linux/resources/cpu", json!({ "idle": 1 })),
            other(&[], "/linux/resources/unified", json!({ "pids.max": "77" })),
            other(
                &["linux.resources.unified"],
                "/linux/resources/unified",
                json!({ "pids.max": "76" }),
            ),
        ],
    );
}

/// Bandwidth that may be saved up, and files of the cgroup by their names, which win over the property for the same.
#[test]
fn files_of_the_cgroup_are_those_of_the_config() {
    conforms(
        |config| {
            let cpu = json!({ "quota": 50_000, "period": 100_000, "burst": 20_000, "idle": 1 });
            put(config, "/linux/resources/cpu", cpu);
            let unified = json!({ "pids.max": "76", "memory.high": "50331648" });
            put(config, "/linux/resources/unified", unified);
        },
        &[
            other(&["linux.resources.cpu.burst"], "/linux/resources/cpu/burst", json!(0)),
            other(&["linux.resources.cpu.idle"], "/linux/resources/cpu/idle", json!(0)),
            other(&["linux.resources.unified"], "/linux/resources/unified/pids.max", json!("77")),
            other(
                &["linux.resources.unified"],
                "/linux/resources/unified/memory.high",
                json!("max"),
            ),
            other(&["linux.resources.pids.limit"], "/linux/resources/pids", json!({ "limit": 77 })),
        ],
    );
}
