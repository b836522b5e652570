//! Ways out through the guest's kernel: what it runs on its own, what it can be asked to do to the machine, and what
//! it runs out of.

use crate::escape::weakest;
use harness::{Facts, Mode, Run, Vm, VmConfig};
use oci_spec::runtime::{Capability, Spec};
use std::time::Duration;

const ENOSYS: &str = "38";
/// init_module, delete_module, finit_module; kexec_load, kexec_file_load; iopl, ioperm; add_key, request_key, keyctl;
/// userfaultfd.
const ABSENT: [&str; 11] =
    ["175", "176", "313", "246", "320", "172", "173", "248", "249", "250", "323"];

/// The kernel can be made to start a program (core_pattern, an agent of a cgroup): it finds none, since nothing of the
/// guest's tree but PID 1's sealed mount is seen from where kernel threads look.
fn the_kernel_starts_no_program(mode: Mode) {
    let vm = Vm::boot(&VmConfig { mode, ..VmConfig::default() });
    let script = "cd /proc/sys/kernel; crash() { sh -c 'ulimit -c unlimited; kill -SEGV $$' 2>/dev/null; sleep 1; }; \
                  for way in '/proc/%P/root/bin/busybox' '/bin/busybox' '/init'; do \
                      echo \"|$way touch /proc/%P/root/marked\" > core_pattern; crash; done; \
                  echo /plain > core_pattern; crash; echo core > core_pattern; cd /; ls -d marked plain 2>&1";
    let said = vm.finish_with("web", &Run::shell(script), |spec| weakest(spec, &[]));
    assert!(said.stdout().contains("marked: No such file"), "a program was started: {said:?}");
    assert!(said.stdout().lines().any(|line| line == "plain"), "nothing was dumped: {said:?}");
    vm.run("check", vm.sandbox().check()).unwrap();
    vm.shutdown();
}

#[test]
fn the_kernel_starts_no_program_of_a_containers() {
    the_kernel_starts_no_program(Mode::Initrd);
}

#[test]
fn the_kernel_starts_no_program_of_a_containers_with_dax() {
    the_kernel_starts_no_program(Mode::Dax);
}

/// Modules, another kernel, I/O ports, keys: the kernel is built without, so no capability gives them.
#[test]
fn what_the_kernel_lacks_no_capability_gives() {
    let vm = Vm::boot(&VmConfig::default());
    let all = [
        Capability::SysModule,
        Capability::SysBoot,
        Capability::SysRawio,
        Capability::SysAdmin,
        Capability::SysPtrace,
    ];
    let words: [&str; 13] = std::array::from_fn(|index| match index {
        0 => "call-numbers",
        12 => "39", // getpid: what is there answers
        _ => ABSENT[index - 1],
    });
    let calls = vm.finish_with("calls", &Run::probe(words), |spec| weakest(spec, &all)).facts();
    for number in ABSENT {
        assert_eq!(calls.get(&format!("call.{number}")), ENOSYS, "{number}");
    }
    assert_eq!(calls.get("call.39"), "ok");
    let script = "for path in /proc/sysrq-trigger /proc/kcore /proc/kallsyms /proc/config.gz /sys/kernel/uevent_helper \
                  /sys/power/state /sys/kernel/debug /sys/kernel/kexec_loaded /proc/sys/fs/binfmt_misc/register \
                  /proc/version; do test -e $path && echo $path; done; true";
    let there = vm.finish_with("files", &Run::shell(script), |spec| weakest(spec, &all));
    assert_eq!(there.stdout(), "/proc/version\n");
    vm.shutdown();
}

/// reboot(2) in a container ends the container.
#[test]
fn a_reboot_ends_the_container_alone() {
    let vm = Vm::boot(&VmConfig::default());
    let reboot =
        |capabilities: &'static [Capability]| move |spec: &mut Spec| weakest(spec, capabilities);
    let run = Run::shell("reboot -f; echo still here");
    let ended = vm.finish_with("web", &run, reboot(&[Capability::SysBoot]));
    assert!(ended.code > 128 && ended.stdout().is_empty(), "{ended:?}");
    let refused = vm.finish_with("db", &run, reboot(&[]));
    assert_eq!(refused.stdout(), "still here\n", "{refused:?}");
    vm.shutdown();
}

/// A fork bomb, a process that opens all files, one that takes all memory, all without limits: PID 1 serves on, and can
/// end them.
#[test]
fn exhaustion_does_not_reach_pid_1() {
    let vm = Vm::boot(&VmConfig::default());
    let serves = |what: &str| {
        vm.run(what, vm.sandbox().check()).unwrap_or_else(|err| panic!("{what}: {err}"));
        assert_eq!(vm.finish("after", &Run::probe(["exit", "3"])).code, 3, "after {what}");
    };
    let weak = |spec: &mut Spec| weakest(spec, &[]);

    let files = vm.create_with("files", &Run::probe(["hold-files", "20000"]), weak);
    vm.run("start", files.container().start()).unwrap();
    let mut more = Vec::new();
    for index in 0..3 {
        let held = files.exec(&format!("more{index}"), &Run::probe(["hold-files", "20000"]));
        held.says("held=20000 errno=0"); // more together than such a guest's own fs.file-max
        more.push(held);
    }
    serves("files");
    files.kill();
    drop(more);
    files.remove();
    serves("files, removed");

    let hog = vm.create_with("hog", &Run::probe(["allocate", "4096"]), weak);
    vm.run("start", hog.container().start()).unwrap();
    assert_eq!(hog.wait(), 137, "killed by the kernel for want of memory");
    hog.remove();
    serves("memory");

    let bomb =
        vm.create_with("bomb", &Run::shell("bomb() { bomb | bomb & }; bomb; sleep 1000"), weak);
    vm.run("start", bomb.container().start()).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    vm.run("a fork bomb", vm.sandbox().check()).unwrap();
    vm.run("kill", bomb.container().signal(9)).unwrap();
    bomb.remove();
    serves("a fork bomb");
    vm.shutdown();
}

/// Lies about devices reach PID 1's uevent socket only by CAP_NET_ADMIN, and then do nothing.
#[test]
fn false_uevents_are_harmless() {
    let vm = Vm::boot(&VmConfig::default());
    let spoof = |name: &str, capabilities: &[Capability]| -> Facts {
        let run = Run::probe(["spoof-uevents"]);
        vm.finish_with(name, &run, |spec| weakest(spec, capabilities)).facts()
    };
    let usual = spoof("usual", &[]);
    assert_eq!((usual.number("sockets"), usual.number("sent")), (1, 0), "{usual:?}");
    let admin = spoof("admin", &[Capability::NetAdmin]);
    assert!(admin.number("sent") > 0, "the lies do not arrive: {admin:?}");
    vm.run("check", vm.sandbox().check()).unwrap();
    let last = vm.run("list", vm.sandbox().list()).unwrap().last_event;
    let mut events = vm.sandbox().events(0);
    while events.last() < last {
        let event = vm.run("an event", events.next()).unwrap();
        assert!(!format!("{event:?}").contains("Device"), "a lie is told: {event:?}");
    }
    vm.shutdown();
}
