//! What no guest of ours gives: docs/oci.md has the reasons.

use harness::edit::put;
use harness::{Run, Vm, VmConfig};
use hyperstart::Code;
use serde_json::{Value, json};

/// Each row of docs/oci.md that is refused for good is UNIMPLEMENTED by the field's name, and the same spec without
/// the field runs.
#[test]
fn what_a_vm_cannot_give_is_refused_by_name() {
    let vm = Vm::boot(&VmConfig::default());
    let listener = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l" });
    let fields: Vec<(&str, Value)> = vec![
        ("process.apparmorProfile", json!("profile")),
        ("process.selinuxLabel", json!("label")),
        ("linux.mountLabel", json!("label")),
        ("linux.intelRdt", json!({ "closID": "c" })),
        ("linux.intelRdt", json!({ "schemata": ["L3:0=f"] })),
        ("linux.intelRdt", json!({ "l3CacheSchema": "L3:0=f" })),
        ("linux.intelRdt", json!({ "memBwSchema": "MB:0=20" })),
        ("linux.intelRdt", json!({ "enableMonitoring": true })),
        ("linux.netDevices", json!({ "eth0": { "name": "eth1" } })),
        ("linux.resources.memory.kernel", json!(1 << 20)),
        ("linux.resources.memory.kernelTCP", json!(1 << 20)),
        ("linux.resources.memory.swappiness", json!(10)),
        ("linux.resources.memory.disableOOMKiller", json!(true)),
        ("linux.resources.memory.useHierarchy", json!(true)),
        ("linux.resources.cpu.realtimeRuntime", json!(1000)),
        ("linux.resources.cpu.realtimePeriod", json!(1000)),
        ("linux.resources.network", json!({ "classID": 7 })),
        ("linux.resources.network.priorities", json!([{ "name": "eth0", "priority": 1 }])),
        ("linux.seccomp.listenerPath", listener),
        ("solaris", json!({ "milestone": "x" })),
        ("windows", json!({ "layerFolders": ["x"] })),
        ("vm", json!({ "kernel": { "path": "/k" } })),
        ("zos", json!({ "namespaces": [{ "type": "pid" }] })),
    ];
    for (index, (field, value)) in fields.into_iter().enumerate() {
        let pointer = format!("/{}", field.trim_end_matches(".listenerPath").replace('.', "/"));
        let created = vm.try_create(&format!("web-{index}"), &Run::probe(["exit", "0"]), |spec| {
            put(spec, &pointer, value);
        });
        let err = created.expect_err(field);
        assert_eq!(err.code(), Code::Unimplemented, "{field}: {err}");
        assert!(err.to_string().contains(field), "{field}: {err}");
    }
    assert_eq!(vm.finish("web", &Run::probe(["exit", "3"])).code, 3);
    vm.shutdown();
}

/// What the page says is not served yet. A row that is honoured from some day on has its own tests from then on.
#[test]
fn what_is_not_served_yet_is_refused_by_name() {
    let hook = json!([{ "path": "/bin/true" }]);
    let throttle = json!([{ "major": 254, "minor": 0, "rate": 1000 }]);
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let fields: Vec<(&str, Value)> = vec![
        ("hooks.prestart", hook.clone()),
        ("hooks.createRuntime", hook.clone()),
        ("hooks.createContainer", hook.clone()),
        ("hooks.startContainer", hook.clone()),
        ("hooks.poststart", hook.clone()),
        ("hooks.poststop", hook),
        ("linux.namespaces[].path", json!([{ "type": "pid", "path": "/proc/1/ns/pid" }])),
        ("linux.uidMappings", mapping.clone()),
        ("linux.gidMappings", mapping),
        ("linux.timeOffsets", json!({ "boottime": { "secs": 5 } })),
        ("linux.resources.memory.checkBeforeUpdate", json!(true)),
        ("linux.resources.cpu.burst", json!(1000)),
        ("linux.resources.blockIO", json!({ "weight": 100 })),
        (
            "linux.resources.blockIO.weightDevice",
            json!([{ "major": 254, "minor": 0, "weight": 100 }]),
        ),
        ("linux.resources.blockIO.throttleReadBpsDevice", throttle.clone()),
        ("linux.resources.blockIO.throttleWriteBpsDevice", throttle.clone()),
        ("linux.resources.blockIO.throttleReadIOPSDevice", throttle.clone()),
        ("linux.resources.blockIO.throttleWriteIOPSDevice", throttle),
        ("linux.resources.rdma", json!({ "mlx5_0": { "hcaHandles": 1 } })),
        ("linux.resources.unified", json!({ "pids.max": "7" })),
    ];
    let vm = Vm::boot(&VmConfig::default());
    for (index, (field, value)) in fields.into_iter().enumerate() {
        if !is_refused_for_now(field) {
            continue;
        }
        let object = field.split("[]").next().unwrap();
        let pointer = format!("/{}", object.replace('.', "/"));
        let created = vm.try_create(&format!("web-{index}"), &Run::probe(["exit", "0"]), |spec| {
            put(spec, &pointer, value);
        });
        let err = created.expect_err(field);
        assert!(err.to_string().contains(object), "{field}: {err}");
    }
    vm.shutdown();
}

fn is_refused_for_now(field: &str) -> bool {
    let page = include_str!("../../../docs/oci.md");
    let says_so = |line: &&str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let names = |cell: &str| {
            let mut names = cell.split('`').skip(1).step_by(2);
            names.any(|name| name.trim_end_matches("[]").trim_end_matches(".*") == field)
        };
        cells.len() > 2
            && names(cells[0])
            && cells[1] == "refused"
            && cells[2].starts_with("not served")
    };
    page.lines().any(|line| says_so(&line))
}
