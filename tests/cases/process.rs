//! How a process is scheduled and executed, seen from inside; what the kernel would pass over is an error.

use harness::edit::{push, put, put_in_process};
use harness::{Facts, Run, Running, Vm, VmConfig};
use hyperstart::Code;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The probe's `scheduling`, of a container with `value` at `pointer` of its spec.
fn scheduling(vm: &Vm, pointer: &str, value: Value) -> Facts {
    let run = Run::probe(["scheduling"]);
    vm.finish_with("web", &run, |spec| put(spec, pointer, value)).facts()
}

/// The same of an exec, with `value` at `pointer` of its process.
fn scheduling_of_exec(web: &Running<'_>, id: &str, pointer: &str, value: Value) -> Facts {
    let run = Run::probe(["scheduling"]);
    let exec = web.try_exec_with(id, &run, |process| put_in_process(process, pointer, value));
    exec.unwrap_or_else(|err| panic!("{err}")).finish().facts()
}

fn sleeping(vm: &Vm) -> Running<'_> {
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    web
}

/// The umask is the spec's, 022 where it says none, for the first process and for an exec.
#[test]
fn umask_is_the_specs() {
    let vm = Vm::boot(&VmConfig::default());
    assert_eq!(scheduling(&vm, "/process/user/umask", json!(0o077)).get("umask"), "0077");
    assert_eq!(scheduling(&vm, "/process/user/umask", json!(0)).get("umask"), "0000");
    assert_eq!(scheduling(&vm, "/annotations", json!({})).get("umask"), "0022", "not said");
    let web = sleeping(&vm);
    let umask = |id, value| scheduling_of_exec(&web, id, "/user/umask", value);
    assert_eq!(umask("said", json!(0o027)).get("umask"), "0027");
    assert_eq!(umask("not-said", Value::Null).get("umask"), "0022");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Each policy comes out as the kernel has it (`POLICY FLAGS NICE PRIORITY RUNTIME DEADLINE PERIOD`), under a user who
/// may not set it, and for an exec; a policy that the spec does not ask for is SCHED_OTHER.
#[test]
fn scheduler_is_the_specs() {
    let vm = Vm::boot(&VmConfig::default());
    let ms = 1_000_000;
    let policies = [
        (json!({ "policy": "SCHED_OTHER", "nice": -7 }), "0 0 -7 0 0 0 0"),
        (json!({ "policy": "SCHED_BATCH", "nice": 19 }), "3 0 19 0 0 0 0"),
        (json!({ "policy": "SCHED_IDLE" }), "5 0 0 0 0 0 0"),
        (json!({ "policy": "SCHED_RR", "priority": 1 }), "2 0 0 1 0 0 0"),
        (
            json!({ "policy": "SCHED_FIFO", "priority": 99, "flags": ["SCHED_RESET_ON_FORK"] }),
            "1 1 0 99 0 0 0",
        ),
        (
            json!({ "policy": "SCHED_DEADLINE", "runtime": 10 * ms, "deadline": 20 * ms, "period": 30 * ms }),
            "6 0 0 0 10000000 20000000 30000000",
        ),
    ];
    let run = Run::probe(["scheduling"]).user("1000:1000");
    for (scheduler, expected) in &policies {
        let change = |spec: &mut _| put(spec, "/process/scheduler", scheduler.clone());
        assert_eq!(fair(vm.finish_with("web", &run, change).facts().get("sched")), *expected);
    }
    assert_eq!(fair(vm.finish("web", &run).facts().get("sched")), "0 0 0 0 0 0 0", "not asked for");
    let web = sleeping(&vm);
    let (fifo, expected) = &policies[4];
    let facts = scheduling_of_exec(&web, "fifo", "/scheduler", fifo.clone());
    assert_eq!(facts.get("sched"), *expected);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Without its runtime: since 6.12 that of a fair policy is the kernel's own slice.
fn fair(sched: &str) -> String {
    match sched.split(' ').collect::<Vec<_>>()[..] {
        [policy @ ("0" | "3" | "5"), flags, nice, priority, _, deadline, period] => {
            [policy, flags, nice, priority, "0", deadline, period].join(" ")
        }
        _ => sched.to_owned(),
    }
}

/// A deadline that the machine cannot keep is refused by the kernel, and nothing is left of the container.
#[test]
fn scheduler_that_cannot_be_kept_is_refused() {
    let vm = Vm::boot(&VmConfig::default());
    let all = json!({ "policy": "SCHED_DEADLINE", "runtime": 30_000_000, "deadline": 30_000_000 });
    let created = vm.try_create("web", &Run::probe(["exit", "0"]), |spec| {
        put(spec, "/process/scheduler", all);
    });
    let err = created.expect_err("all of the only CPU");
    assert!(err.to_string().contains("process.scheduler: EBUSY"), "{err}");
    vm.shutdown();
}

/// The I/O priority is the spec's, class and level; the kernel's own where it says none.
#[test]
fn io_priority_is_the_specs() {
    let vm = Vm::boot(&VmConfig::default());
    for (class, level, expected) in [
        ("IOPRIO_CLASS_RT", 0, "1:0"),
        ("IOPRIO_CLASS_BE", 7, "2:7"),
        ("IOPRIO_CLASS_IDLE", 3, "3:3"),
    ] {
        let priority = json!({ "class": class, "priority": level });
        assert_eq!(scheduling(&vm, "/process/ioPriority", priority).get("ioprio"), expected);
    }
    let none = scheduling(&vm, "/annotations", json!({})).get("ioprio").to_owned();
    assert!(!["1:0", "2:7", "3:3"].contains(&none.as_str()), "{none}");
    vm.shutdown();
}

/// An exec runs on the CPUs that it asks for: `final` counts, `initial` alone stays. A CPU that is not there, or not
/// the container's, is an error that names it; PID 1 and the next process have all of them again.
#[test]
fn cpu_affinity_is_the_execs() {
    let vm = Vm::boot(&VmConfig { cpus: 3, ..VmConfig::default() });
    let web = sleeping(&vm);
    let affinity = |web: &Running<'_>, id: &str, initial: &str, last: &str| {
        let said = [("initial", initial), ("final", last)];
        let asked: serde_json::Map<String, Value> = said
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| (name.to_owned(), json!(list)))
            .collect();
        let run = Run::probe(["scheduling"]);
        let exec = web.try_exec_with(id, &run, |process| {
            put_in_process(process, "/execCPUAffinity", Value::Object(asked));
        });
        exec.map(|exec| exec.finish().facts().get("cpus").to_owned())
    };
    assert_eq!(affinity(&web, "both", "0", "1-2").unwrap(), "1-2");
    assert_eq!(affinity(&web, "initial", "1", "").unwrap(), "1");
    assert_eq!(affinity(&web, "final", "", "0,2").unwrap(), "0,2");
    assert_eq!(affinity(&web, "none", "", "").unwrap(), "0-2");
    for (id, initial, last, words) in [
        ("initial-5", "0,5", "", "process.execCPUAffinity.initial: CPU 5 "),
        ("initial-8191", "8191", "", "process.execCPUAffinity.initial: CPU 8191 "),
        ("final-3", "", "3", "process.execCPUAffinity.final: CPU 3 "),
        ("final-0-3", "", "0-3", "process.execCPUAffinity.final: CPU 3 "),
    ] {
        let err = affinity(&web, id, initial, last).expect_err(id);
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
        assert!(err.to_string().contains(words), "{err}");
    }
    assert_eq!(affinity(&web, "after", "", "").unwrap(), "0-2", "nothing of a failure stays");
    web.kill();
    web.remove();
    let narrow = vm.create_with("narrow", &Run::probe(["ignore-signals"]), |spec| {
        put(spec, "/linux/resources/cpu/cpus", json!("1"));
        put(spec, "/process/execCPUAffinity", json!({ "initial": "0", "final": "2" }));
    });
    let narrow = narrow.started();
    narrow.says("ready"); // not for a container's first process (OCI, "execCPUAffinity")
    assert_eq!(affinity(&narrow, "view", "", "").unwrap(), "1");
    let err = affinity(&narrow, "outside", "", "2").expect_err("not of its cpuset");
    assert!(err.to_string().contains("final: CPU 2 is not there, or not the container's"), "{err}");
    narrow.kill();
    narrow.remove();
    vm.shutdown();
}

/// LINUX32 is a 32-bit machine to every process of the container; LINUX and none are what the machine is.
#[test]
fn personality_is_the_specs() {
    let vm = Vm::boot(&VmConfig::default());
    let domain = |name: &str| scheduling(&vm, "/linux/personality", json!({ "domain": name }));
    assert_eq!(domain("LINUX").get("machine"), "x86_64");
    assert_eq!(domain("LINUX32").get("machine"), "i686");
    let run = Run::probe(["ignore-signals"]);
    let web = vm.create_with("web", &run, |spec| {
        put(spec, "/linux/personality", json!({ "domain": "LINUX32" }));
    });
    let web = web.started();
    web.says("ready");
    let exec = web.exec("view", &Run::probe(["scheduling"])).finish();
    assert_eq!(exec.facts().get("machine"), "i686", "of an exec too");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Memory comes from the nodes that the spec says, for an exec too; without a policy the kernel's own counts.
#[test]
fn memory_policy_is_the_specs() {
    let vm = Vm::boot(&VmConfig::default());
    let policy = |web: &Running<'_>, id: &str| {
        let exec = web.exec(id, &Run::probe(["find", "/proc/self/numa_maps", " "]));
        let maps = exec.finish().stdout().to_owned();
        let policies: BTreeSet<String> =
            maps.lines().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect();
        policies.into_iter().collect::<Vec<_>>().join(" ")
    };
    for (index, (asked, expected)) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (
            json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
            "prefer=static:0",
        ),
        (Value::Null, "default"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("web-{index}");
        let web = vm.create_with(&name, &Run::probe(["ignore-signals"]), |spec| {
            put(spec, "/linux/memoryPolicy", asked);
        });
        let web = web.started();
        web.says("ready");
        assert_eq!(policy(&web, "maps"), expected);
        web.kill();
        web.remove();
    }
    vm.shutdown();
}

/// The NIS domain name is the container's own; the guest's stays what it is.
#[test]
fn domainname_is_the_specs() {
    let vm = Vm::boot(&VmConfig::default());
    let own = vm.finish_with("web", &Run::probe(["scheduling"]), |spec| {
        push(spec, "/linux/namespaces", json!({ "type": "uts" }));
        put(spec, "/domainname", json!("example.org"));
    });
    let own = own.facts();
    assert_eq!(own.get("domainname"), "example.org");
    let other = scheduling(&vm, "/annotations", json!({}));
    assert_ne!(other.get("domainname"), "example.org", "the guest's");
    let shared = vm.try_create("web", &Run::probe(["scheduling"]), |spec| {
        put(spec, "/domainname", json!("example.org"));
    });
    let err = shared.expect_err("the sandbox's name is not the container's");
    assert!(err.to_string().contains("domainname: linux.namespaces lists no uts"), "{err}");
    vm.shutdown();
}
