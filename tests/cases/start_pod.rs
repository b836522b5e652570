//! A pod in one call: all of it runs, or nothing of it is left.

use harness::edit::{push, put};
use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, PodContainer, SandboxConfig, Storage};
use oci_spec::runtime::Spec;
use serde_json::json;
use std::time::Duration;

fn boot() -> Vm {
    Vm::boot_machine(&VmConfig::default().machine())
}

fn describe(vm: &Vm, name: &str, change: impl FnOnce(&mut Spec)) -> PodContainer {
    vm.describe(name, &Run::probe(["ignore-signals"]), change).unwrap()
}

fn config() -> SandboxConfig {
    SandboxConfig {
        hostname: "pod".into(),
        dns: vec!["nameserver 10.0.0.1".into()],
        shared_pid: true,
        storages: vec![ephemeral("/run/pod-volume")],
        ..SandboxConfig::default()
    }
}

fn ephemeral(mount_point: &str) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: mount_point.into(),
        ..Storage::default()
    }
}

/// A pod that is to fail: its sandbox, its last container, and what the error says.
type Failure = (&'static str, SandboxConfig, PodContainer, Vec<&'static str>);

/// Each step: the sandbox's, the last container's creation from the first to the last, its start.
fn failures(vm: &Vm) -> Vec<Failure> {
    let missing = Storage { driver: "9p".into(), fstype: "9p".into(), ..ephemeral("/run/missing") };
    let mut sandbox = config();
    sandbox.storages.push(missing.clone());
    let mut storage = describe(vm, "last", |_| {});
    storage.options.storages.push(missing);
    let create = |change: &dyn Fn(&mut Spec)| describe(vm, "last", |spec| change(spec));
    let create_words = |word| vec!["create container \"last\"", word];
    vec![
        ("a sandbox's storage", sandbox, describe(vm, "last", |_| {}), vec!["create sandbox"]),
        ("a storage", config(), storage, create_words("9p")),
        (
            "what is not supported",
            config(),
            create(&|spec| {
                put(spec, "/linux/resources", json!({ "memory": { "disableOOMKiller": true } }));
            }),
            vec!["containers[2]", "linux.resources.memory.disableOOMKiller"],
        ),
        (
            "a cgroup",
            config(),
            create(&|spec| put(spec, "/linux/resources/unified", json!({ "memory.high": "much" }))),
            create_words("memory.high"),
        ),
        (
            "a mount",
            config(),
            create(&|spec| {
                push(
                    spec,
                    "/mounts",
                    json!({ "destination": "/m", "type": "bind", "source": "/run/none", "options": ["bind"] }),
                )
            }),
            create_words("/run/none"),
        ),
        (
            "a user",
            config(),
            vm.describe("last", &Run::probe(["exit", "0"]).user("nobody-here"), |_| {}).unwrap(),
            create_words("nobody-here"),
        ),
        ("an id twice", config(), describe(vm, "web", |_| {}), vec!["container \"web\""]),
        (
            "a start",
            config(),
            vm.describe("last", &Run::words(["/no/such/program"]), |_| {}).unwrap(),
            vec!["start container \"last\"", "/no/such/program"],
        ),
    ]
}

/// A pod whose sandbox, whose k-th create or whose start fails leaves nothing: the guest is as one in which nothing was
/// tried, and the error says which container it was and why.
#[test]
fn a_pod_that_fails_at_any_step_leaves_nothing() {
    let state = |tries: bool| {
        let vm = boot();
        for (what, config, last, words) in if tries { failures(&vm) } else { Vec::new() } {
            let pod = vec![describe(&vm, "web", |_| {}), describe(&vm, "db", |_| {}), last];
            let err = vm.run(what, vm.sandbox().start_pod(&config, pod)).expect_err(what);
            for word in words {
                assert!(err.to_string().contains(word), "{what}: {word} is not in {err}");
            }
            let listing = vm.run("list", vm.sandbox().list()).unwrap();
            assert_eq!(listing.containers, [], "{what}");
        }
        let none = vm.run("a pod", vm.sandbox().start_pod(&SandboxConfig::default(), vec![]));
        assert_eq!(none.unwrap().len(), 0);
        let name = vm.finish("name", &Run::busybox(["hostname"])).stdout().to_owned();
        vm.guest_state(); // what the first look makes for good
        let state = vm.guest_state();
        vm.shutdown();
        (name, state)
    };
    assert_eq!(state(true), state(false));
}

/// One call makes the sandbox and its containers in order, and starts them; each is then as one that was made alone.
#[test]
fn a_pod_starts_in_one_call() {
    let vm = boot();
    let pod = vec![
        describe(&vm, "web", |_| {}),
        vm.describe("db", &Run::shell("hostname; ls -d /run/pod-volume; exit 7"), |_| {}).unwrap(),
    ];
    let config = SandboxConfig { shared_pid: false, ..config() };
    let started = vm.run("start pod", vm.sandbox().start_pod(&config, pod)).unwrap();
    let status = vm.run("wait", started[1].wait()).unwrap();
    assert_eq!(status.code(), 7);
    let listing = vm.run("list", vm.sandbox().list()).unwrap();
    let ids: Vec<&str> = listing.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["db", "web"]);
    let again = vm.run("start pod", vm.sandbox().start_pod(&config, vec![])).unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "{again}");
    assert_eq!(vm.run("list", vm.sandbox().list()).unwrap().containers.len(), 2, "they stay");
    let many = (0..65).map(|at| describe(&vm, &format!("c{at}"), |_| {})).collect();
    let err = vm.run("start pod", vm.sandbox().start_pod(&config, many)).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument, "{err}");
    for container in started {
        vm.run("remove", container.remove(Duration::from_secs(30))).unwrap();
    }
    vm.shutdown();
}
