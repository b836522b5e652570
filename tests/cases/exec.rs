//! More processes in a container, and what cannot be run at all.

use harness::{PATIENCE, Run, Vm, VmConfig};
use hyperstart::{Code, Error};

fn check(err: &Error, code: Code, text: &str) {
    assert!(err.code() == code && err.message().contains(text), "{:?}: {err}", err.code());
}

/// An exec is in all namespaces, the cgroup and the root of its container, and brings nothing of PID 1.
#[test]
fn exec_is_in_its_container() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let init = web.exec("init", &Run::probe(["find", "/proc/1/status", "Cap"]));
    assert!(
        init.finish().stdout().contains("CapEff:\t00000000a80425fb"),
        "its PID 1 is the container's"
    );
    let view = web.exec("view", &Run::probe(["view"]).env("A=b").cwd("/tmp")).finish().facts();
    let links = web.exec("links", &Run::probe(["namespaces-of", "1"])).finish();
    for (name, inode) in view.below("ns.") {
        assert!(links.stdout().contains(inode), "{name} {inode}: {}", links.stdout());
    }
    assert_eq!((view.get("cgroup"), view.get("cwd"), view.get("env.A")), ("0::/", "/tmp", "b"));
    assert_eq!((view.get("CapBnd"), view.get("CapInh")), ("00000000a80425fb", "0000000000000000"));
    assert_eq!(view.below("fd.").len(), 3, "{:?}", view.below("fd."));
    assert_eq!((view.get("oom_score_adj"), view.get("rlimit.NOFILE")), ("0", "1024:524288"));
    web.kill();
    web.remove();
    vm.shutdown();
}

/// An exec may be another user than its container.
#[test]
fn exec_has_a_user_of_its_own() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    let view = web.exec("alice", &Run::probe(["view"]).user("alice")).finish().facts();
    assert_eq!(
        (view.get("uid"), view.get("gid"), view.get("CapEff")),
        ("1000", "1001", "0000000000000000")
    );
    assert_eq!(web.exec("root", &Run::probe(["view"])).finish().facts().get("uid"), "0");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// What cannot be executed is a typed error on that call, as a container and as an exec, and all goes on.
#[test]
fn what_cannot_run_is_said_by_name() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    let cases = [
        (Run::words(["/nowhere"]), Code::NotFound, "exec \"/nowhere\": ENOENT"),
        (Run::words(["nowhere"]), Code::NotFound, "exec \"nowhere\": ENOENT"),
        (
            Run::words(["/not-executable"]),
            Code::PermissionDenied,
            "exec \"/not-executable\": EACCES",
        ),
        (Run::words(["/tmp"]), Code::PermissionDenied, "exec \"/tmp\": EACCES"),
        (Run::probe(["view"]).cwd("/nowhere"), Code::NotFound, "cwd \"/nowhere\": ENOENT"),
        (Run::probe(["view"]).user("nobody-here"), Code::NotFound, "nobody-here"),
        (Run::probe(["view"]).user("alice:no-such-group"), Code::NotFound, "no-such-group"),
    ];
    for (index, (run, code, text)) in cases.into_iter().enumerate() {
        check(&web.try_exec(&format!("exec-{index}"), &run).err().unwrap(), code, text);
        if text.starts_with("cwd") {
            continue; // a container's is made, see below
        }
        // A user may be found missing when the container is made, a binary when it is to run.
        let started = vm.try_create(&format!("web-{index}"), &run, |_| {}).and_then(|container| {
            let started = vm.run("start", container.start());
            vm.run("remove", container.remove(PATIENCE)).unwrap();
            started
        });
        let missed = format!("{text} is no error of a container's start");
        check(&started.expect_err(&missed), code, text);
    }
    assert_eq!(web.exec("fine", &Run::probe(["exit", "6"])).finish().code, 6);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A container's working directory is made if its image has none, as other runtimes do it.
#[test]
fn working_directory_of_a_container_is_made() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.finish("web", &Run::probe(["view"]).cwd("/new/directory")).facts();
    assert_eq!(view.get("cwd"), "/new/directory");
    vm.shutdown();
}

/// A binary without a path is found by PATH, as execvp(3) does it.
#[test]
fn binary_is_found_by_path() {
    let vm = Vm::boot(&VmConfig::default());
    assert_eq!(vm.finish("web", &Run::words(["probe", "exit", "3"])).code, 3);
    vm.shutdown();
}

/// Two hundred execs cost PID 1 nothing that stays; its heap's own rounding is a few pages.
#[test]
fn execs_leave_nothing_in_pid_1() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "600000"]));
    let run = |count: usize, round: &str| {
        for index in 0..count {
            assert_eq!(
                web.exec(&format!("{round}-{index}"), &Run::probe(["exit", "0"])).finish().code,
                0
            );
        }
        vm.init_memory()
    };
    let (before, after) = (run(40, "warm"), run(200, "cold"));
    // The inspector's own coming and going may show.
    assert!(
        after.number("descriptors") <= before.number("descriptors") + 2,
        "{before:?} {after:?}"
    );
    assert_eq!((before.number("threads"), after.number("threads")), (1, 1));
    assert!(after.number("Anonymous") <= before.number("Anonymous") + 32, "{before:?} {after:?}");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Orphans of an exec are reaped when they end, by their container's PID 1 or with it, and leave no zombie.
#[test]
fn orphans_are_reaped() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::shell("while true; do sleep 1; done"));
    for round in 0..3 {
        let parent = web.exec(
            &format!("parent-{round}"),
            &Run::shell("for i in 1 2 3 4; do (sleep 0.1 &) ; done"),
        );
        assert_eq!(parent.finish().code, 0);
    }
    web.kill();
    web.remove();
    vm.shutdown();
}
