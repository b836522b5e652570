//! Namespaces: the sandbox's, a container's own, and those of a path; and what is in them.

use harness::{Facts, Run, Running, Vm, VmConfig, list_namespace, unlist_namespace};
use hyperstart::{Code, SandboxConfig, Storage};
use oci_spec::runtime::{LinuxNamespaceType as Kind, LinuxTimeOffsetBuilder, Spec};
use std::collections::HashMap;

/// As OCI and as /proc/PID/ns have them.
const KINDS: [(Kind, &str); 6] = [
    (Kind::Cgroup, "cgroup"),
    (Kind::Ipc, "ipc"),
    (Kind::Network, "net"),
    (Kind::Pid, "pid"),
    (Kind::Time, "time"),
    (Kind::Uts, "uts"),
];

/// What busybox's shell sees of its namespaces, as the probe says it.
const LOOK: &str = "for n in cgroup ipc mnt net pid time user uts; do echo ns.$n=$(readlink /proc/self/ns/$n); done";

/// A container that sleeps, and its pid in the guest.
fn sleeper<'vm>(vm: &'vm Vm, change: impl FnOnce(&mut Spec)) -> (Running<'vm>, u32) {
    let before = sleepers(vm);
    let container = vm.start_with("sleeper", &Run::busybox(["sleep", "1000"]), change);
    let pid = sleepers(vm).into_iter().find(|pid| !before.contains(pid));
    (container, pid.expect("the sleeper's pid"))
}

fn sleepers(vm: &Vm) -> Vec<u32> {
    let view = vm.guest_view();
    let processes = view.all("process").into_iter();
    processes.filter_map(|process| process.strip_suffix(" sleep")?.parse().ok()).collect()
}

fn look(container: &Running<'_>) -> Facts {
    Facts::parse(container.exec("look", &Run::shell(LOOK)).finish().stdout())
}

/// With a spec of OCI's meaning a namespace that is listed is new, whichever it is; a process that joins is in it too.
#[test]
fn what_is_listed_is_new() {
    let vm = Vm::boot(&VmConfig::default());
    let guest = vm.guest_view();
    for (kind, name) in KINDS {
        let web = vm.start_with("web", &Run::busybox(["sleep", "1000"]), |spec| {
            unlist_namespace(spec, kind);
            list_namespace(spec, kind, None);
        });
        let view = look(&web);
        let first = web.exec("first", &Run::shell(&LOOK.replace("self", "1"))).finish();
        let first = Facts::parse(first.stdout());
        for (_, other) in KINDS {
            let own = other == name || matches!(other, "cgroup" | "pid");
            let (key, seen) = (format!("ns.{other}"), view.get(&format!("ns.{other}")));
            assert_eq!(seen != guest.get(&key), own, "{name} is listed: {other}");
            assert_eq!(seen, first.get(&key), "{name} is listed: {other} of an exec");
        }
        web.kill();
        web.remove();
    }
    vm.shutdown();
}

/// Message queues belong to an ipc namespace: what one container makes another sees, unless one has its own.
#[test]
fn containers_share_ipc_unless_they_list_their_own() {
    let vm = Vm::boot(&VmConfig::default());
    let list = |name: &str, own: bool| {
        let said = vm.finish_with(name, &Run::shell("ls /dev/mqueue"), |spec| {
            if own {
                list_namespace(spec, Kind::Ipc, None);
            }
        });
        said.stdout().to_owned()
    };
    let made = vm.finish("maker", &Run::shell("touch /dev/mqueue/queue"));
    assert_eq!((made.code, made.stderr()), (0, ""));
    assert_eq!(list("shares", false), "queue\n");
    assert_eq!(list("alone", true), "");
    assert_eq!(vm.finish("unmaker", &Run::shell("rm /dev/mqueue/queue")).code, 0);
    vm.shutdown();
}

/// A name of its own takes a uts namespace of its own; the sandbox's name may be said again.
#[test]
fn a_hostname_takes_a_uts_namespace() {
    let sandbox = SandboxConfig { hostname: "pod-7".into(), ..SandboxConfig::default() };
    let vm = Vm::boot(&VmConfig { sandbox, ..VmConfig::default() });
    let run = Run::busybox(["hostname"]);
    let named = |name: &str, own: bool| {
        let name = name.to_owned();
        move |spec: &mut Spec| {
            spec.set_hostname(Some(name));
            if own {
                list_namespace(spec, Kind::Uts, None);
            }
        }
    };
    assert_eq!(vm.finish_with("own", &run, named("web-1", true)).stdout(), "web-1\n");
    assert_eq!(vm.finish_with("same", &run, named("pod-7", false)).stdout(), "pod-7\n");
    assert_eq!(vm.finish("none", &run).stdout(), "pod-7\n");
    let err = vm.try_create("other", &run, named("web-1", false)).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument);
    assert!(err.to_string().contains("hostname: linux.namespaces lists no uts"), "{err}");
    vm.shutdown();
}

/// A path leads into the namespaces of another container's process.
#[test]
fn a_path_joins_the_namespace_that_it_leads_to() {
    let vm = Vm::boot(&VmConfig::default());
    let (first, pid) = sleeper(&vm, |spec| {
        for kind in [Kind::Ipc, Kind::Network, Kind::Time, Kind::Uts] {
            list_namespace(spec, kind, None);
        }
    });
    let theirs = look(&first);
    let joined = vm.finish_with("web", &Run::shell(LOOK), |spec| {
        for (kind, name) in KINDS {
            unlist_namespace(spec, kind);
            list_namespace(spec, kind, Some(&format!("/proc/{pid}/ns/{name}")));
        }
    });
    let joined = Facts::parse(joined.stdout());
    for (_, name) in KINDS {
        let key = format!("ns.{name}");
        assert_eq!(joined.get(&key), theirs.get(&key), "{name}");
    }
    assert_ne!(joined.get("ns.mnt"), theirs.get("ns.mnt"), "never but its own");
    first.kill();
    first.remove();
    vm.shutdown();
}

/// What a path leads to is the right kind of namespace, or the container is refused and nothing is left of it.
#[test]
fn a_path_to_something_else_is_refused() {
    let vm = Vm::boot(&VmConfig::default());
    for (kind, path, code, why) in [
        (
            Kind::Ipc,
            "/proc/1/ns/uts",
            Code::InvalidArgument,
            "[ipc].path \"/proc/1/ns/uts\": no ipc",
        ),
        (Kind::Uts, "/init", Code::InvalidArgument, "[uts].path \"/init\": no uts namespace"),
        (Kind::Uts, "/dev/ttyS0", Code::InvalidArgument, "no uts namespace"),
        (Kind::Network, "/proc/4000000/ns/net", Code::NotFound, "[network].path"),
        (Kind::Pid, "/proc/1/ns/pid", Code::InvalidArgument, "the guest's own"),
        (Kind::Pid, "/proc/1/ns/net", Code::InvalidArgument, "no pid namespace"),
        (Kind::User, "/proc/1/ns/user", Code::InvalidArgument, "the guest's own"),
        (Kind::Mount, "/proc/1/ns/mnt", Code::Unimplemented, "linux.namespaces[mount].path"),
    ] {
        let err = vm.try_create("web", &Run::shell(LOOK), |spec| {
            unlist_namespace(spec, kind);
            list_namespace(spec, kind, Some(path));
        });
        let err = err.expect_err(path);
        assert!(err.to_string().contains(why), "{path}: {err}");
        assert_eq!(err.code(), code, "{err}");
    }
    vm.shutdown();
}

/// Clocks of a new time namespace are set off, for the first process and for those that join.
#[test]
fn time_offsets_move_the_clocks() {
    const DAYS: i64 = 100 * 86_400;
    let vm = Vm::boot(&VmConfig::default());
    let offset = |spec: &mut Spec, clock: &str, seconds: i64| {
        let offset = LinuxTimeOffsetBuilder::default().secs(seconds).nanosecs(5_u32).build();
        let mut linux = spec.linux().clone().unwrap();
        linux.set_time_offsets(Some(HashMap::from([(clock.to_owned(), offset.unwrap())])));
        spec.set_linux(Some(linux));
    };
    let uptime = |said: &str| said.split('.').next().unwrap().parse::<i64>().unwrap();
    let run = Run::shell("cat /proc/uptime; sleep 1000");
    let web = vm.start_with("web", &run, |spec| {
        list_namespace(spec, Kind::Time, None);
        offset(spec, "boottime", DAYS);
    });
    let said = web.exec("look", &Run::shell("cat /proc/uptime; cat /proc/self/timens_offsets"));
    let said = said.finish();
    assert!(uptime(said.stdout()) >= DAYS, "{said:?}");
    let offsets: Vec<Vec<&str>> =
        said.stdout().lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(offsets, [vec!["monotonic", "0", "0"], vec!["boottime", "8640000", "5"]]);
    web.kill();
    assert!(uptime(web.finish().stdout()) >= DAYS);
    web.remove();
    let plain = vm.finish("plain", &Run::busybox(["cat", "/proc/uptime"]));
    assert!(uptime(plain.stdout()) < DAYS, "the sandbox's clock stays");
    let err = vm.try_create("back", &run, |spec| {
        list_namespace(spec, Kind::Time, None);
        offset(spec, "monotonic", -DAYS);
    });
    let err = err.expect_err("a clock before its beginning");
    assert!(err.to_string().contains("linux.timeOffsets[monotonic]: ERANGE"), "{err}");
    let err = vm.try_create("none", &run, |spec| offset(spec, "monotonic", 5)).unwrap_err();
    assert!(err.to_string().contains("lists no new time namespace"), "{err}");
    vm.shutdown();
}

/// In a sandbox that shares a pid namespace a container sees the others' processes, and survives them.
#[test]
fn containers_share_pids_where_the_sandbox_does() {
    let sandbox = SandboxConfig { shared_pid: true, ..SandboxConfig::default() };
    let vm = Vm::boot(&VmConfig { sandbox, ..VmConfig::default() });
    let shares = |spec: &mut Spec| unlist_namespace(spec, Kind::Pid);
    let names = "for p in /proc/[0-9]*; do cat $p/comm; done; true";
    let web = vm.start_with("web", &Run::busybox(["sleep", "1000"]), shares);
    // Leaves an orphan in it, which outlives its first process.
    let db = Run::shell("sleep 2000 & exec tail -f /dev/null");
    let db = vm.start_with("db", &db, shares);
    let has = |said: &str, name: &str| said.lines().filter(|line| *line == name).count();
    let mut both = vm.finish_with("look", &Run::shell(names), shares);
    while (has(both.stdout(), "sleep"), has(both.stdout(), "tail")) != (2, 1) {
        both = vm.finish_with("look", &Run::shell(names), shares); // until the test's deadline
    }
    assert_eq!(has(both.stdout(), "init"), 1, "its process 1: {both:?}");
    let secrets =
        "cat /proc/1/environ || ls /proc/1/root/ || readlink /proc/1/fd/0 || readlink /proc/1/exe";
    let secrets = vm.finish_with("curious", &Run::shell(secrets), shares);
    assert_eq!((secrets.code == 0, secrets.stdout()), (false, ""), "{secrets:?}");
    let end = Run::shell(
        "kill -9 1; kill -15 1; ls -A /proc/1/root/; grep CapEff /proc/1/status; killall tail",
    );
    let said = vm.finish_with("killer", &end, |spec| {
        shares(spec);
        harness::inspect::privileged(spec);
    });
    assert_eq!(said.stdout(), "CapEff:\t0000000000000000\n", "an empty root, no rights: {said:?}");
    assert_eq!(db.wait(), 143, "a signal in a shared namespace does what it says");
    let left = vm.finish_with("look", &Run::shell(names), shares);
    assert_eq!((has(left.stdout(), "sleep"), has(left.stdout(), "init")), (2, 1), "{left:?}");
    db.remove();
    let left = vm.finish_with("look", &Run::shell(names), shares);
    assert_eq!(has(left.stdout(), "sleep"), 1, "all of it goes, and nothing else: {left:?}");
    let own = vm.finish("own", &Run::shell(names));
    assert_eq!(has(own.stdout(), "sleep"), 0, "one of its own: {own:?}");
    assert_eq!(web.signal(15).map(|()| web.wait()).unwrap(), 143);
    web.remove();
    vm.shutdown();
}

/// Without one, a container that lists no pid namespace is refused: the guest's own is nobody's.
#[test]
fn the_guests_pids_are_not_shared() {
    let vm = Vm::boot(&VmConfig::default());
    let run = Run::shell("true");
    let err = vm.try_create("web", &run, |spec| unlist_namespace(spec, Kind::Pid)).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument);
    assert!(err.to_string().contains("linux.namespaces: pid is not listed"), "{err}");
    vm.shutdown();
}

/// With an init, the program is its child: the init reaps orphans, passes signals on and ends with the program's code.
#[test]
fn an_init_tends_the_program() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.finish("web", &Run::probe(["view"]).init()).facts();
    assert_ne!(view.get("pid"), "1");
    assert_eq!(view.get("ppid"), "1");
    assert_eq!((view.get("SigBlk"), view.get("CapEff")), ("0000000000000000", "00000000a80425fb"));
    assert_eq!(vm.finish("code", &Run::probe(["exit", "42"]).init()).code, 42);
    assert_eq!(vm.finish("signal", &Run::probe(["kill-self", "6"]).init()).code, 134);
    // A zombie that nobody reaps would stay in the list.
    let orphan = "(sleep 0.2 &); sleep 0.5; for p in /proc/[0-9]*; do cut -d' ' -f3 $p/stat; done";
    let states = vm.finish("orphans", &Run::shell(orphan).init());
    assert!(!states.stdout().contains('Z'), "{states:?}");
    for signal in [10, 15] {
        let caught = vm.start("caught", &Run::probe(["catch", &signal.to_string(), "7"]).init());
        caught.says("ready");
        caught.signal(signal).unwrap();
        assert_eq!(caught.wait(), 7, "signal {signal}");
        caught.remove();
    }
    let plain = vm.start("plain", &Run::busybox(["sleep", "1000"]).init());
    plain.signal(15).unwrap();
    assert_eq!(plain.wait(), 143, "the default action is the program's");
    plain.remove();
    let err = vm.create("missing", &Run::words(["/nothing"]).init());
    let started = vm.run("start", err.container().start()).unwrap_err();
    assert_eq!(started.code(), Code::NotFound, "{started}");
    err.remove();
    let bare = vm.finish_with("bare", &Run::probe(["exit", "9"]).init(), |spec| {
        spec.set_mounts(None);
        let mut linux = spec.linux().clone().unwrap();
        linux.set_masked_paths(None).set_readonly_paths(None);
        spec.set_linux(Some(linux));
    });
    assert_eq!(bare.code, 9, "without /proc: {bare:?}");
    vm.shutdown();
}

/// What a sandbox that cannot be created had begun with is gone: its end finds no process.
#[test]
fn a_sandbox_that_fails_leaves_no_shared_pids() {
    let config = VmConfig::default();
    let vm = Vm::boot_machine(&config.machine());
    let storages = vec![Storage { driver: "unheard-of".into(), ..Storage::default() }];
    let bad = SandboxConfig { shared_pid: true, storages, ..SandboxConfig::default() };
    vm.run("create", vm.sandbox().create(&bad)).expect_err("no such driver");
    vm.create_sandbox();
    vm.shutdown();
}
