//! Many things at a time: calls on one connection, clients on one line, containers in one guest.

use harness::{Run, Vm, VmConfig, pattern};
use hyperstart::ExecId;
use hyperstart_vmm::TransportKind;
use std::time::Duration;
use tokio::io::AsyncReadExt;

const MIB: usize = 1 << 20;

fn boot(transport: Option<TransportKind>) -> Vm {
    Vm::boot(&VmConfig { transport, ..VmConfig::default() })
}

/// Forty execs at a time are in their own container, each with its own output and exit code.
#[test]
fn execs_at_a_time_are_not_mixed_up() {
    let vm = boot(None);
    let running = ["web", "db"].map(|name| vm.start(name, &Run::probe(["sleep", "600000"])));
    let namespaces = running.each_ref().map(|web| {
        web.exec("view", &Run::probe(["view"])).finish().facts().get("ns.pid").to_owned()
    });
    let exec = |index: usize| {
        let container = running[index % 2].container().clone();
        async move {
            let run = Run::probe(["view"]).env(&format!("INDEX={index}")).process();
            let id = ExecId::new(format!("exec-{index}")).unwrap();
            let process = container.exec(id, &run).await.unwrap();
            let mut said = String::new();
            process.stdout().read_to_string(&mut said).await.unwrap();
            (process.wait().await.unwrap().code(), said)
        }
    };
    let finished = vm.run_together("forty execs", (0..40).map(exec));
    for (index, (code, said)) in finished.into_iter().enumerate() {
        assert_eq!(code, 0);
        assert!(said.contains(&format!("env.INDEX={index}\n")), "{index}: {said}");
        assert!(said.contains(&namespaces[index % 2]), "exec {index} is in the other container");
    }
    for web in running {
        web.kill();
        web.remove();
    }
    vm.shutdown();
}

/// Containers come and go at a time; none disturbs another.
#[test]
fn containers_come_and_go_at_a_time() {
    let vm = boot(None);
    let running: Vec<_> = (0..8)
        .map(|index| {
            vm.start(&format!("web-{index}"), &Run::probe(["catch", "15", &index.to_string()]))
        })
        .collect();
    for web in &running {
        web.says("ready");
    }
    let signals = running.iter().map(|web| {
        let container = web.container().clone();
        async move { container.signal(15).await }
    });
    let signalled = vm.run_together("eight signals", signals);
    assert!(signalled.iter().all(Result::is_ok), "{signalled:?}");
    for (index, web) in running.iter().enumerate() {
        assert_eq!(usize::from(web.finish().code), index);
        web.remove();
    }
    vm.shutdown();
}

/// Clients share a serial line: each gets its own answers, whole, while others flood it.
#[test]
fn clients_share_a_serial_line() {
    let vm = boot(Some(TransportKind::Serial));
    let web = vm.start("web", &Run::probe(["sleep", "600000"]));
    let flood = |index: usize| {
        let container = vm.connect().container(web.container().id().clone());
        async move {
            let run = Run::probe(["write", "stdout", "2097152"]).process();
            let id = ExecId::new(format!("flood-{index}")).unwrap();
            let process = container.exec(id, &run).await.unwrap();
            let mut said = Vec::new();
            process.stdout().read_to_end(&mut said).await.unwrap();
            (process.wait().await.unwrap().code(), said)
        }
    };
    let floods: Vec<_> = (0..4).map(flood).collect();
    for (code, said) in vm.run_together("four floods", floods) {
        assert!(code == 0 && said == pattern(2 * MIB), "code {code}, {} bytes", said.len());
    }
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A client that goes away in the middle of its calls takes nothing with it: others are told, and told all.
#[test]
fn client_that_goes_away_takes_nothing_with_it() {
    for transport in [TransportKind::VhostUserVsock, TransportKind::Serial] {
        let vm = boot(Some(transport));
        let web = vm.start("web", &Run::probe(["catch", "15", "9"]));
        web.says("ready");
        let fleeting = vm.connect().container(web.container().id().clone());
        let waited = vm.run("a wait that is given up", async {
            tokio::time::timeout(Duration::from_millis(100), fleeting.wait()).await
        });
        assert!(waited.is_err());
        drop(fleeting);
        vm.run("SIGTERM", web.container().signal(15)).unwrap();
        let said = web.finish();
        assert_eq!((said.code, said.stdout()), (9, "caught SIGTERM\n"), "over {transport:?}");
        web.remove();
        vm.shutdown();
    }
}

/// A guest whose log is on says so on its console and is the same otherwise.
#[test]
fn debug_log_goes_to_the_console() {
    let vm = Vm::boot(&VmConfig { cmdline: vec!["agent.log=debug".into()], ..VmConfig::default() });
    assert_eq!(vm.finish("web", &Run::probe(["exit", "3"]).env("SECRET=hunter2")).code, 3);
    let console = std::fs::read_to_string(vm.machine().console_log()).unwrap();
    assert!(console.contains("web"), "{console}");
    assert!(!console.contains("hunter2"), "the value of a variable is in the log: {console}");
    vm.shutdown();
}
