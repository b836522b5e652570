//! What there is, for a host that was away and has nothing but its connection.

use harness::edit::{put, put_in_process};
use harness::raw::bytes_field;
use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, ContainerId, ExecId, Listing, Sandbox, State};
use serde_json::json;

fn list(vm: &Vm, sandbox: &Sandbox) -> Listing {
    vm.run("list", sandbox.list()).unwrap()
}

/// A client that has nothing but a new connection finds every container and process as it is: state, pid, exit, times,
/// how far its output is, annotations; and never an environment.
#[test]
fn a_new_connection_finds_all_that_there_is() {
    let vm = Vm::boot(&VmConfig::default());
    let empty = list(&vm, vm.sandbox());
    assert_eq!((empty.containers.len(), empty.last_event), (0, 0));
    let large = "x".repeat(16 << 10);
    let run = Run::probe(["ignore-signals"]);
    let web = vm.create_with("web", &run.env("SECRET=never-told"), |spec| {
        put(spec, "/annotations", json!({ "a": "line\nline", "large": large }));
    });
    let host = vm.connect();
    let created = list(&vm, &host);
    let status = &created.containers[0];
    assert_eq!((status.id.as_str(), status.state), ("web", State::Created));
    assert_eq!((status.init.state, status.init.started), (State::Created, None));
    assert!(status.init.pid.is_some_and(|pid| pid > 1), "{status:?}");
    assert_eq!(status.annotations.get("a").map(String::as_str), Some("line\nline"));
    assert!(status.annotations_truncated && status.annotations.len() == 1, "{status:?}");
    assert_eq!(created.last_event, 1, "it was created");

    let web = web.started();
    web.says("ready");
    let failed = web.exec("failed", &Run::words(["/probe", "exit", "3"]));
    assert_eq!(failed.wait(), 3);
    let terminal = web
        .try_exec_with("terminal", &Run::probe(["ignore-signals"]).terminal(), |process| {
            put_in_process(process, "/env", json!(["SECRET=never-told"]));
        })
        .unwrap();
    terminal.says("ready\r");
    let running = list(&vm, &vm.connect());
    let status = &running.containers[0];
    assert_eq!((status.state, status.init.state), (State::Running, State::Running));
    assert!(status.init.started.is_some() && status.init.exited.is_none());
    assert_eq!((status.init.stdout.end, status.init.stdout.ended), (6, false), "it said ready");
    let exec = |name: &str| &status.execs[&ExecId::new(name).unwrap()];
    let (failed, talking) = (exec("failed"), exec("terminal"));
    assert_eq!((failed.state, failed.pid), (State::Stopped, None));
    assert_eq!(failed.exit.map(|exit| exit.code()), Some(3));
    assert!(failed.exited >= failed.started && failed.started >= status.init.started);
    assert!(!failed.terminal && talking.terminal && talking.pid.is_some());
    assert!(talking.stderr.ended, "all output of a terminal is on stdout");
    assert!(!format!("{running:?}").contains("never-told"), "an environment is told");

    web.kill();
    let stopped = list(&vm, &vm.connect());
    let status = &stopped.containers[0];
    assert_eq!((status.state, status.init.pid), (State::Stopped, None));
    assert_eq!(status.init.exit.map(|exit| exit.code()), Some(137));
    assert!(status.init.exited >= status.init.started);
    assert!(stopped.last_event > running.last_event);
    let one = vm.run("status", web.container().status()).unwrap();
    assert_eq!(&one, status);
    web.remove();
    assert_eq!(list(&vm, &host).containers, []);
    vm.shutdown();
}

/// A container that there is none of is not found, and an id that cannot be is refused.
#[test]
fn a_list_of_what_is_not_there_is_refused() {
    let vm = Vm::boot(&VmConfig::default());
    let none = vm.sandbox().container(ContainerId::new("none").unwrap());
    let err = vm.run("status", none.status()).unwrap_err();
    assert_eq!(err.code(), Code::NotFound);
    assert!(err.message().contains("container \"none\": not found"), "{err}");
    let mut raw = vm.raw();
    for id in ["../etc", "..", "a b"] {
        let reply = raw.call(1, "hyperstart.v1.Guest", "List", &bytes_field(1, id.as_bytes()));
        assert!(reply.is(Code::InvalidArgument), "{id:?}: {reply:?}");
    }
    drop(raw);
    vm.shutdown();
}
