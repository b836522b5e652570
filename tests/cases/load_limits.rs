//! One container does more than its share: others, and PID 1, go on.

use std::time::{Duration, Instant};

use harness::edit::{push, put};
use harness::{Run, Running};
use hyperstart::{ContainerId, Happened, NextEvent, SandboxConfig};
use oci_spec::runtime::Spec;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::load::{Before, boot};

/// For an exec of a container to answer while another does its worst.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it is asked.
const QUESTIONS: usize = 5;
const PROCESSES: u32 = 64;
const MEMORY: u64 = 32 << 20;

fn limits(spec: &mut Spec) {
    let limits = json!({ "memory": { "limit": MEMORY }, "pids": { "limit": PROCESSES } });
    put(spec, "/linux/resources", limits);
}

/// Asks a container, several times.
fn assert_answers(web: &Running<'_>, when: &str) {
    for number in 0..QUESTIONS {
        let begun = Instant::now();
        let name = format!("{when}-{number}");
        let said = web.exec(&name, &Run::probe(["echo", "here"])).finish();
        let took = begun.elapsed();
        assert_eq!((said.code, said.stdout()), (0, "here\n"), "{name}: {said:?}");
        assert!(took < ANSWER, "{name}: an answer after {took:?}");
    }
}

/// Reads events until one says that this container lost a process for want of memory.
async fn oom_event(sandbox: hyperstart::Sandbox, container: ContainerId) {
    let mut events = sandbox.events(0);
    loop {
        match events.next().await.expect("an event") {
            NextEvent::Event(event) if event.what == Happened::Oom(container.clone()) => return,
            NextEvent::Event(_) => {}
            NextEvent::Lost(lost) => panic!("{lost} events lost"),
        }
    }
}

/// A fork bomb and a memory hog in one container with limits leave other containers their guest, and the host is told of
/// the OOM kill by GetOOMEvent and by an event.
#[test]
fn a_fork_bomb_and_a_memory_hog_are_their_containers_own() {
    let vm = boot(SandboxConfig::default());
    let holder = vm.start("holder", &Run::probe(["exit", "0"]));
    vm.run("an event", async { vm.sandbox().events(0).next().await }).unwrap(); // what the first reader makes stays
    holder.wait();
    holder.remove();
    let before = Before::of(&vm);
    let web = vm.start("web", &Run::probe(["sleep", "6000000"]));
    let wild = vm.start_with("wild", &Run::probe(["sleep", "6000000"]), limits);
    assert_answers(&web, "quiet");
    let hog = wild.exec("hog", &Run::probe(["hog"]));
    hog.says("ready"); // the bomb would leave it no place
    let bomb = wild.exec("bomb", &Run::probe(["fork-bomb"]));
    bomb.says("ready");
    assert_answers(&web, "forks");
    vm.run("let the hog go", async { hog.process().stdin().shutdown().await }).unwrap();
    assert_answers(&web, "forks-and-hog");
    assert_eq!(hog.wait(), 128 + 9, "killed for want of memory");
    let id = wild.container().id().clone();
    assert_eq!(vm.run("an OOM event", vm.sandbox().next_oom()).unwrap(), id);
    vm.run("an event of the OOM kill", oom_event(vm.sandbox().clone(), id));
    assert_answers(&web, "forks-still");
    wild.remove();
    assert_answers(&web, "after");
    web.kill();
    web.remove();
    before.assert_back(&vm);
    vm.shutdown();
}

/// A container that fills its own tmpfs is told so; nobody else is.
#[test]
fn a_full_tmpfs_is_its_containers_own() {
    let vm = boot(SandboxConfig::default());
    let before = Before::of(&vm);
    let full = vm.start_with("full", &Run::probe(["sleep", "6000000"]), |spec| {
        let options = ["size=4m", "nr_inodes=100"];
        push(
            spec,
            "/mounts",
            json!({
                "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options,
            }),
        );
    });
    let fill = full.exec("fill", &Run::probe(["fill", "/scratch/file"])).finish().facts();
    assert_eq!(fill.number("written"), 4 << 20);
    let files = full.exec("files", &Run::probe(["fill-with-files", "/scratch/files"])).finish();
    assert_eq!(files.facts().number("files"), 97, "100 less two directories and the file");
    assert_answers(&full, "full");
    assert_eq!(vm.finish("web", &Run::shell("echo x > /file && cat /file")).stdout(), "x\n");
    full.kill();
    full.remove();
    before.assert_back(&vm);
    vm.shutdown();
}

/// A container that fills its root, which is the guest's memory, is told so. It and others go on, and are made and
/// removed; with no room for a file no container is made, which the error says. The room comes back with its removal.
#[test]
fn a_full_root_is_given_back() {
    let vm = boot(SandboxConfig::default());
    let before = Before::of(&vm);
    let other = vm.start("other", &Run::probe(["sleep", "6000000"]));
    for fill in ["fill", "fill-with-files"] {
        let full = vm.start("full", &Run::probe(["sleep", "6000000"]));
        let said = full.exec("fill", &Run::probe([fill, "/made"])).finish();
        assert_eq!(said.code, 0, "{said:?}");
        assert_answers(&full, fill);
        assert_answers(&other, fill);
        let web = vm.try_create("web", &Run::probe(["exit", "3"]), |_| {});
        match (fill, web) {
            ("fill", Ok(web)) => vm.run("remove", web.remove(ANSWER)).unwrap(),
            ("fill-with-files", Err(err)) => assert!(err.to_string().contains("ENOSPC"), "{err}"),
            (_, web) => panic!("{fill}: {web:?}"),
        }
        full.kill();
        full.remove();
        assert_eq!(vm.finish("web", &Run::shell("echo x > /file && cat /file")).stdout(), "x\n");
    }
    other.kill();
    other.remove();
    before.assert_back(&vm);
    vm.shutdown();
}
