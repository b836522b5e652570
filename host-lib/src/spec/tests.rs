//! Specs on their way to the wire: what arrives, and what is refused by which name.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{default_process, default_spec, extension_of_spec, to_wire, user};
use crate::error::{Code, Error};
use crate::id::ContainerId;

/// A config.json with one more property, at a path such as `linux.resources.cpu.burst`.
fn config(path: &str, value: Value) -> Spec {
    let mut config = json!({
        "ociVersion": "1.2.0",
        "root": { "path": "/rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["true"], "cwd": "/" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc", "path": "/run/ipc" }] },
    });
    let pointer = format!("/{}", path.replace('.', "/").replace("mounts[0]", "mounts/0"));
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut object = &mut config;
    for step in parent.split('/').skip(1) {
        object = match object {
            Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            object => &mut object[step],
        };
    }
    object[name] = value;
    serde_json::from_value(config).unwrap()
}

fn refused(path: &str, value: Value) -> Error {
    to_wire(&config(path, value)).expect_err(path)
}

#[test]
fn what_the_wire_cannot_carry_is_refused_by_name() {
    let properties = [
        ("process.commandLine", json!("cmd")),
        ("linux.resources.memory.useHierarchy", json!(true)),
        ("linux.resources.memory.swappiness", json!(0)),
        ("linux.intelRdt.closID", json!("guaranteed")),
        ("linux.seccomp", json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/l" })),
        (
            "linux.devices",
            json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0 }]),
        ),
    ];
    for (path, value) in properties {
        let err = refused(path, value);
        assert_eq!(err.code(), Code::Unimplemented, "{path}: {err}");
        assert!(err.object().starts_with(path), "{path}: {err}");
    }
    let err = refused("process.commandLine", json!("cmd"));
    let text = "convert OCI spec process.commandLine: the agent API cannot carry this property";
    assert_eq!(err.to_string(), text);
}

/// Each goes over the wire, and only to a guest that reads it.
#[test]
fn what_takes_an_extension_is_known_as_such() {
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let plain = to_wire(&config("annotations", json!({}))).unwrap();
    assert_eq!(extension_of_spec(&plain), None);
    let properties = [
        ("domainname", json!("example.org")),
        ("process.user.umask", json!(18)),
        ("process.ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 7 })),
        ("process.scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 })),
        ("process.execCPUAffinity", json!({ "initial": "0-3" })),
        ("mounts[0].uidMappings", mapping.clone()),
        ("mounts[0].gidMappings", mapping),
        ("linux.namespaces", json!([{ "type": "mount" }])),
        ("linux.namespaces", json!([{ "type": "pid" }, { "type": "ipc" }])),
        ("linux.namespaces", json!([{ "type": "pid" }, { "type": "uts" }])),
        ("linux.timeOffsets", json!({ "boottime": { "secs": 5 } })),
        ("linux.netDevices", json!({ "eth0": { "name": "eth1" } })),
        ("linux.memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0" })),
        ("linux.personality", json!({ "domain": "LINUX32" })),
        ("linux.resources.unified", json!({ "memory.high": "1" })),
        ("linux.resources.rdma", json!({ "mlx5_1": { "hcaHandles": 3 } })),
        ("linux.resources.cpu.burst", json!(1000)),
        ("linux.resources.cpu.idle", json!(1)),
        ("linux.resources.memory.checkBeforeUpdate", json!(true)),
        ("linux.seccomp", json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38 })),
    ];
    for (path, value) in properties {
        let wire = to_wire(&config(path, value)).unwrap();
        let known = extension_of_spec(&wire).unwrap().replace("[]", "[0]");
        assert!(known.starts_with(path) || known == "mounts[0].uidMappings", "{path}: {known}");
    }
}

/// OCI, "Extensibility": unknown properties are ignored. And an empty property says as much as an absent one.
#[test]
fn what_says_nothing_is_not_refused() {
    to_wire(&config("linux.flavour", json!("vanilla"))).unwrap();
    to_wire(&config("linux.timeOffsets", json!({}))).unwrap();
    to_wire(&config("mounts[0].uidMappings", json!([]))).unwrap();
    to_wire(&config("linux.resources.memory", json!({ "checkBeforeUpdate": false }))).unwrap();
    let eperm = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1 });
    to_wire(&config("linux.seccomp", eperm)).unwrap();
}

#[test]
fn numbers_that_do_not_fit_are_wrong() {
    for (path, value) in [
        ("process.consoleSize", json!({ "height": 1_u64 << 32, "width": 80 })),
        ("linux.resources.hugepageLimits", json!([{ "pageSize": "2MB", "limit": -1 }])),
    ] {
        let err = refused(path, value);
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
        assert!(err.object().starts_with(path), "{err}");
    }
}

#[test]
fn what_the_wire_carries_arrives() {
    let spec: Spec = serde_json::from_value(json!({
        "ociVersion": "1.2.0",
        "hostname": "h",
        "root": { "path": "/r", "readonly": true },
        "annotations": { "a": "b" },
        "process": {
            "terminal": true, "consoleSize": { "height": 24, "width": 80 },
            "user": { "uid": 1, "gid": 2, "additionalGids": [3, 4], "username": "u" },
            "args": ["sh"], "env": ["A=b"], "cwd": "/w",
            "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_CHOWN"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1_u64 << 63, "soft": 7 }],
            "noNewPrivileges": true, "oomScoreAdj": -5,
            "apparmorProfile": "ap", "selinuxLabel": "se",
        },
        "mounts": [{ "destination": "/d", "type": "tmpfs", "source": "s", "options": ["ro"] }],
        "hooks": { "poststop": [{ "path": "/h", "args": ["h"], "env": ["X=y"], "timeout": 3 }] },
        "linux": {
            "uidMappings": [{ "containerID": 1, "hostID": 2, "size": 3 }],
            "sysctl": { "net.ipv4.ip_forward": "1" },
            "cgroupsPath": "/c", "rootfsPropagation": "slave", "mountLabel": "ml",
            "maskedPaths": ["/m"], "readonlyPaths": ["/ro"],
            "namespaces": [{ "type": "network", "path": "/n" }, { "type": "pid" }],
            "devices": [{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }],
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": 1_u64 << 40, "swap": -1, "disableOOMKiller": true },
                "cpu": { "shares": 2, "quota": -1, "period": 5, "cpus": "0-1" },
                "pids": { "limit": 9 },
                "blockIO": {
                    "weight": 10,
                    "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 600 }],
                },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 5 }],
                "network": { "classID": 6, "priorities": [{ "name": "eth0", "priority": 1 }] },
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0,
                    "args": [{ "index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_EQ" }],
                }],
            },
            "intelRdt": { "l3CacheSchema": "L3:0=1" },
        },
    }))
    .unwrap();
    let wire = to_wire(&spec).unwrap();
    assert_eq!((wire.Version.as_str(), wire.Hostname.as_str()), ("1.2.0", "h"));
    assert_eq!((wire.Root.Path.as_str(), wire.Root.Readonly), ("/r", true));
    assert_eq!(wire.Annotations["a"], "b");

    let process = &wire.Process;
    assert_eq!(
        (process.Terminal, process.ConsoleSize.Height, process.ConsoleSize.Width),
        (true, 24, 80)
    );
    assert_eq!((process.User.UID, process.User.GID, process.User.Username.as_str()), (1, 2, "u"));
    assert_eq!(process.User.AdditionalGids, [3, 4]);
    assert_eq!(
        (&process.Args[0], &process.Env[0], &process.Cwd),
        (&"sh".into(), &"A=b".into(), &"/w".into())
    );
    assert_eq!(process.Capabilities.Bounding, ["CAP_CHOWN", "CAP_KILL"]);
    assert_eq!(process.Capabilities.Ambient, ["CAP_CHOWN"]);
    let limit = &process.Rlimits[0];
    assert_eq!((limit.Type.as_str(), limit.Hard, limit.Soft), ("RLIMIT_NOFILE", 1 << 63, 7));
    assert_eq!((process.NoNewPrivileges, process.OOMScoreAdj), (true, -5));
    assert_eq!((process.ApparmorProfile.as_str(), process.SelinuxLabel.as_str()), ("ap", "se"));

    let mount = &wire.Mounts[0];
    assert_eq!((mount.destination.as_str(), mount.type_.as_str()), ("/d", "tmpfs"));
    assert_eq!((mount.source.as_str(), &mount.options[0]), ("s", &"ro".into()));
    let hook = &wire.Hooks.Poststop[0];
    assert_eq!((hook.Path.as_str(), hook.Timeout, hook.Env.len()), ("/h", 3, 1));

    let linux = &wire.Linux;
    let mapping = &linux.UIDMappings[0];
    assert_eq!((mapping.ContainerID, mapping.HostID, mapping.Size), (1, 2, 3));
    assert_eq!(linux.Sysctl["net.ipv4.ip_forward"], "1");
    assert_eq!((linux.CgroupsPath.as_str(), linux.MountLabel.as_str()), ("/c", "ml"));
    assert_eq!(linux.RootfsPropagation, "slave");
    assert_eq!((&linux.MaskedPaths[0], &linux.ReadonlyPaths[0]), (&"/m".into(), &"/ro".into()));
    assert_eq!(
        (linux.Namespaces[0].Type.as_str(), linux.Namespaces[0].Path.as_str()),
        ("network", "/n")
    );
    assert_eq!(linux.Namespaces[1].Path, "");
    assert_eq!((linux.Devices[0].Minor, linux.Devices[0].FileMode), (3, 0o666));
    assert_eq!(linux.IntelRdt.L3CacheSchema, "L3:0=1");

    let resources = &linux.Resources;
    // An absent number means any device, not device 0:0.
    assert_eq!((resources.Devices[0].Major, resources.Devices[0].Minor), (-1, -1));
    assert_eq!((resources.Memory.Limit, resources.Memory.Swap), (1 << 40, -1));
    assert!(resources.Memory.DisableOOMKiller);
    assert_eq!((resources.CPU.Shares, resources.CPU.Quota, resources.CPU.Period), (2, -1, 5));
    assert_eq!((resources.CPU.Cpus.as_str(), resources.Pids.Limit), ("0-1", 9));
    assert_eq!(resources.BlockIO.Weight, 10);
    assert_eq!(resources.BlockIO.ThrottleReadBpsDevice[0].Rate, 600);
    assert_eq!(resources.HugepageLimits[0].Pagesize, "2MB");
    assert_eq!((resources.Network.ClassID, resources.Network.Priorities[0].Priority), (6, 1));

    let seccomp = &linux.Seccomp;
    assert_eq!(seccomp.Architectures, ["SCMP_ARCH_X86_64"]);
    let syscall = &seccomp.Syscalls[0];
    assert_eq!((syscall.Names[0].as_str(), syscall.has_errnoret()), ("kexec_load", true));
    assert_eq!((syscall.Args[0].ValueTwo, syscall.Args[0].Op.as_str()), (3, "SCMP_CMP_EQ"));
}

#[test]
fn the_default_spec_is_dockers() {
    let id = ContainerId::new("web").unwrap();
    let process = default_process(vec!["sh".to_owned()], vec![], "/", user(""), false);
    let wire = to_wire(&default_spec(&id, process)).unwrap();
    assert_eq!(wire.Root.Path, "/run/kata-containers/web/rootfs");
    let capabilities = &wire.Process.Capabilities;
    assert_eq!(capabilities.Bounding.len(), 14);
    assert!(capabilities.Bounding.contains(&"CAP_NET_BIND_SERVICE".to_owned()));
    assert_eq!(capabilities.Effective, capabilities.Bounding);
    assert!(capabilities.Ambient.is_empty() && capabilities.Inheritable.is_empty());
    assert!(wire.Linux.Namespaces.iter().all(|namespace| namespace.Type != "network"));
    assert!(wire.Linux.MaskedPaths.contains(&"/proc/kcore".to_owned()));
    // Nothing of oci-spec's own defaults slips in.
    assert!(
        wire.Hostname.is_empty() && wire.Process.Rlimits.is_empty() && wire.Process.Env.is_empty()
    );
    assert!(wire.Linux.Resources.is_none() && wire.Linux.Devices.is_empty());
}

#[test]
fn a_user_is_numbers_or_a_name() {
    let ids = |text| {
        let user = user(text);
        (user.uid(), user.gid(), user.username().clone())
    };
    assert_eq!(ids(""), (0, 0, None));
    assert_eq!(ids("1000"), (1000, 0, None));
    assert_eq!(ids("1000:50"), (1000, 50, None));
    for name in ["nobody", "nobody:nogroup", "1000:staff", "4294967296"] {
        assert_eq!(ids(name), (0, 0, Some(name.to_owned())));
    }
}
