//! Exit codes, signals, and what is refused because it is not the time for it.

use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, ContainerId, Error};

fn check(err: &Error, code: Code, text: &str) {
    assert!(err.code() == code && err.message().contains(text), "{:?}: {err}", err.code());
}

/// A container's exit code is its process's own.
#[test]
fn exit_code_is_the_process_s() {
    let vm = Vm::boot(&VmConfig::default());
    for code in [0, 1, 7, 255] {
        let said = vm.finish(&format!("exit-{code}"), &Run::probe(["exit", &code.to_string()]));
        assert_eq!(said.code, code);
    }
    vm.shutdown();
}

/// Death by a signal is told as 128 + its number.
#[test]
fn death_by_signal_is_told() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    for (signal, code) in [(libc::SIGSEGV, 139), (libc::SIGABRT, 134), (libc::SIGUSR1, 138)] {
        let dies = Run::probe(["kill-self", &signal.to_string()]);
        assert_eq!(web.exec(&format!("dies-{signal}"), &dies).finish().code, code);
    }
    assert_eq!(web.kill(), 137);
    web.remove();
    vm.shutdown();
}

/// A process that handles SIGTERM gets it, as an init and as an exec, and ends as it likes.
#[test]
fn handled_signal_is_delivered() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["catch", "15", "3"]));
    web.says("ready");
    let exec = web.exec("exec", &Run::probe(["catch", "10", "4"]));
    exec.says("ready");
    exec.signal(libc::SIGUSR1).unwrap();
    assert_eq!(exec.finish().code, 4);
    vm.run("SIGTERM", web.container().signal(15)).unwrap();
    assert_eq!(web.finish().code, 3);
    web.remove();
    vm.shutdown();
}

/// SIGTERM to an init that has no handler for it kills it, though a namespace's PID 1 would not even notice.
#[test]
fn sigterm_kills_an_init_without_a_handler() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    vm.run("SIGTERM", web.container().signal(15)).unwrap();
    assert!([137, 143].contains(&web.wait()));
    web.remove();
    vm.shutdown();
}

/// SIGKILL to a container ends every process in it, also those that ignore all else.
#[test]
fn sigkill_ends_the_whole_container() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let exec = web.exec("exec", &Run::probe(["ignore-signals"]));
    exec.says("ready");
    exec.signal(libc::SIGTERM).unwrap();
    assert_eq!(web.exec("orphans", &Run::probe(["orphans", "5", "60000"])).finish().code, 0);
    assert_eq!((web.kill(), exec.wait()), (137, 137));
    web.remove();
    vm.shutdown();
}

/// Every waiter is told, also one that comes late, and one that waits on another connection.
#[test]
fn every_waiter_is_told() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["catch", "15", "9"]));
    web.says("ready");
    let other = vm.connect().container(web.container().id().clone());
    let both = async {
        let signal = async { web.container().signal(15).await };
        tokio::join!(web.container().wait(), other.wait(), signal)
    };
    let (first, second, signalled) = vm.run("two waiters", both);
    signalled.unwrap();
    assert_eq!((first.unwrap().code(), second.unwrap().code()), (9, 9));
    assert_eq!(web.wait(), 9, "a late one");
    web.remove();
    vm.shutdown();
}

/// A signal to what is dead says so, in the words that Kata's runtimes look for.
#[test]
fn signal_to_the_dead_is_not_found() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["exit", "0"]));
    web.wait();
    check(&web.signal(libc::SIGTERM).unwrap_err(), Code::NotFound, "ESRCH: No such process");
    let killed = vm.run("SIGKILL", web.container().signal(9));
    assert!(killed.is_ok() || killed.is_err_and(|err| err.code() == Code::NotFound));
    web.remove();
    vm.shutdown();
}

/// A number that is no signal is refused, and harms nobody.
#[test]
fn signal_must_be_one() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    for number in [65, 99, u32::MAX] {
        let refused = vm.run("signal", web.container().signal(number)).unwrap_err();
        check(&refused, Code::InvalidArgument, "");
    }
    web.kill();
    web.remove();
    vm.shutdown();
}

/// What is unknown is said to be, by its name.
#[test]
fn unknown_ids_are_not_found() {
    let vm = Vm::boot(&VmConfig::default());
    let nobody = vm.sandbox().container(ContainerId::new("nobody").unwrap());
    check(&vm.run("start", nobody.start()).unwrap_err(), Code::NotFound, "nobody");
    check(&vm.run("wait", nobody.wait()).unwrap_err(), Code::NotFound, "nobody");
    check(&vm.run("signal", nobody.signal(9)).unwrap_err(), Code::NotFound, "nobody");
    let removed = vm.run("remove", nobody.remove(std::time::Duration::from_secs(1)));
    check(&removed.unwrap_err(), Code::NotFound, "nobody");
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    let ghost = web.container().exec_process(hyperstart::ExecId::new("ghost").unwrap());
    check(&vm.run("wait", ghost.wait()).unwrap_err(), Code::NotFound, "process not found");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// An id is taken until its container is removed, and free again after.
#[test]
fn id_is_taken_until_removed() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    let again = vm.try_create("web", &Run::probe(["exit", "0"]), |_| {});
    check(&again.err().unwrap(), Code::AlreadyExists, "");
    let exec = web.exec("job", &Run::probe(["sleep", "60000"]));
    let again = web.try_exec("job", &Run::probe(["exit", "0"]));
    check(&again.err().unwrap(), Code::AlreadyExists, "");
    exec.signal(9).unwrap();
    exec.wait();
    web.kill();
    web.remove();
    assert_eq!(vm.finish("web", &Run::probe(["exit", "4"])).code, 4);
    vm.shutdown();
}

/// A container starts once; a stopped one runs nothing more.
#[test]
fn start_is_once_and_exec_needs_a_running_container() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.create("web", &Run::probe(["sleep", "60000"]));
    let early = web.try_exec("early", &Run::probe(["exit", "0"]));
    assert_eq!(early.err().unwrap().code(), Code::FailedPrecondition, "it was not started yet");
    vm.run("start", web.container().start()).unwrap();
    let again = vm.run("start again", web.container().start());
    assert_eq!(again.unwrap_err().code(), Code::FailedPrecondition);
    web.kill();
    let late = web.try_exec("late", &Run::probe(["exit", "0"]));
    assert_eq!(late.err().unwrap().code(), Code::FailedPrecondition, "it has stopped");
    web.remove();
    vm.shutdown();
}

/// A container that was never started can be removed, and one that runs is killed by it.
#[test]
fn remove_works_in_every_state() {
    let vm = Vm::boot(&VmConfig::default());
    vm.create("created", &Run::probe(["exit", "0"])).remove();
    let running = vm.start("running", &Run::probe(["ignore-signals"]));
    running.says("ready");
    running.remove();
    vm.shutdown();
}

/// DestroySandbox ends what still runs and powers the guest off.
#[test]
fn destroy_ends_what_still_runs() {
    let mut vm = Vm::boot(&VmConfig::default());
    vm.start("web", &Run::probe(["ignore-signals"])).says("ready");
    vm.power_off();
}

/// What a container writes to memory that it may not have is killed, and told by the container's name.
#[test]
fn out_of_memory_is_told() {
    use oci_spec::runtime::{LinuxMemoryBuilder, LinuxResourcesBuilder};
    let vm = Vm::boot(&VmConfig::default());
    let hungry = vm.create_with("hungry", &Run::probe(["allocate", "100"]), |spec| {
        let memory = LinuxMemoryBuilder::default().limit(16 << 20).build().unwrap();
        let mut linux = spec.linux().clone().unwrap();
        linux.set_resources(Some(LinuxResourcesBuilder::default().memory(memory).build().unwrap()));
        spec.set_linux(Some(linux));
    });
    vm.run("start", hungry.container().start()).unwrap();
    let killed = vm.run("an OOM kill", vm.sandbox().next_oom()).unwrap();
    assert_eq!(killed.as_str(), "hungry");
    assert_eq!(hungry.finish().code, 137);
    hungry.remove();
    assert_eq!(vm.view("web").get("pid"), "1", "others go on");
    vm.shutdown();
}
