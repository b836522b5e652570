//! Limits of a container's cgroup: what the spec says is what the files say, inside and outside.

use harness::edit::put;
use harness::{Facts, Run, Vm, VmConfig};
use hyperstart::Code;
use serde_json::{Value, json};

/// The first virtio disk: the probe's image.
const DISK: (u32, u32) = (254, 0);

/// `/sys/fs/cgroup/FILE` of each file, as a process of the container and the guest's PID 1 see it, with `resources` in
/// the spec. Both must be the same.
fn files(vm: &Vm, resources: &Value, files: &[&str]) -> Vec<String> {
    let web = vm.create_with("web", &Run::probe(["ignore-signals"]), |spec| {
        put(spec, "/linux/resources", resources.clone());
    });
    let web = web.started();
    web.says("ready");
    let values = files.iter().enumerate().map(|(at, file)| {
        let path = format!("/sys/fs/cgroup/{file}");
        let inside = web.exec(&format!("read-{at}"), &Run::probe(["read", &path])).finish();
        let outer = format!("/guest/proc/1/root/sys/fs/cgroup/hyperstart/web/{file}");
        let outside = vm.inspect(&Run::probe(["read", &outer]));
        let value = value(&inside.facts(), &path);
        assert_eq!(value, self::value(&outside.facts(), &outer), "{file}: inside and outside");
        value
    });
    let values = values.collect();
    web.kill();
    web.remove();
    values
}

/// The probe says `LENGTH:first line`.
fn value(facts: &Facts, path: &str) -> String {
    let said = facts.get(path);
    said.split_once(':').map_or(said, |(_, line)| line).to_owned()
}

/// The error that a container with these resources gets.
fn refusal(vm: &Vm, resources: Value) -> hyperstart::Error {
    let made = vm.try_create("web", &Run::probe(["exit", "0"]), |spec| {
        put(spec, "/linux/resources", resources.clone());
    });
    made.expect_err(&resources.to_string())
}

/// Memory, processor, processes and huge pages: each file says what the spec does. A new cgroup's values are others.
#[test]
fn limits_are_what_the_spec_says() {
    let vm = Vm::boot(&VmConfig { cpus: 2, ..VmConfig::default() });
    let names = [
        "memory.max",
        "memory.low",
        "memory.swap.max",
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
    ];
    let resources = json!({
        "memory": {
            "limit": 64 << 20, "reservation": 16 << 20, "swap": 96 << 20, "checkBeforeUpdate": true,
        },
        "cpu": {
            "shares": 2048, "quota": 40_000, "period": 80_000, "burst": 10_000, "cpus": "1", "mems": "0",
        },
        "pids": { "limit": 33 },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }],
    });
    assert_eq!(
        files(&vm, &resources, &names),
        [
            "67108864",
            "16777216",
            "33554432",
            "79",
            "40000 80000",
            "10000",
            "1",
            "0",
            "33",
            "4194304",
            "4194304"
        ]
    );
    let other = files(&vm, &json!({}), &names);
    assert_eq!(other, ["max", "0", "max", "100", "max 100000", "0", "", "", "max", "max", "max"]);
    assert_eq!(files(&vm, &json!({ "cpu": { "idle": 1 } }), &["cpu.idle"]), ["1"]);
    assert_eq!(files(&vm, &json!({ "cpu": { "idle": 0 } }), &["cpu.idle"]), ["0"]);
    vm.shutdown();
}

/// Disks: weights and rates by number. A disk that is not there is an error, and so is what version 2 has not.
#[test]
fn disks_are_limited_by_number() {
    let vm = Vm::boot(&VmConfig::default());
    let (major, minor) = DISK;
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let resources = json!({ "blockIO": {
        "weight": 500,
        "weightDevice": [{ "major": major, "minor": minor, "weight": 1000 }],
        "throttleReadBpsDevice": rate(1 << 20),
        "throttleWriteBpsDevice": rate(2 << 20),
        "throttleReadIOPSDevice": rate(300),
        "throttleWriteIOPSDevice": rate(0),
    } });
    assert_eq!(
        files(&vm, &resources, &["io.weight", "io.max"]),
        ["default 4950", "254:0 rbps=1048576 wbps=2097152 riops=300 wiops=max"]
    );
    let weight = json!({ "unified": { "io.weight": "254:0 7" } });
    assert_eq!(
        files(&vm, &weight, &["io.weight"]),
        ["default 100"],
        "its second line is the disk's"
    );
    assert_eq!(files(&vm, &json!({}), &["io.weight", "io.max"]), ["default 100", ""]);
    let gone = json!([{ "major": 99, "minor": 1, "rate": 1 }]);
    let err = refusal(&vm, json!({ "blockIO": { "throttleReadBpsDevice": gone } }));
    assert!(err.to_string().contains("set io.max to \"99:1 rbps=1\": ENODEV"), "{err}");
    let err = refusal(&vm, json!({ "blockIO": { "leafWeight": 500 } }));
    assert_eq!(err.code(), Code::Unimplemented, "{err}");
    assert!(err.to_string().contains("linux.resources.blockIO.leafWeight"), "{err}");
    vm.shutdown();
}

/// `unified` writes any file of a controller, wins over the typed fields, and takes several lines for several disks.
#[test]
fn unified_wins() {
    let vm = Vm::boot(&VmConfig::default());
    let resources = json!({
        "memory": { "limit": 64 << 20 },
        "pids": { "limit": 9 },
        "unified": {
            "memory.high": "50331648",
            "memory.min": "1048576",
            "memory.low": "2097152",
            "memory.max": "100663296",
            "memory.oom.group": "1",
            "io.max": "254:0 rbps=1073741824\n254:16 wiops=8000",
        },
    });
    let names = [
        "memory.high",
        "memory.min",
        "memory.low",
        "memory.max",
        "memory.oom.group",
        "pids.max",
        "io.max",
    ];
    let said = files(&vm, &resources, &names);
    assert_eq!(said[..6], ["50331648", "1048576", "2097152", "100663296", "1", "9"]);
    assert!(said[6].starts_with("254:"), "{said:?}");
    vm.shutdown();
}

/// A file that is none, a value that is none, a controller that this kernel has not: each an error of its own, by name.
#[test]
fn limits_that_cannot_be_are_refused_by_name() {
    let vm = Vm::boot(&VmConfig::default());
    let unified = |file: &str, value: &str| json!({ "unified": { file: value } });
    let invalid = [
        (unified("cgroup.procs", "1"), "linux.resources.unified[\"cgroup.procs\"]"),
        (unified("../../memory.high", "1"), "linux.resources.unified"),
        (unified("memory.high", "much"), "set memory.high to \"much\": EINVAL"),
        (unified("memory.none", "1"), "\"memory.none\": the cgroup has no such file"),
        (json!({ "cpu": { "idle": 2 } }), "linux.resources.cpu.idle"),
        (json!({ "cpu": { "cpus": "7" } }), "set cpuset.cpus to \"7\""),
        (
            json!({ "cpu": { "quota": 10_000, "burst": 20_000 } }),
            "set cpu.max.burst to \"20000\": EINVAL",
        ),
        (json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }), "hugetlb.3MB.max"),
    ];
    for (resources, words) in invalid {
        let err = refusal(&vm, resources);
        assert!(err.to_string().contains(words), "{words}: {err}");
    }
    // "linux.resources.rdma" is refused for want of its controller, whose file is said.
    let unimplemented = [
        (
            json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } }),
            "its kernel has no cgroup controller \"rdma\"",
        ),
        (unified("misc.max", "sev 1"), "its kernel has no cgroup controller \"misc\""),
        (json!({ "cpu": { "realtimeRuntime": 1 } }), "linux.resources.cpu.realtimeRuntime"),
        (json!({ "cpu": { "realtimePeriod": 1 } }), "linux.resources.cpu.realtimePeriod"),
        (json!({ "memory": { "kernel": 1 } }), "linux.resources.memory.kernel"),
        (json!({ "memory": { "kernelTCP": 1 } }), "linux.resources.memory.kernelTCP"),
        (json!({ "memory": { "swappiness": 1 } }), "linux.resources.memory.swappiness"),
        (
            json!({ "memory": { "disableOOMKiller": true } }),
            "linux.resources.memory.disableOOMKiller",
        ),
        (json!({ "network": { "classID": 1 } }), "linux.resources.network.classID"),
        (
            json!({ "network": { "priorities": [{ "name": "eth0", "priority": 1 }] } }),
            "linux.resources.network.priorities",
        ),
    ];
    for (resources, words) in unimplemented {
        let err = refusal(&vm, resources);
        assert_eq!(err.code(), Code::Unimplemented, "{err}");
        assert!(err.to_string().contains(words), "{words}: {err}");
    }
    vm.shutdown();
}
