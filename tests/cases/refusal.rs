//! What a spec asks for and this guest does not do is refused by the name of its field: never passed over.

use harness::edit::put;
use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, ContainerId};
use serde_json::json;

/// Each wrong or unserved field is an error of its own, and leaves nothing in the guest.
#[test]
fn fields_are_refused_by_name() {
    let vm = Vm::boot(&VmConfig::default());
    let hook = json!([{ "path": "/bin/true" }]);
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let fields = [
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY",
        ),
        ("/linux/uidMappings", mapping, "linux.gidMappings: empty"),
        ("/linux/mountLabel", json!("label"), "linux.mountLabel"),
        ("/linux/intelRdt", json!({ "l3CacheSchema": "L3:0=1" }), "linux.intelRdt"),
        (
            "/linux/namespaces",
            json!([{ "type": "pid" }, { "type": "user" }]),
            "linux.namespaces[user]",
        ),
        (
            "/linux/namespaces",
            json!([{ "type": "pid", "path": "/proc/1/ns/pid" }]),
            "linux.namespaces[pid].path",
        ),
        ("/linux/sysctl", json!({ "kernel.panic": "1" }), "linux.sysctl"),
        ("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }), "linux.sysctl"),
        ("/linux/cgroupsPath", json!("/../../escape"), "linux.cgroupsPath"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/process/apparmorProfile", json!("profile"), "process.apparmorProfile"),
        ("/process/selinuxLabel", json!("label"), "process.selinuxLabel"),
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/oomScoreAdj", json!(5000), "process.oomScoreAdj"),
        ("/process/env", json!(["NO_EQUALS_SIGN"]), "process.env"),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_FIFO", "priority": 100 }),
            "process.scheduler.priority",
        ),
        ("/hooks", json!({ "prestart": hook.clone() }), "hooks.prestart"),
        ("/hooks", json!({ "createRuntime": hook.clone() }), "hooks.createRuntime"),
        ("/hooks", json!({ "poststart": hook.clone() }), "hooks.poststart"),
        (
            "/hooks",
            json!({ "createContainer": [{ "path": "true" }] }),
            "hooks.createContainer[0].path",
        ),
        (
            "/hooks",
            json!({ "startContainer": [{ "path": "/t", "timeout": -1 }] }),
            "hooks.startContainer[0].timeout",
        ),
        ("/hooks", json!({ "poststop": hook }), "hooks.poststop"),
        (
            "/mounts",
            json!([{ "destination": "/m", "type": "nfs", "source": "x" }]),
            "mounts[0].type",
        ),
        (
            "/mounts",
            json!([{ "destination": "/m", "type": "bind", "source": "x" }]),
            "mounts[0].source",
        ),
        ("/root/path", json!("/"), "root.path"),
        ("/root/path", json!("relative"), "root.path"),
        ("/hostname", json!("h".repeat(65)), "hostname"),
        ("/domainname", json!("d".repeat(65)), "domainname"),
        ("/process/user/umask", json!(0o1000), "process.user.umask"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "process.ioPriority.priority",
        ),
        ("/process/execCPUAffinity", json!({ "final": "8192" }), "process.execCPUAffinity.final"),
        (
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }),
            "linux.personality.flags",
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "3" }), // the machine has node 0 alone
            "linux.memoryPolicy",
        ),
    ];
    for (index, (pointer, value, field)) in fields.into_iter().enumerate() {
        let created = vm.try_create(&format!("web-{index}"), &Run::probe(["exit", "0"]), |spec| {
            put(spec, pointer, value)
        });
        let err = created.expect_err(field);
        assert!(
            [Code::InvalidArgument, Code::Unimplemented].contains(&err.code()),
            "{field}: {:?} {err}",
            err.code()
        );
        assert!(err.to_string().contains(field), "{field}: {err}");
    }
    assert_eq!(vm.finish("web-0", &Run::probe(["exit", "3"])).code, 3);
    vm.shutdown();
}

/// Ids that are no file names never reach the wire.
#[test]
fn bad_ids_are_refused_at_once() {
    for id in ["", ".", "..", "a/b", "a b", "\u{e9}"] {
        assert_eq!(ContainerId::new(id).unwrap_err().code(), Code::InvalidArgument, "{id:?}");
    }
}
