//! The guest's own log: on request at offsets, and as JSON lines on a port of its own, as Kata's runtimes read it.

use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, ContainerId};
use hyperstart_vmm::AgentAddress;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const LOG_PORT: u32 = 1025;

fn end(vm: &Vm) -> u64 {
    vm.run("the log", vm.sandbox().log(0)).unwrap().end()
}

/// An error, which is a line of the log.
fn start_nothing(vm: &Vm, name: &str) {
    let none = vm.sandbox().container(ContainerId::new(name).unwrap());
    vm.run("start", none.start()).unwrap_err();
}

/// The log has the boot and each error, with the time; a byte keeps its offset; what is asked for beyond the end is
/// refused; and a request that goes well adds no line.
#[test]
fn the_log_is_read_at_offsets_and_grows_by_errors_alone() {
    let vm = Vm::boot(&VmConfig::default());
    let boot = vm.run("the log", vm.sandbox().log(0)).unwrap();
    let text = String::from_utf8(boot.data.clone()).unwrap();
    assert!(
        text.lines().any(|line| line.starts_with("20") && line.ends_with("Z listen")),
        "{text}"
    );
    let part = vm.run("a part", vm.sandbox().log(10)).unwrap();
    assert_eq!((part.offset, &part.data[..]), (10, &boot.data[10..]));

    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    assert_eq!(web.exec("one", &Run::probe(["exit", "0"])).wait(), 0);
    web.kill();
    web.remove();
    assert_eq!(end(&vm), boot.end(), "a container's life is no news");

    let host = vm.connect();
    let waiting = async {
        let part = host.next_log(boot.end()).await.unwrap();
        String::from_utf8(part.data).unwrap()
    };
    let failing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let none = vm.sandbox().container(ContainerId::new("none").unwrap());
        none.start().await.unwrap_err()
    };
    let (line, _) = vm.run("a line", async { tokio::join!(waiting, failing) });
    let words = "Z warn: StartContainer: container \"none\": not found\n";
    assert!(line.ends_with(words) && line.lines().count() == 1, "{line:?}");
    let beyond = vm.run("beyond", vm.sandbox().log(end(&vm) + 1)).unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange, "{beyond}");

    for at in 0..900 {
        start_nothing(&vm, &format!("name-{at}-{}", "x".repeat(40)));
    }
    let kept = vm.run("the log", vm.sandbox().log(0)).unwrap();
    assert!(kept.offset > 0 && kept.data.len() <= 64 << 10, "the last 64 KiB are kept");
    assert!(kept.data.starts_with(b"20") && kept.data.ends_with(b"not found\n"), "in whole lines");
    vm.shutdown();
}

async fn connect(address: &AgentAddress) -> Option<BufReader<UnixStream>> {
    let AgentAddress::Hybrid { path, .. } = address else { return None };
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(format!("CONNECT {LOG_PORT}\n").as_bytes()).await.unwrap();
    while stream.read_u8().await.unwrap() != b'\n' {}
    Some(BufReader::new(stream))
}

async fn object(lines: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    lines.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap_or_else(|err| panic!("{line:?}: {err}"))
}

/// Objects until one whose message ends so.
async fn until(lines: &mut BufReader<UnixStream>, words: &str) -> Value {
    loop {
        let object = object(lines).await;
        if object["msg"].as_str().unwrap().ends_with(words) {
            return object;
        }
    }
}

/// With agent.log_vport a client of the host's gets what was logged, then each line as it comes; the next client gets it
/// when the first has gone.
#[test]
fn the_log_port_has_the_log_as_json_lines() {
    let cmdline = vec![format!("agent.log_vport={LOG_PORT}")];
    let vm = Vm::boot(&VmConfig { cmdline, ..VmConfig::default() });
    let Some(mut first) = vm.run("connect", connect(vm.machine().address())) else {
        return vm.kill(); // a host without a vsock: there is no port to connect to
    };
    let boot = vm.run("the boot", until(&mut first, "listen"));
    assert_eq!((&boot["level"], &boot["source"]), (&"INFO".into(), &"init".into()));
    start_nothing(&vm, "none");
    let line = vm.run("a line", until(&mut first, "not found"));
    assert_eq!(line["msg"], "StartContainer: container \"none\": not found");
    assert_eq!(line["level"], "WARN");
    assert!(line["ts"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));
    let mut second = vm.run("connect", connect(vm.machine().address())).unwrap();
    let heard = vm.run("one client at a time", async {
        tokio::time::timeout(Duration::from_millis(300), second.read_u8()).await
    });
    assert!(heard.is_err(), "the first is still there");
    drop(first);
    vm.run("what is kept", until(&mut second, "not found"));
    start_nothing(&vm, "another");
    vm.run("what comes", until(&mut second, "container \"another\": not found"));
    drop(second);
    vm.shutdown();
}

/// Without it nobody listens there.
#[test]
fn there_is_no_log_port_unless_asked_for() {
    let vm = Vm::boot(&VmConfig::default());
    if let AgentAddress::Hybrid { path, .. } = vm.machine().address() {
        let said = vm.run("connect", async {
            let mut stream = UnixStream::connect(path).await.unwrap();
            stream.write_all(format!("CONNECT {LOG_PORT}\n").as_bytes()).await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.ok();
            said
        });
        assert!(!said.starts_with(b"OK"), "{}", String::from_utf8_lossy(&said));
    }
    vm.shutdown();
}
