//! What happens in a guest is told: once, in order, by number, to a client that comes back too.

use harness::edit::put;
use harness::raw::{REQUEST, frame, number_field, request};
use harness::{Run, Vm, VmConfig};
use hyperstart::{ContainerId, Event, Events, ExecId, Happened, NextEvent};
use hyperstart_vmm::MachineKind;
use serde_json::json;
use std::time::Duration;

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

fn next(vm: &Vm, events: &mut Events) -> Event {
    match vm.run("an event", events.next()).unwrap() {
        NextEvent::Event(event) => event,
        NextEvent::Lost(count) => panic!("{count} lost"),
    }
}

/// Events until one of this kind.
fn until(vm: &Vm, events: &mut Events, mut is_it: impl FnMut(&Happened) -> bool) -> Event {
    loop {
        let event = next(vm, events);
        if is_it(&event.what) {
            return event;
        }
    }
}

fn hungry(vm: &Vm, name: &str) {
    let hungry = vm.create_with(name, &Run::probe(["allocate", "100"]), |spec| {
        put(spec, "/linux/resources/memory", json!({ "limit": 16 << 20 }));
    });
    vm.run("start", hungry.container().start()).unwrap();
    assert_eq!(hungry.finish().code, 137);
    hungry.remove();
}

/// A container's life is told in order; a client whose connection dies at any moment, waiting or not, goes on by number
/// and sees every event exactly once.
#[test]
fn every_event_is_told_once_however_often_the_connection_dies() {
    let vm = Vm::boot(&VmConfig::default());
    let mut seen = Vec::new();
    let mut connections = 0;
    let mut see = |vm: &Vm, count: usize| {
        while seen.len() < count {
            // A connection for two events; it dies while it waits for a third that may or may not come.
            let mut events =
                vm.connect().events(seen.last().map_or(0, |event: &Event| event.sequence));
            connections += 1;
            for _ in 0..(count - seen.len()).min(2) {
                seen.push(next(vm, &mut events));
            }
            vm.run("a wait that is given up", async {
                tokio::time::timeout(Duration::from_millis(20), events.next()).await.ok();
            });
            cut_while_waiting(vm, 1 << 40);
        }
    };
    let web = vm.create("web", &Run::probe(["ignore-signals"]));
    see(&vm, 1);
    let web = web.started();
    web.says("ready");
    assert_eq!(web.exec("one", &Run::probe(["exit", "3"])).wait(), 3);
    see(&vm, 4);
    web.kill();
    web.remove();
    see(&vm, 6);
    assert!(connections >= 4);
    let numbers: Vec<u64> = seen.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert!(seen.is_sorted_by_key(|event| event.time));
    let exec = ExecId::new("one").unwrap();
    let told: Vec<String> = seen.iter().map(|event| format!("{:?}", event.what)).collect();
    let (web, exec) = (format!("{:?}", id("web")), format!("{exec:?}"));
    for (told, expected) in told.iter().zip([
        format!("ContainerCreated({web})"),
        format!("ContainerStarted({web})"),
        format!("ExecStarted({web}, {exec})"),
        format!("ProcessExited({web}, Some({exec}), ExitStatus(3))"),
        format!("ProcessExited({web}, None, ExitStatus(137))"),
        format!("ContainerRemoved({web})"),
    ]) {
        assert_eq!(*told, expected);
    }
    vm.shutdown();
}

/// That a container is gone is the last that is told of it, also where the removal is what ends its processes.
#[test]
fn a_removal_is_told_after_every_exit() {
    let vm = Vm::boot(&VmConfig::default());
    let mut events = vm.connect().events(0);
    for name in ["one", "two", "three", "four"] {
        let container = vm.start(name, &Run::probe(["ignore-signals"]));
        let execs = ["a", "b"].map(|exec| container.exec(exec, &Run::probe(["ignore-signals"])));
        container.remove();
        drop(execs);
        let mut exits = 0;
        until(&vm, &mut events, |what| {
            exits += usize::from(matches!(what, Happened::ProcessExited(..)));
            *what == Happened::ContainerRemoved(id(name))
        });
        assert_eq!(exits, 3, "{name}");
    }
    vm.shutdown();
}

/// A connection that dies with a call of Events under way.
fn cut_while_waiting(vm: &Vm, after: u64) {
    let mut raw = vm.raw();
    let call = request("hyperstart.v1.Guest", "Events", &number_field(1, after));
    raw.send(&frame(1, REQUEST, 0, &call));
}

/// An OOM kill is told by the event stream and by GetOOMEvent: to one of two callers, to the next one if a caller has
/// gone, and to one who comes late.
#[test]
fn an_oom_kill_is_told_to_a_caller_that_is_there() {
    let vm = Vm::boot(&VmConfig::default());
    let gone = vm.connect();
    vm.run("a caller that goes", async {
        tokio::time::timeout(Duration::from_millis(100), gone.next_oom()).await.unwrap_err();
    });
    drop(gone);
    for _ in 0..3 {
        let mut raw = vm.raw();
        raw.send(&frame(1, REQUEST, 0, &request("grpc.AgentService", "GetOOMEvent", b"")));
    }
    hungry(&vm, "late");
    assert_eq!(vm.run("an OOM kill", vm.sandbox().next_oom()).unwrap(), id("late"));
    let (one, two) = (vm.connect(), vm.connect());
    let callers = [one, two].map(|caller| async move { caller.next_oom().await.unwrap() });
    let callers: Vec<_> = vm.run("start", async { callers.map(tokio::spawn).into() });
    hungry(&vm, "first");
    hungry(&vm, "second");
    let mut told: Vec<ContainerId> =
        callers.into_iter().map(|caller| vm.run("an OOM kill", caller).unwrap()).collect();
    told.sort();
    assert_eq!(told, [id("first"), id("second")], "one each");
    let mut events = vm.connect().events(0);
    for name in ["late", "first", "second"] {
        let oom = until(&vm, &mut events, |what| matches!(what, Happened::Oom(_)));
        assert_eq!(oom.what, Happened::Oom(id(name)));
    }
    vm.shutdown();
}

/// A disk that is plugged in is told by its path below /sys, and so is its going.
#[test]
fn devices_that_come_and_go_are_told() {
    let mut machine = VmConfig::default().machine();
    machine.kind = MachineKind::Q35;
    machine.slots = 1;
    let busybox = machine.disks.pop().expect("busybox is the last disk");
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let mut events = vm.sandbox().events(0);
    let plugged = vm.run("attach", vm.machine().attach(&busybox)).unwrap();
    let path = |event: Event| match event.what {
        Happened::DeviceAdded(path) | Happened::DeviceRemoved(path) => path,
        other => panic!("{other:?}"),
    };
    let added = until(&vm, &mut events, |what| matches!(what, Happened::DeviceAdded(_)));
    let added = path(added);
    assert!(added.starts_with("/devices/") && added.contains("/block/"), "{added}");
    vm.run("detach", vm.machine().detach(plugged)).unwrap();
    let removed = until(&vm, &mut events, |what| matches!(what, Happened::DeviceRemoved(_)));
    assert_eq!(path(removed), added);
    vm.shutdown();
}

/// A container that is held up for want of memory is news of the guest: with the kernel's figures, and no flood.
#[test]
fn short_memory_is_told() {
    let vm = Vm::boot(&VmConfig::default());
    let mut events = vm.sandbox().events(0);
    let hog = vm.create_with("hog", &Run::probe(["allocate", "64"]), |spec| {
        put(spec, "/linux/resources/unified", json!({ "memory.high": "8388608" }));
    });
    // There must be somebody who listens before.
    assert!(matches!(next(&vm, &mut events).what, Happened::ContainerCreated(_)));
    vm.run("start", hog.container().start()).unwrap();
    let low = until(&vm, &mut events, |what| matches!(what, Happened::LowMemory(_)));
    let Happened::LowMemory(pressure) = low.what else { unreachable!() };
    assert!(pressure.starts_with("some avg10="), "{pressure:?}");
    hog.kill();
    hog.remove();
    vm.shutdown();
}
