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
            other(&["linux.resources.pids.limit"], "/linux/resources/pids/limit", json!(-1)),
        ],
    );
}
