//! `linux.seccomp`: which system calls a container may make, seen from inside.

use harness::{Facts, Finished, PATIENCE, Run, Vm, VmConfig};
use hyperstart::{Code, ContainerId, spec};
use libc::{
    SYS_close, SYS_dup, SYS_fchdir, SYS_fchmod, SYS_fdatasync, SYS_fsync, SYS_getpid, SYS_getppid,
    SYS_lseek,
};
use oci_spec::runtime::{Capability, Spec};
use serde_json::{Value, json};

/// A process that was killed for a call: 128 + SIGSYS.
const KILLED: u8 = 128 + 31;

fn set_profile(spec: &mut Spec, profile: Value) {
    let mut linux = spec.linux().clone().unwrap();
    linux.set_seccomp(Some(serde_json::from_value(profile).unwrap()));
    spec.set_linux(Some(linux));
}

/// All is allowed but what the rules say.
fn but(rules: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })
}

fn of_getppid(action: &str) -> Value {
    but(json!([{ "names": ["getppid"], "action": action }]))
}

fn call(number: i64, arguments: &[u64]) -> String {
    let arguments: String = arguments.iter().map(|argument| format!(":{argument:x}")).collect();
    format!("{number}{arguments}")
}

fn finish(vm: &Vm, name: &str, run: &Run, profile: &Value) -> Finished {
    vm.finish_with(name, run, |spec| set_profile(spec, profile.clone()))
}

fn facts(vm: &Vm, name: &str, run: &Run, profile: &Value) -> Facts {
    finish(vm, name, run, profile).facts()
}

/// Every action does what seccomp(2) says of it, and to no other call than the one it is for.
#[test]
fn every_action_is_seen_from_inside() {
    let vm = Vm::boot(&VmConfig::default());
    let (getppid, getpid) = (call(SYS_getppid, &[]), call(SYS_getpid, &[]));
    let both = Run::probe(["calls", &getpid, &getppid]);
    let errno = but(json!([{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]));
    for (name, profile, expected) in [
        ("errno", errno, "errno:77"),
        ("eperm", of_getppid("SCMP_ACT_ERRNO"), "errno:1"),
        ("trace", of_getppid("SCMP_ACT_TRACE"), "errno:38"), // ENOSYS: nobody traces
        ("log", of_getppid("SCMP_ACT_LOG"), "0"),
        ("allow", of_getppid("SCMP_ACT_ALLOW"), "0"),
    ] {
        let said = facts(&vm, name, &both, &profile);
        assert_eq!((said.get("call.0"), said.get("call.1")), ("1", expected), "{name}");
    }
    for name in ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"] {
        let profile = of_getppid(&format!("SCMP_ACT_{name}"));
        let said = finish(&vm, &name.replace('_', "-"), &both, &profile);
        assert_eq!((said.code, said.stdout()), (KILLED, "call.0=1\n"), "{name}");
    }
    vm.shutdown();
}

/// A trap is a signal that can be caught; of a process with two threads the one is killed, or both.
#[test]
fn traps_are_caught_and_threads_are_killed_one_by_one() {
    let vm = Vm::boot(&VmConfig::default());
    let getppid = call(SYS_getppid, &[]);
    let trapped = Run::probe(["call-trapped", &getppid]);
    let in_thread = Run::probe(["call-in-thread", &getppid]);
    let trap = facts(&vm, "trap", &trapped, &of_getppid("SCMP_ACT_TRAP"));
    assert_eq!(trap.get("caught"), "31");
    assert_eq!(facts(&vm, "log", &trapped, &of_getppid("SCMP_ACT_LOG")).get("caught"), "0");
    let one = facts(&vm, "one", &in_thread, &of_getppid("SCMP_ACT_KILL_THREAD"));
    assert_eq!(one.get("threads"), "1");
    assert_eq!(facts(&vm, "none", &in_thread, &of_getppid("SCMP_ACT_LOG")).get("threads"), "2");
    assert_eq!(finish(&vm, "all", &in_thread, &of_getppid("SCMP_ACT_KILL_PROCESS")).code, KILLED);
    vm.shutdown();
}

/// The operators compare all 64 bits. Below, at and above the value: what a rule does not match is EBADF, as ever.
#[test]
fn operators_compare_both_words() {
    const VALUE: u64 = 5 << 32 | 0x7fff_fff0;
    let calls = [SYS_close, SYS_dup, SYS_fsync, SYS_fdatasync, SYS_fchdir, SYS_fchmod, SYS_lseek];
    let cases = [
        ("close", "SCMP_CMP_NE", "11011"),
        ("dup", "SCMP_CMP_LT", "11000"),
        ("fsync", "SCMP_CMP_LE", "11100"),
        ("fdatasync", "SCMP_CMP_EQ", "00100"),
        ("fchdir", "SCMP_CMP_GE", "00111"),
        ("fchmod", "SCMP_CMP_GT", "00011"),
        ("lseek", "SCMP_CMP_MASKED_EQ", "01110"), // bits of the high word alone
    ];
    let values = [VALUE - (1 << 32), VALUE - 1, VALUE, VALUE + 1, VALUE + (1 << 32)];
    let rules: Vec<Value> = cases
        .iter()
        .map(|(name, op, _)| {
            let masked = op.ends_with("MASKED_EQ");
            let value = if masked { 0xf << 32 } else { VALUE };
            let argument = json!({ "index": 0, "op": op, "value": value, "valueTwo": VALUE });
            json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": [argument] })
        })
        .collect();
    let calls: Vec<String> =
        calls.iter().flat_map(|number| values.map(|value| call(*number, &[value]))).collect();
    let vm = Vm::boot(&VmConfig::default());
    let said = facts(&vm, "web", &Run::probe(["calls"]).args(&calls), &but(json!(rules)));
    let matched = |index: usize| match said.get(&format!("call.{index}")) {
        "errno:99" => '1',
        "errno:9" => '0',
        other => panic!("{}: {other}", calls[index]),
    };
    for (at, (name, op, expected)) in cases.into_iter().enumerate() {
        let got: String =
            (0..values.len()).map(|value| matched(at * values.len() + value)).collect();
        assert_eq!(got, expected, "{name} {op}");
    }
    vm.shutdown();
}

/// Conditions of one rule are ANDed, rules of one call are ORed, and a name that is none is passed over.
#[test]
fn conditions_are_anded_and_rules_are_ored() {
    let eq =
        |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let rule = |args: Value| {
        let names = ["no_such_call", "lseek"];
        json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": args })
    };
    let rules = json!([
        rule(json!([eq(0, 500), eq(1, 1)])),
        rule(json!([eq(0, 600)])),
        rule(json!([eq(1, 7), eq(1, 8)]))
    ]);
    let cases = [
        ([500, 1], "errno:99"),
        ([500, 2], "errno:9"),
        ([501, 1], "errno:9"),
        ([600, 3], "errno:99"),
        ([700, 7], "errno:99"), // one argument twice is a rule each
        ([700, 8], "errno:99"),
        ([700, 9], "errno:9"),
    ];
    let calls: Vec<String> = cases.iter().map(|(args, _)| call(SYS_lseek, args)).collect();
    let vm = Vm::boot(&VmConfig::default());
    let said = facts(&vm, "web", &Run::probe(["calls"]).args(&calls), &but(rules));
    for (index, (arguments, expected)) in cases.iter().enumerate() {
        assert_eq!(said.get(&format!("call.{index}")), *expected, "{arguments:?}");
    }
    vm.shutdown();
}

/// What joins a container is under its filter, whoever it is; a container beside it is not.
#[test]
fn an_exec_is_under_its_containers_filter() {
    let vm = Vm::boot(&VmConfig::default());
    let sleep = Run::probe(["sleep", "60000"]);
    let profile = of_getppid("SCMP_ACT_ERRNO");
    let web = vm.create_with("web", &sleep, |spec| set_profile(spec, profile)).started();
    let getppid = call(SYS_getppid, &[]);
    for user in ["0", "1000:1000"] {
        let name = user.replace(':', "-");
        let said = web.exec(&format!("call-{name}"), &Run::probe(["calls", &getppid]).user(user));
        assert_eq!(said.finish().facts().get("call.0"), "errno:1", "{user}");
        let view = web.exec(&format!("view-{name}"), &Run::probe(["view"]).user(user)).finish();
        let view = view.facts();
        assert_eq!((view.get("Seccomp"), view.get("Seccomp_filters")), ("2", "1"), "{user}");
    }
    let free = vm.finish_with("db", &Run::probe(["view"]), unconfined).facts();
    assert_eq!((free.get("Seccomp"), free.get("Seccomp_filters")), ("0", "0"));
    web.kill();
    web.remove();
    vm.shutdown();
}

fn unconfined(spec: &mut Spec) {
    let mut linux = spec.linux().clone().unwrap();
    linux.set_seccomp(None);
    spec.set_linux(Some(linux));
}

/// The filter is the last of a set-up, so a profile need not know what a runtime does: of all the calls it takes to
/// become a user without privileges none is allowed here. With no_new_privs or without, and no capability is left over.
#[test]
fn a_filter_may_refuse_all_that_set_up_needs() {
    let names = [
        "capset",
        "prctl",
        "setgroups",
        "setresuid",
        "setresgid",
        "setuid",
        "setgid",
        "umask",
        "chdir",
        "fchdir",
        "sendmsg",
        "sendto",
        "recvmsg",
        "recvfrom",
        "mount",
        "pivot_root",
        "setns",
        "unshare",
        "openat2",
        "fchown",
        "setsid",
        "close_range",
        "seccomp",
    ];
    let profile = but(json!([{ "names": names, "action": "SCMP_ACT_KILL_PROCESS" }]));
    let vm = Vm::boot(&VmConfig::default());
    for (user, no_new_privileges, capabilities) in [
        ("0", false, "00000000a80425fb"),
        ("0", true, "00000000a80425fb"),
        ("1000:1000", false, "0000000000000000"),
        ("1000:1000", true, "0000000000000000"),
    ] {
        let name = format!("web-{}-{no_new_privileges}", user.replace(':', "-"));
        let run = Run::probe(["find", "/proc/self/status", ":"]).user(user);
        let said = vm.finish_with(&name, &run, |spec| {
            let mut process = spec.process().clone().unwrap();
            process.set_no_new_privileges(Some(no_new_privileges));
            spec.set_process(Some(process));
            set_profile(spec, profile.clone());
        });
        let has = |line: &str| said.stdout().contains(line);
        assert!(has("Seccomp:\t2\n") && has("Seccomp_filters:\t1\n"), "{name}: {said:?}");
        let flag = u8::from(no_new_privileges);
        assert!(has(&format!("NoNewPrivs:\t{flag}\n")), "{name}: {said:?}");
        for set in ["CapPrm", "CapEff"] {
            assert!(has(&format!("{set}:\t{capabilities}\n")), "{name}: {said:?}");
        }
    }
    vm.shutdown();
}

/// A profile that does not allow to execute, or not even to exit, ends its container and hangs nobody.
#[test]
fn a_profile_that_allows_nothing_ends_its_container() {
    let vm = Vm::boot(&VmConfig::default());
    let no_exec = but(json!([{ "names": ["execve"], "action": "SCMP_ACT_ERRNO" }]));
    let created = vm.try_create("no-exec", &Run::probe(["exit", "0"]), |spec| {
        set_profile(spec, no_exec);
    });
    let container = created.unwrap();
    let err = vm.run("start", container.start()).unwrap_err();
    assert!(err.code() == Code::PermissionDenied && err.message().contains("EPERM"), "{err}");
    vm.run("remove", container.remove(PATIENCE)).unwrap();
    let killed = json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" });
    assert_eq!(finish(&vm, "killed", &Run::probe(["exit", "0"]), &killed).code, KILLED);
    vm.shutdown();
}

/// Nor one that does not even allow to exit: a fault takes no call.
#[test]
fn a_profile_that_refuses_to_exit_hangs_nobody() {
    let vm = Vm::boot(&VmConfig::default());
    let stuck = json!({ "defaultAction": "SCMP_ACT_ERRNO" });
    let said = finish(&vm, "stuck", &Run::probe(["exit", "0"]), &stuck);
    assert!(said.code > 128, "{said:?}");
    vm.kill(); // the fault is in the kernel's log, which shutdown() would not have
}

/// Flags are the kernel's to know; what cannot be honoured is refused by name and what is wrong by its field.
#[test]
fn flags_are_set_and_the_rest_is_refused_by_name() {
    let vm = Vm::boot(&VmConfig::default());
    let getppid = call(SYS_getppid, &[]);
    let mut profile = of_getppid("SCMP_ACT_ERRNO");
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    profile["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
    ]);
    let said = facts(&vm, "flags", &Run::probe(["calls", &getppid]), &profile);
    assert_eq!(said.get("call.0"), "errno:1");
    let five = json!([{ "index": 0, "value": 5, "op": "SCMP_CMP_EQ" }]);
    let conflict = but(json!([
        { "names": ["read"], "action": "SCMP_ACT_TRAP", "args": five },
        { "names": ["read"], "action": "SCMP_ACT_LOG", "args": five },
    ]));
    let many: Vec<Value> = (0..1100)
        .map(|value| {
            let args = [json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" })];
            json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": args })
        })
        .collect();
    let waiting = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    });
    for (at, (profile, code, text)) in [
        (of_getppid("SCMP_ACT_NOTIFY"), Code::Unimplemented, "syscalls[0].action: SCMP_ACT_NOTIFY"),
        (waiting, Code::Unimplemented, "linux.seccomp.flags"),
        (conflict, Code::InvalidArgument, "\"read\" has two actions"),
        (but(json!(many)), Code::ResourceExhausted, "4096 instructions"),
    ]
    .into_iter()
    .enumerate()
    {
        let created = vm.try_create(&format!("wrong-{at}"), &Run::probe(["exit", "0"]), |spec| {
            set_profile(spec, profile.clone());
        });
        let err = created.expect_err(text);
        assert!(err.code() == code && err.message().contains(text), "{err}");
    }
    vm.shutdown();
}

/// AF_VSOCK and SOCK_STREAM of socket(2).
const VSOCK: [u64; 2] = [40, 1];
const CLONE_NEWUSER: u64 = 0x1000_0000;

/// The default profile refuses what reaches the agent, the kernel as a whole, or namespaces; unconfined, each of these
/// calls comes as far as its own arguments.
#[test]
fn default_profile_refuses_what_unconfined_allows() {
    let cases = [
        (call(libc::SYS_socket, &VSOCK), "errno:1", None),
        (call(libc::SYS_socket, &[1 << 32 | 40, 1]), "errno:1", None), // the kernel looks at 32 bits
        (call(libc::SYS_keyctl, &[u64::MAX]), "errno:1", Some("errno:38")), // this kernel has no keys
        (call(libc::SYS_perf_event_open, &[]), "errno:1", None),
        (call(libc::SYS_userfaultfd, &[u64::MAX]), "errno:1", None),
        (call(libc::SYS_io_uring_setup, &[]), "errno:1", None),
        (call(libc::SYS_clone3, &[]), "errno:38", Some("errno:22")),
        (call(libc::SYS_clone, &[CLONE_NEWUSER | 1 << 16]), "errno:1", Some("errno:22")),
        (call(libc::SYS_unshare, &[u64::MAX]), "errno:1", Some("errno:22")),
        (call(libc::SYS_personality, &[0x40_0000]), "errno:1", Some("0")),
        (call(999, &[]), "errno:38", Some("errno:38")), // no call at all
    ];
    let allowed = [
        (call(libc::SYS_socket, &[1, 1]), "3"),
        (call(libc::SYS_personality, &[0xffff_ffff]), "0"),
        (call(libc::SYS_getppid, &[]), "0"),
    ];
    let calls: Vec<String> = allowed
        .iter()
        .map(|(call, _)| call)
        .chain(cases.iter().map(|(call, ..)| call))
        .cloned()
        .collect();
    let run = Run::probe(["calls"]).args(&calls);
    let vm = Vm::boot(&VmConfig::default());
    let confined = vm.finish("web", &run).facts();
    let free = vm.finish_with("free", &run, unconfined).facts();
    for (index, (call, expected)) in allowed.iter().enumerate() {
        for said in [&confined, &free] {
            assert_eq!(said.get(&format!("call.{index}")), *expected, "{call}");
        }
    }
    for (index, (call, expected, otherwise)) in cases.iter().enumerate() {
        let name = format!("call.{}", allowed.len() + index);
        assert_eq!(confined.get(&name), *expected, "{call}");
        match otherwise {
            Some(otherwise) => assert_eq!(free.get(&name), *otherwise, "{call} unconfined"),
            None => assert_ne!(free.get(&name), "errno:1", "{call} unconfined"),
        }
    }
    vm.shutdown();
}

/// The default profile goes by the capabilities: with CAP_SYS_ADMIN mount(2) comes as far as its arguments, and there
/// are namespaces, but still no way to the agent.
#[test]
fn default_profile_follows_the_capabilities() {
    let calls = [
        call(libc::SYS_mount, &[]),
        call(libc::SYS_clone3, &[]),
        call(libc::SYS_unshare, &[u64::MAX]),
        call(libc::SYS_socket, &VSOCK),
        call(libc::SYS_keyctl, &[u64::MAX]),
    ];
    let run = Run::probe(["calls"]).args(&calls);
    let vm = Vm::boot(&VmConfig::default());
    for (name, capability, expected) in [
        ("without", None, ["1", "38", "1", "1", "1"]),
        ("with", Some(Capability::SysAdmin), ["14", "22", "22", "1", "1"]), // EFAULT, EINVAL
    ] {
        let said = vm.finish_with(name, &run, |spec| {
            let mut process = spec.process().clone().unwrap();
            let mut sets = process.capabilities().clone().unwrap();
            let mut bounding = sets.bounding().clone().unwrap();
            bounding.extend(capability);
            sets.set_effective(Some(bounding.clone()))
                .set_permitted(Some(bounding.clone()))
                .set_bounding(Some(bounding));
            process.set_capabilities(Some(sets));
            let id = ContainerId::new(name).unwrap();
            let profile = spec::default_spec(&id, process.clone());
            let mut linux = spec.linux().clone().unwrap();
            linux.set_seccomp(profile.linux().as_ref().unwrap().seccomp().clone());
            spec.set_linux(Some(linux)).set_process(Some(process));
        });
        let said = said.facts();
        for (index, errno) in expected.into_iter().enumerate() {
            let got = said.get(&format!("call.{index}"));
            assert_eq!(got, format!("errno:{errno}"), "{name}: {}", calls[index]);
        }
    }
    vm.shutdown();
}
