//! Ways out through processes: those that the host starts in a container, and those that a container makes.

use crate::escape::{hash_of_init, weakest};
use harness::{Facts, PATIENCE, Run, Vm, VmConfig};
use hyperstart::Code;
use hyperstart::spec::map_ids;
use oci_spec::runtime::{
    Capability, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Process, Spec,
};
use std::collections::HashSet;

/// With a processor for the attacker and one for PID 1: they meet where they run at the same time.
fn boot() -> Vm {
    Vm::boot(&VmConfig { cpus: 2, ..VmConfig::default() })
}

fn edit_process(spec: &mut Spec, change: impl FnOnce(&mut Process)) {
    let mut process = spec.process().clone().unwrap();
    change(&mut process);
    spec.set_process(Some(process));
}

/// A number stays a number, though /etc/passwd has it for a name of root's; the name itself is looked up.
#[test]
fn cve_2016_3697_a_numeric_user_is_no_name() {
    let vm = boot();
    // The probe's image has `1000:x:0:0:...` in its /etc/passwd: see the harness.
    let passwd = vm.finish("passwd", &Run::probe(["find", "/etc/passwd", "1000:x:0:0"]));
    assert!(passwd.stdout().starts_with("1000:x:0:0:"), "the trap is not set: {passwd:?}");
    let numeric = vm.finish("numeric", &Run::probe(["view"]).user("1000")).facts();
    assert_eq!((numeric.get("uid"), numeric.get("gid")), ("1000", "0"));
    assert_eq!(numeric.get("CapEff"), "0000000000000000");
    let named = |spec: &mut Spec| {
        edit_process(spec, |process| {
            let mut user = process.user().clone();
            user.set_username(Some("1000".to_owned()));
            process.set_user(user);
        });
    };
    match vm.try_create("named", &Run::probe(["view"]), named) {
        // Whoever asks for the name gets it looked up or refused, and never the other's answer unseen.
        Ok(container) => {
            vm.run("remove", container.remove(PATIENCE)).unwrap();
        }
        Err(err) => assert_eq!(err.code(), Code::InvalidArgument, "{err}"),
    }
    vm.shutdown();
}

/// What a container that goes after every process it sees finds of 200 that the host starts in it.
fn chase_200_execs(vm: &Vm, chase: &Run, planted: bool, weak: impl FnOnce(&mut Spec)) -> Facts {
    let hunter = vm.create_with("web", chase, weak);
    vm.run("start", hunter.container().start()).unwrap();
    hunter.says("ready");
    let held = planted.then(|| {
        let held = hunter.exec("held", &Run::probe(["listen-abstract", "planted"]));
        held.says("ready");
        held
    });
    let executions = if planted { 5 } else { 200 };
    for index in 0..executions {
        assert_eq!(hunter.exec(&format!("e{index}"), &Run::probe(["exit", "7"])).wait(), 7);
    }
    let facts = hunter.finish().facts(); // its input ends: enough
    drop(held);
    hunter.remove();
    facts
}

/// Of 200 execs no descriptor of PID 1's, no program and no root of the guest's is ever seen, and none is traced before
/// it is the container's own.
#[test]
fn cve_2016_9962_execs_cannot_be_looked_into() {
    let vm = boot();
    let chase = Run::probe(["chase"]);
    let control = chase_200_execs(&vm, &chase, true, |spec| weakest(spec, &[]));
    assert!(control.find("fd.socket").is_some(), "the scan finds no planted socket: {control:?}");
    assert!(control.find("traced./probe").is_some(), "the chase traces nothing: {control:?}");
    let found = chase_200_execs(&vm, &chase, false, |spec| weakest(spec, &[]));
    assert_harmless(&found);
    vm.shutdown();
}

/// Nor by who has CAP_SYS_PTRACE in a user namespace: what comes from PID 1 is the guest's until its execve. Who has it
/// over the guest looks into everything, which SECURITY.md says.
#[test]
fn cve_2016_9962_a_user_namespaces_root_cannot_look_either() {
    const FIRST: u32 = 100_000;
    let vm = boot();
    let found = chase_200_execs(&vm, &Run::probe(["chase"]).ids(FIRST), false, |spec| {
        weakest(spec, &[Capability::SysPtrace]);
        map_ids(spec, FIRST);
    });
    assert_harmless(&found);
    let tracer = |spec: &mut Spec| weakest(spec, &[Capability::SysPtrace]);
    let found = chase_200_execs(&vm, &Run::probe(["chase"]), false, tracer);
    assert!(found.find("traced./init").is_some() && found.find("fd.socket").is_some(), "{found:?}");
    vm.shutdown();
}

fn assert_harmless(found: &Facts) {
    assert!(found.number("seen") > 20, "too few to tell: {found:?}");
    assert_eq!(found.find("guest-root"), None, "{found:?}");
    for (target, _) in found.below("fd.") {
        let own = target == "pipe" || target == "/dev/null" || target.starts_with("/proc/");
        assert!(own, "{target}: {found:?}");
    }
    for prefix in ["exe.", "traced.", "written."] {
        for (program, _) in found.below(prefix) {
            assert!(program == "/probe" && prefix != "written.", "{prefix}{program}: {found:?}");
        }
    }
}

/// Through a link to /proc/self/exe the host starts no program of the guest's, be it in a PATH or as an interpreter; and
/// nobody writes to the program that a process of the host's making came from.
#[test]
fn cve_2019_5736_the_guests_program_cannot_be_overwritten() {
    let vm = boot();
    let before = hash_of_init(&vm);
    let script = "ln -s /proc/self/exe /tmp/sh; printf '#!/proc/self/exe\\n' > /tmp/script; chmod 755 /tmp/script; \
                  echo ready; while :; do for exe in /proc/[0-9]*/exe; do \
                      case $(readlink $exe) in /bin/*|'') ;; *) echo found $(readlink $exe) >&2 ;; esac; \
                      { echo overwritten > $exe; } 2>/dev/null && echo written $exe >&2; done; \
                  test -e /tmp/enough && exit 0; done";
    let web = vm
        .create_with("web", &Run::shell(script), |spec| weakest(spec, &[Capability::DacOverride]));
    vm.run("start", web.container().start()).unwrap();
    web.says("ready");
    for (index, program) in
        ["/tmp/sh", "sh", "/tmp/script", "/proc/self/exe"].iter().cycle().take(20).enumerate()
    {
        let run = Run::busybox([program]).env("PATH=/tmp");
        let refused = web.try_exec(&format!("e{index}"), &run).err().map(|err| err.code());
        assert_eq!(refused, Some(Code::PermissionDenied), "{program}");
    }
    assert_eq!(web.exec("enough", &Run::busybox(["touch", "/tmp/enough"])).wait(), 0);
    let said = web.finish();
    assert_eq!((said.code, said.stderr()), (0, ""), "{said:?}");
    web.remove();
    assert_eq!(hash_of_init(&vm), before);
    vm.shutdown();
}

/// Ten thousand mappings are refused, for they are more than the kernel takes; never others than were asked for.
#[test]
fn cve_2021_43784_too_many_mappings_are_an_error() {
    let vm = boot();
    let mapped = |count: u32| {
        move |spec: &mut Spec| {
            let mappings: Vec<_> = (0..count)
                .map(|id| {
                    let map = LinuxIdMappingBuilder::default().container_id(id).host_id(id * 2);
                    map.size(1_u32).build().unwrap()
                })
                .collect();
            let mut linux = spec.linux().clone().unwrap();
            let user =
                LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User).build().unwrap();
            let mut namespaces = linux.namespaces().clone().unwrap();
            namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::User);
            namespaces.push(user);
            linux.set_namespaces(Some(namespaces));
            linux.set_uid_mappings(Some(mappings.clone())).set_gid_mappings(Some(mappings));
            spec.set_linux(Some(linux));
        }
    };
    let err = vm.try_create("many", &Run::probe(["view"]), mapped(10_000)).err().unwrap();
    let typed = [Code::InvalidArgument, Code::Unimplemented, Code::ResourceExhausted];
    assert!(typed.contains(&err.code()), "{err}");
    vm.shutdown();
}

/// A mebibyte of environment and arguments arrives whole or is refused, and is never cut.
#[test]
fn cve_2021_43784_long_environments_arrive_whole() {
    let vm = boot();
    let mut run = Run::probe(["view"]); // 1020 KiB
    for index in 0..15 {
        run = run.env(&format!("V{index}={}", "x".repeat(68 << 10)));
    }
    let view = vm.finish("long", &run).facts();
    let lengths: HashSet<usize> =
        (0..15).map(|index| view.get(&format!("env.V{index}")).len()).collect();
    assert_eq!(lengths, HashSet::from([68 << 10]));
    let more = run.env(&format!("V={}", "x".repeat(8 << 10)));
    let err = vm.try_create("more", &more, |_| {}).err().unwrap();
    assert!(err.message().contains("more than 1048576"), "{err}");
    // One string of more than 128 KiB is more than execve(2) takes (MAX_ARG_STRLEN).
    let run = Run::probe(["view"]).env(&format!("V={}", "x".repeat(256 << 10)));
    let web = vm.create("longer", &run);
    let err = vm.run("start", web.container().start()).unwrap_err();
    assert!(err.message().contains("E2BIG"), "{err}");
    web.remove();
    vm.shutdown();
}

/// Inheritable and ambient sets are as configured, for a container's first process and for later ones, and who is not
/// root has no effective capability by them.
#[test]
fn cve_2022_29162_27650_cve_2025_27612_inheritable_capabilities_are_as_configured() {
    const NONE: &str = "0000000000000000";
    let vm = boot();
    let inheritable = |set: &[Capability]| {
        let set: HashSet<Capability> = set.iter().copied().collect();
        move |process: &mut Process| {
            let mut sets = process.capabilities().clone().unwrap();
            sets.set_inheritable(Some(set));
            process.set_capabilities(Some(sets));
        }
    };
    let web = vm.create_with("web", &Run::probe(["sleep", "600000"]), |spec| weakest(spec, &[]));
    vm.run("start", web.container().start()).unwrap();
    for (name, user) in [("root", "0:0"), ("other", "1000:1000")] {
        let run = Run::probe(["view"]).user(user);
        let first = vm.finish(&format!("first-{name}"), &run).facts();
        let exec = web.exec(name, &run).finish().facts();
        for view in [first, exec] {
            assert_eq!((view.get("CapInh"), view.get("CapAmb")), (NONE, NONE), "{name}");
            assert_eq!(view.get("CapEff") == NONE, name == "other", "{name}");
        }
    }
    // What is configured is there: a set that is always empty would pass the above. kill is 5.
    let run = Run::probe(["view"]).user("1000:1000");
    let given = vm.finish_with("given", &run, |spec| {
        edit_process(spec, inheritable(&[Capability::Kill]));
    });
    assert_eq!(given.facts().get("CapInh"), "0000000000000020");
    assert_eq!(given.facts().get("CapEff"), NONE);
    web.kill();
    web.remove();
    vm.shutdown();
}
