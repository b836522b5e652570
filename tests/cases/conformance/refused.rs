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
