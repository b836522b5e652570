//! Containers that are paused: they stand still, can be looked at and killed, and go on where they were.

use std::thread;
use std::time::Duration;

use harness::{Run, Running, Vm, VmConfig};
use hyperstart::{Code, ContainerId};
use hyperstart_protocol::guest::event::Kind;
use hyperstart_protocol::guest::{
    EventsRequest, EventsResponse, ListRequest, ListResponse, State as WireState,
};

/// Far longer than a busy loop needs to be seen at work.
const LOOK: Duration = Duration::from_millis(500);

fn boot() -> Vm {
    Vm::boot(&VmConfig::default())
}

fn pause(vm: &Vm, web: &Running<'_>) {
    vm.run("pause", web.container().pause()).unwrap_or_else(|err| panic!("{err}"));
}

fn resume(vm: &Vm, web: &Running<'_>) {
    vm.run("resume", web.container().resume()).unwrap_or_else(|err| panic!("{err}"));
}

fn state(vm: &Vm, id: &str) -> WireState {
    let request = ListRequest { container_id: id.into(), ..ListRequest::default() };
    let list: ListResponse = vm.guest("List", &request).unwrap();
    list.containers[0].state.unwrap()
}

fn cpu_used(vm: &Vm, web: &Running<'_>) -> Duration {
    vm.run("stats", web.container().stats()).unwrap().cpu.usage
}

/// A paused container's processes use no processor time, not even those that would always run; resumed they do.
#[test]
fn paused_processes_stand_still() {
    let vm = boot();
    let web = vm.start("web", &Run::shell("echo begun; while :; do :; done"));
    web.says("begun");
    assert_eq!(state(&vm, "web"), WireState::RUNNING);
    pause(&vm, &web);
    assert_eq!(state(&vm, "web"), WireState::PAUSED);
    let before = cpu_used(&vm, &web);
    thread::sleep(LOOK);
    let after = cpu_used(&vm, &web);
    assert_eq!(before, after, "it ran while it was paused");
    resume(&vm, &web);
    assert_eq!(state(&vm, "web"), WireState::RUNNING);
    while cpu_used(&vm, &web) < after + Duration::from_millis(20) {
        thread::sleep(Duration::from_millis(20)); // the test's deadline ends it
    }
    let request = EventsRequest { no_wait: true, ..EventsRequest::default() };
    let events: EventsResponse = vm.guest("Events", &request).unwrap();
    let kinds: Vec<Kind> = events.events.iter().map(|event| event.kind.unwrap()).collect();
    let (paused, resumed) = (Kind::CONTAINER_PAUSED, Kind::CONTAINER_RESUMED);
    assert_eq!(kinds, [Kind::CONTAINER_CREATED, Kind::CONTAINER_STARTED, paused, resumed]);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// What a paused container has written can be read; a signal waits until it is resumed; nothing is started in it.
#[test]
fn paused_container_can_be_looked_at_and_not_used() {
    let vm = boot();
    let web = vm.start(
        "web",
        &Run::shell(
            "trap 'echo caught; exit 7' USR1; echo one; echo two; while :; do sleep 0.1; done",
        ),
    );
    web.says("one");
    pause(&vm, &web);
    web.says("two");
    let err =
        web.try_exec("late", &Run::shell("true")).err().expect("an exec in a paused container");
    assert_eq!(err.code(), Code::FailedPrecondition, "{err}");
    assert!(err.to_string().contains("it is paused"), "{err}");
    web.signal(libc::SIGUSR1).unwrap();
    assert!(vm.run("stats", web.container().stats()).unwrap().pids.current > 0);
    assert_eq!(state(&vm, "web"), WireState::PAUSED, "a signal does not wake it");
    resume(&vm, &web);
    web.says("caught");
    assert_eq!(web.wait(), 7);
    web.remove();
    vm.shutdown();
}

/// SIGKILL ends a paused container and a paused exec; removal and the sandbox's end take paused ones along.
#[test]
fn paused_container_can_be_killed_and_removed() {
    let mut vm = boot();
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let exec = web.exec("exec", &Run::probe(["ignore-signals"]));
    exec.says("ready");
    pause(&vm, &web);
    exec.signal(libc::SIGKILL).unwrap();
    assert_eq!(exec.wait(), 137);
    assert_eq!(web.kill(), 137);
    let err = vm.run("resume", web.container().resume()).unwrap_err();
    assert!(err.to_string().contains("it has stopped"), "{err}");
    web.remove();
    for name in ["removed", "left"] {
        let web = vm.start(name, &Run::shell("echo begun; while :; do :; done"));
        web.says("begun");
        pause(&vm, &web);
        if name == "removed" {
            web.remove();
        }
    }
    vm.power_off();
}

/// To pause what does not run, or to resume what is not paused, is refused by its state; an unknown id is not found.
#[test]
fn pause_needs_a_running_container_and_resume_a_paused_one() {
    let vm = boot();
    let pause_error = |web: &Running<'_>| vm.run("pause", web.container().pause()).unwrap_err();
    let resume_error = |web: &Running<'_>| vm.run("resume", web.container().resume()).unwrap_err();
    let web = vm.create("web", &Run::probe(["ignore-signals"]));
    let created = [pause_error(&web), resume_error(&web)];
    let web = web.started();
    web.says("ready");
    let running = [resume_error(&web)];
    pause(&vm, &web);
    let paused = [pause_error(&web)];
    web.kill();
    let stopped = [pause_error(&web), resume_error(&web)];
    web.remove();
    for (errors, text) in [
        (&created[..], "it was not started"),
        (&running[..], "it is not paused"),
        (&paused[..], "it is paused"),
        (&stopped[..], "it has stopped"),
    ] {
        for err in errors {
            assert_eq!(err.code(), Code::FailedPrecondition, "{text}: {err}");
            assert!(err.to_string().contains(text), "{text}: {err}");
        }
    }
    let nobody = vm.sandbox().container(ContainerId::new("nobody").unwrap());
    let errors = [vm.run("pause", nobody.pause()), vm.run("resume", nobody.resume())];
    for err in errors.map(Result::unwrap_err) {
        assert!(err.code() == Code::NotFound && err.to_string().contains("not found"), "{err}");
    }
    vm.shutdown();
}
