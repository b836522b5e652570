//! New limits for a container that runs: what is said changes, at once and for good, or nothing does.

use harness::edit::put;
use harness::{Run, Running, Vm, VmConfig};
use hyperstart::{Code, ContainerId, Error};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn boot() -> Vm {
    Vm::boot(&VmConfig { cpus: 2, ..VmConfig::default() })
}

fn resources(json: &Value) -> LinuxResources {
    serde_json::from_value(json.clone()).unwrap_or_else(|err| panic!("{err}: {json}"))
}

fn try_update(vm: &Vm, web: &Running<'_>, json: &Value) -> Result<(), Error> {
    vm.run("update", web.container().update(&resources(json)))
}

fn update(vm: &Vm, web: &Running<'_>, json: &Value) {
    try_update(vm, web, json).unwrap_or_else(|err| panic!("{json}: {err}"));
}

/// Files of the container's cgroup, one a word; an empty one is `-`.
fn files<const N: usize>(web: &Running<'_>, name: &str, files: [&str; N]) -> [String; N] {
    let script = files.map(|file| format!("head -n 1 /sys/fs/cgroup/{file}; ")).concat();
    let said = web.exec(name, &Run::shell(&script)).finish();
    assert_eq!((said.code, said.stderr()), (0, ""));
    let lines: Vec<String> = said.stdout().lines().map(str::to_owned).collect();
    lines.try_into().unwrap_or_else(|lines| panic!("{files:?}: {lines:?}"))
}

const FILES: [&str; 10] = [
    "memory.max",
    "memory.low",
    "memory.swap.max",
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpu.idle",
    "cpuset.cpus",
    "pids.max",
    "memory.high",
];

fn shell(vm: &Vm) -> Running<'_> {
    let web = vm.start("web", &Run::shell("echo begun; while :; do sleep 1; done"));
    web.says("begun");
    web
}

/// Each update changes what it says of a running container and leaves the rest; -1 takes a limit away; a period alone
/// keeps the quota; steps that would be refused in another order are not.
#[test]
fn what_is_said_changes_and_nothing_else() {
    let vm = boot();
    let web = shell(&vm);
    let new = ["max", "0", "max", "100", "max 100000", "0", "0", "", "max", "max"];
    assert_eq!(files(&web, "new", FILES), new);
    update(&vm, &web, &json!({}));
    assert_eq!(files(&web, "same", FILES), new);
    update(
        &vm,
        &web,
        &json!({
            "memory": { "limit": 64 * MIB, "reservation": MIB, "swap": 96 * MIB },
            "cpu": { "shares": 2048, "quota": 40_000, "period": 80_000, "burst": 10_000, "cpus": "1" },
            "pids": { "limit": 33 },
            "unified": { "memory.high": "50331648" },
        }),
    );
    let all = [
        "67108864",
        "1048576",
        "33554432",
        "79",
        "40000 80000",
        "10000",
        "0",
        "1",
        "33",
        "50331648",
    ];
    assert_eq!(files(&web, "all", FILES), all);
    update(&vm, &web, &json!({ "memory": { "limit": 32 * MIB } }));
    update(&vm, &web, &json!({ "cpu": { "period": 50_000 } }));
    update(&vm, &web, &json!({ "cpu": { "cpus": "0-1" } }));
    let mut some = all;
    (some[0], some[4], some[7]) = ("33554432", "40000 50000", "0-1");
    assert_eq!(files(&web, "some", FILES), some);
    // A quota below the burst that was; idle, which takes no weight, and back with one.
    update(&vm, &web, &json!({ "cpu": { "quota": 5000, "burst": 1000 } }));
    update(&vm, &web, &json!({ "cpu": { "idle": 1 } }));
    assert_eq!(files(&web, "idle", FILES)[4..7], ["5000 50000", "1000", "1"]);
    update(&vm, &web, &json!({ "cpu": { "idle": 0, "shares": 1024 } }));
    assert_eq!(files(&web, "busy", FILES)[3..7], ["39", "5000 50000", "1000", "0"]);
    update(
        &vm,
        &web,
        &json!({ "memory": { "limit": -1 }, "pids": { "limit": -1 }, "cpu": { "quota": -1 } }),
    );
    let ended = files(&web, "ended", FILES);
    assert_eq!(
        (ended[0].as_str(), ended[4].as_str(), ended[8].as_str()),
        ("max", "max 50000", "max")
    );
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A limit that was set holds what runs already: more processes than the new limit are refused.
#[test]
fn new_limits_hold() {
    let vm = boot();
    let web = shell(&vm);
    update(&vm, &web, &json!({ "pids": { "limit": 4 } }));
    let fork = Run::shell("sleep 60 & sleep 60 & sleep 60 & sleep 60 & sleep 60 & true");
    let said = web.exec("forks", &fork).finish();
    assert!(said.stderr().contains("fork"), "{said:?}");
    web.kill();
    web.remove();
    let hog = vm.start("hog", &Run::probe(["hold", "32"]));
    hog.says("held");
    // Without a check, less than is held is granted by killing.
    update(&vm, &hog, &json!({ "memory": { "limit": 8 * MIB, "swap": 8 * MIB } }));
    assert_eq!(hog.wait(), 137);
    hog.remove();
    vm.shutdown();
}

/// An update that fails in its middle leaves every limit as it was, disks' included.
#[test]
fn update_that_fails_changes_nothing() {
    let vm = boot();
    let web = shell(&vm);
    update(
        &vm,
        &web,
        &json!({
            "memory": { "limit": 64 * MIB }, "cpu": { "quota": 40_000, "burst": 10_000, "shares": 2048 },
            "pids": { "limit": 33 },
            "blockIO": { "throttleReadBpsDevice": [{ "major": 254, "minor": 0, "rate": 1 << 20 }] },
        }),
    );
    let with_io = [
        "memory.max",
        "cpu.max",
        "cpu.max.burst",
        "cpu.weight",
        "cpu.idle",
        "cpuset.cpus",
        "pids.max",
        "io.max",
    ];
    let before = files(&web, "before", with_io);
    assert_eq!(before[7], "254:0 rbps=1048576 wbps=max riops=max wiops=max");
    let changes = json!({ "limit": 32 * MIB });
    let cpu = json!({ "quota": 20_000, "burst": 5_000, "idle": 1 });
    let rate = json!([{ "major": 254, "minor": 0, "rate": 4096 }, { "major": 254, "minor": 16, "rate": 4096 },
        { "major": 99, "minor": 9, "rate": 4096 }]);
    for (at, (bad, words)) in [
        (json!({ "memory": changes, "cpu": { "cpus": "9" } }), "cpuset.cpus"),
        (json!({ "memory": changes, "cpu": cpu, "blockIO": { "throttleReadBpsDevice": rate } }), "99:9"),
        (json!({ "memory": changes, "pids": { "limit": 5 }, "unified": { "memory.high": "much" } }), "memory.high"),
        (json!({ "memory": changes, "unified": { "memory.none": "1" } }), "memory.none"),
        (json!({ "memory": changes, "unified": { "memory.reclaim": "1" } }), "memory.reclaim"),
    ]
    .into_iter()
    .enumerate()
    {
        let err = try_update(&vm, &web, &bad).expect_err(words);
        assert!(err.to_string().contains(words), "{words}: {err}");
        assert!(!err.to_string().contains("not all former"), "{err}");
        assert_eq!(files(&web, &format!("after-{at}"), with_io), before, "{bad}");
    }
    web.kill();
    web.remove();
    vm.shutdown();
}

/// checkBeforeUpdate refuses a limit below what is in use, and nothing is killed; a larger one is taken.
#[test]
fn check_before_update_is_honoured() {
    let vm = boot();
    let web = vm.start("web", &Run::probe(["hold", "32"]));
    web.says("held");
    let limit = |mib: u64| json!({ "memory": { "limit": mib * MIB, "checkBeforeUpdate": true } });
    let err = try_update(&vm, &web, &limit(16)).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument, "{err}");
    assert!(
        err.to_string().contains("linux.resources.memory.limit: 16777216 is less than"),
        "{err}"
    );
    let stats = vm.run("stats", web.container().stats()).unwrap();
    assert_eq!(stats.memory.limit_bytes, None);
    update(&vm, &web, &limit(64));
    let stats = vm.run("stats", web.container().stats()).unwrap();
    assert_eq!((stats.memory.limit_bytes, stats.pids.current), (Some(64 * MIB), 1));
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Device rules, what version 2 has not, a container that has stopped or that nobody made: each is refused by name.
#[test]
fn updates_that_cannot_be_are_refused_by_name() {
    let vm = boot();
    let web = vm.create("web", &Run::probe(["ignore-signals"]));
    update(&vm, &web, &json!({ "pids": { "limit": 9 } })); // before it is started, too
    let web = web.started();
    web.says("ready");
    for (bad, words) in [
        (json!({ "devices": [{ "allow": true, "access": "rwm" }] }), "linux.resources.devices"),
        (json!({ "devices": [{ "allow": false, "access": "w" }] }), "linux.resources.devices"),
        (json!({ "memory": { "kernel": 1 } }), "linux.resources.memory.kernel"),
        (json!({ "memory": { "swappiness": 1 } }), "linux.resources.memory.swappiness"),
        (json!({ "network": { "classID": 1 } }), "linux.resources.network.classID"),
    ] {
        let err = try_update(&vm, &web, &bad).expect_err(words);
        assert_eq!(err.code(), Code::Unimplemented, "{words}: {err}");
        assert!(err.to_string().contains(words), "{words}: {err}");
    }
    for (bad, words) in [
        (json!({ "memory": { "swap": 1 } }), "linux.resources.memory.swap"),
        (json!({ "cpu": { "cpus": "zero" } }), "linux.resources.cpu.cpus"),
        (json!({ "unified": { "cgroup.procs": "1" } }), "linux.resources.unified"),
    ] {
        let err = try_update(&vm, &web, &bad).expect_err(words);
        assert_eq!(err.code(), Code::InvalidArgument, "{words}: {err}");
        assert!(err.to_string().contains(words), "{words}: {err}");
    }
    vm.run("pause", web.container().pause()).unwrap();
    update(&vm, &web, &json!({ "pids": { "limit": 10 } }));
    web.kill();
    let err = try_update(&vm, &web, &json!({ "pids": { "limit": 9 } })).unwrap_err();
    assert!(err.code() == Code::FailedPrecondition && err.to_string().contains("stopped"), "{err}");
    web.remove();
    let nobody = vm.sandbox().container(ContainerId::new("nobody").unwrap());
    let err = vm.run("update", nobody.update(&resources(&json!({})))).unwrap_err();
    assert!(err.code() == Code::NotFound && err.to_string().contains("not found"), "{err}");
    vm.shutdown();
}

/// Kata's Go runtime keeps device rules back at creation and passes containerd's whole list on with each update: that
/// changes limits and no device. A container whose spec had rules of its own takes no others.
#[test]
fn whole_lists_of_device_rules_change_no_device() {
    let vm = boot();
    let whole = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        { "allow": true, "type": "b", "major": 254, "minor": 0, "access": "rwm" },
    ]);
    let resize = json!({ "memory": { "limit": 64 * MIB }, "devices": whole });
    for (name, rules) in
        [("plain", json!([])), ("ruled", json!([{ "allow": false, "access": "rwm" }]))]
    {
        let web = vm.start_with(name, &Run::probe(["ignore-signals"]), |spec| {
            put(spec, "/linux/resources", json!({ "devices": rules }));
        });
        web.says("ready");
        let updated = try_update(&vm, &web, &resize);
        let limit = vm.run("stats", web.container().stats()).unwrap().memory.limit_bytes;
        if name == "plain" {
            updated.unwrap_or_else(|err| panic!("{err}"));
            assert_eq!(limit, Some(64 * MIB));
        } else {
            let err = updated.unwrap_err();
            assert!(err.to_string().contains("linux.resources.devices"), "{err}");
            assert_eq!(limit, None);
        }
        let nodes = web.exec("nodes", &Run::probe(["make-node", "/tmp/disk"])).finish();
        assert!(nodes.facts().get("make") != "ok", "{nodes:?}");
        let null = web.exec("null", &Run::probe(["open-write", "/dev/null"])).finish();
        assert_eq!(null.facts().get("open"), "ok");
        web.kill();
        web.remove();
    }
    vm.shutdown();
}
