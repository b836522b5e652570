//! A container that cannot be is undone: whatever step of its making fails, the guest is as it was before.

use harness::edit::{push, put, put_in_process};
use harness::{PATIENCE, Run, Vm, VmConfig};
use hyperstart::Storage;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use std::time::Instant;

/// One step of `create` that is made to fail: what is asked for, and what the error must say.
struct Failure {
    run: Run,
    change: Box<dyn Fn(&mut Spec)>,
    words: &'static str,
}

fn failure(pointer: &'static str, value: Value, words: &'static str) -> Failure {
    changed(move |spec| put(spec, pointer, value.clone()), words)
}

fn changed(change: impl Fn(&mut Spec) + 'static, words: &'static str) -> Failure {
    Failure { run: Run::probe(["exit", "0"]), change: Box::new(change), words }
}

fn mounted(mount: Value, words: &'static str) -> Failure {
    changed(move |spec| push(spec, "/mounts", mount.clone()), words)
}

/// The steps in the order in which a container is made (`Sandbox::create_container`, `Container::create`, `child.rs`).
fn failures() -> Vec<Failure> {
    let missing = Storage {
        driver: "9p".into(),
        source: "no-such-tag".into(),
        fstype: "9p".into(),
        options: vec!["trans=virtio".into()],
        mount_point: "/run/missing".into(),
        ..Storage::default()
    };
    let unified = |file: &str, value: &str| json!({ file: value });
    vec![
        // The storages, with those before it mounted.
        Failure {
            run: Run::probe(["exit", "0"]).storage(missing),
            ..changed(|_| {}, "no-such-tag")
        },
        // The cgroup: itself below new parents, and its limits.
        failure("/linux/cgroupsPath", json!("/new/deep/memory.max"), "make cgroup"),
        failure("/linux/resources/unified", unified("memory.high", "much"), "set memory.high"),
        failure("/linux/resources/unified", unified("rdma.max", "x"), "rdma"),
        failure("/linux/resources/cpu/cpus", json!("60"), "cpuset.cpus"),
        // The limits of disks, by a child of PID 1's.
        failure("/linux/resources/unified", unified("io.max", "99:9 rbps=1"), "set io.max"),
        // The clone, into a cgroup that has no room for it.
        failure("/linux/resources/unified", unified("pids.max", "0"), "clone"),
        // In the child, from its first step to its last. Too little memory for any of it.
        failure("/linux/resources/memory/limit", json!(4096), "memory.limit is too small"),
        failure("/linux/sysctl", json!({ "kernel.shmmax": "much" }), "sysctl"),
        failure("/root/path", json!("/run/no-such-root"), "\"/run/no-such-root\""),
        mounted(
            json!({ "destination": "/m", "type": "bind", "source": "/run/none", "options": ["bind"] }),
            "bind \"/run/none\"",
        ),
        mounted(
            json!({ "destination": "/m", "type": "tmpfs", "source": "t", "options": ["size=much"] }),
            "mount tmpfs on \"/m\"",
        ),
        mounted(
            json!({ "destination": "/probe/below-a-file", "type": "tmpfs", "source": "t" }),
            "mount tmpfs on \"/probe/below-a-file\"",
        ),
        failure(
            "/linux/devices",
            json!([{ "path": "/dev/pts", "type": "c", "major": 1, "minor": 3 }]),
            "make device \"/dev/pts\"",
        ),
        Failure {
            run: Run::probe(["exit", "0"]).terminal(),
            ..mounted(
                json!({ "destination": "/dev/pts", "type": "tmpfs", "source": "t" }),
                "open a terminal",
            )
        },
        Failure {
            run: Run::probe(["exit", "0"]).cwd("/probe/below-a-file"),
            ..changed(|_| {}, "cwd")
        },
        failure("/linux/readonlyPaths", json!([format!("/{}", "x".repeat(300))]), "ENAMETOOLONG"),
        failure("/linux/maskedPaths", json!([format!("/{}", "x".repeat(300))]), "ENAMETOOLONG"),
        failure(
            "/hooks",
            json!({ "createContainer": [{ "path": "/no/such/hook" }] }),
            "hooks.createContainer[0]",
        ),
        // After pivot_root(2).
        Failure {
            run: Run::probe(["exit", "0"]).user("nobody-here"),
            ..changed(|_| {}, "nobody-here")
        },
        Failure {
            run: Run::probe(["exit", "0"]).cwd("/probe"),
            ..changed(|_| {}, "cwd \"/probe\"")
        },
        failure(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1_u64 << 40 }]),
            "RLIMIT_NOFILE",
        ),
        failure(
            "/process/scheduler",
            json!({ "policy": "SCHED_DEADLINE", "runtime": 9_000_000, "deadline": 9_000_000 }),
            "process.scheduler",
        ),
        failure(
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "3" }),
            "linux.memoryPolicy",
        ),
    ]
}

/// The lines that only one of two guests has.
fn difference<'a>(before: &'a [String], after: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let without = |these: &'a [String], those: &[String]| {
        let mut those = those.to_vec();
        let is_extra = |line: &&'a String| match those.iter().position(|other| other == *line) {
            Some(at) => {
                those.swap_remove(at);
                false
            }
            None => true,
        };
        these.iter().filter(is_extra).map(String::as_str).collect::<Vec<_>>()
    };
    (without(before, after), without(after, before))
}

/// What ends by itself may take a while to be gone: a child that was killed, the looker's own pipes.
#[track_caller]
fn assert_same(what: &str, before: &[String], vm: &Vm) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let after = vm.guest_state();
        let (gone, left) = difference(before, &after);
        if gone.is_empty() && left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: gone {gone:?}, left {left:?}");
    }
}

/// Each step of `create` that fails undoes every earlier one: processes, namespaces, mounts, cgroups, directories,
/// devices, and PID 1's descriptors are as before.
#[test]
fn create_that_fails_at_any_step_is_undone() {
    let vm = Vm::boot(&VmConfig::default());
    vm.guest_state(); // what the first look makes for good: directories of images
    let before = vm.guest_state();
    for Failure { run, change, words } in failures() {
        let err = vm.try_create("web", &run, |spec| change(spec)).expect_err(words);
        assert!(err.to_string().contains(words), "{words}: {err}");
        assert_same(words, &before, &vm);
    }
    assert_eq!(vm.finish("web", &Run::probe(["exit", "3"])).code, 3, "the id is free");
    assert_same("a container that ran", &before, &vm);
    vm.shutdown();
}

/// A start that fails leaves a stopped container; once that is removed, nothing is left either.
#[test]
fn start_that_fails_leaves_nothing_to_its_removal() {
    let vm = Vm::boot(&VmConfig::default());
    vm.guest_state();
    let before = vm.guest_state();
    let hooks = json!({ "startContainer": [{ "path": "/probe", "args": ["probe", "exit", "9"] }] });
    let starts = [
        (Run::words(["/no/such/program"]), Value::Null, "/no/such/program"),
        (Run::words(["/not-executable"]), Value::Null, "EACCES"),
        (Run::probe(["exit", "0"]), hooks, "hooks.startContainer[0]"),
    ];
    for (run, hooks, words) in starts {
        let web = vm.create_with("web", &run, |spec| put(spec, "/hooks", hooks));
        let err = vm.run("start", web.container().start()).expect_err(words);
        assert!(err.to_string().contains(words), "{words}: {err}");
        web.wait();
        web.remove();
        assert_same(words, &before, &vm);
    }
    vm.shutdown();
}

/// An exec that fails at any step leaves its container, and the guest, as they were.
#[test]
fn exec_that_fails_is_undone() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    vm.guest_state();
    let before = vm.guest_state();
    let probe = || Run::probe(["exit", "0"]);
    let none = ("", Value::Null);
    let rlimit = json!([{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1_u64 << 40 }]);
    let execs = [
        (probe(), ("/execCPUAffinity", json!({ "initial": "9" })), "execCPUAffinity.initial"),
        (probe(), ("/execCPUAffinity", json!({ "final": "9" })), "execCPUAffinity.final"),
        (probe().user("nobody-here"), none.clone(), "nobody-here"),
        (probe().cwd("/no/such/directory"), none.clone(), "cwd"),
        (probe(), ("/rlimits", rlimit), "RLIMIT_NOFILE"),
        (Run::words(["/no/such/program"]), none.clone(), "/no/such/program"),
        (Run::words(["/no/such/program"]).terminal(), none, "/no/such/program"),
    ];
    for (at, (run, (pointer, value), words)) in execs.into_iter().enumerate() {
        let exec = web.try_exec_with(&format!("exec-{at}"), &run, |process| {
            if !pointer.is_empty() {
                put_in_process(process, pointer, value);
            }
        });
        let err = exec.err().expect(words);
        assert!(err.to_string().contains(words), "{words}: {err}");
        assert_same(words, &before, &vm);
    }
    web.kill();
    web.remove();
    vm.shutdown();
}

/// The look at the guest sees each kind of thing that a container is made of: an unfinished undo would be found.
#[test]
fn what_a_container_is_made_of_is_seen() {
    let vm = Vm::boot(&VmConfig::default());
    vm.guest_state();
    let before = vm.guest_state();
    let web = vm.create("web", &Run::probe(["exit", "0"]));
    let (gone, more) = (before.clone(), vm.guest_state());
    let (gone, more) = difference(&gone, &more);
    for kind in ["process=", "cgroup=", "mount=", "run=", "fd=", "namespaces=mnt", "namespaces=pid"]
    {
        assert!(more.iter().any(|line| line.starts_with(kind)), "{kind} is not seen: {more:?}");
    }
    assert!(gone.iter().all(|line| line.starts_with("namespaces=")), "counts alone: {gone:?}");
    web.container();
    vm.run("start", web.container().start()).unwrap();
    web.wait();
    web.remove();
    assert_same("and is gone with it", &before, &vm);
    vm.shutdown();
}

/// Failing a hundred times costs PID 1 no memory that it would not give back.
#[test]
fn failing_again_and_again_costs_no_memory() {
    const ROUNDS: usize = 100;
    const GROWTH_MAX_KIB: u64 = 128; // one KiB a round, with some for the allocator's own
    let vm = Vm::boot(&VmConfig::default());
    let fail = |rounds: usize| {
        for _ in 0..rounds {
            let run = Run::probe(["exit", "0"]).user("nobody-here");
            vm.try_create("web", &run, |_| {}).expect_err("late, in the child");
            let early = vm.try_create("web", &Run::probe(["exit", "0"]), |spec| {
                put(spec, "/linux/resources/unified", json!({ "memory.high": "much" }));
            });
            early.expect_err("early, in PID 1");
        }
    };
    fail(20); // what is allocated once
    let before = vm.init_memory().number("Private_Dirty");
    fail(ROUNDS);
    let after = vm.init_memory().number("Private_Dirty");
    assert!(after <= before + GROWTH_MAX_KIB, "{before} KiB before, {after} KiB after");
    vm.shutdown();
}
