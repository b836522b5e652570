//! Bytes in and out: nothing is lost, nothing is mixed, every end is told once.

use harness::{Run, Vm, VmConfig, pattern, sha256};
use hyperstart_vmm::TransportKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;

/// Megabytes come through stdout as they were written, over vsock and over serial.
#[test]
fn megabytes_come_through() {
    for transport in [TransportKind::VhostUserVsock, TransportKind::Serial] {
        let vm = Vm::boot(&VmConfig { transport: Some(transport), ..VmConfig::default() });
        let said = vm.finish("web", &Run::probe(["write", "stdout", "8388608"]));
        assert_eq!((said.code, said.stdout.len()), (0, 8 * MIB));
        assert_eq!(sha256(&said.stdout), sha256(&pattern(8 * MIB)), "over {transport:?}");
        vm.shutdown();
    }
}

/// stdout and stderr are two streams, each whole.
#[test]
fn stdout_and_stderr_are_kept_apart() {
    let vm = Vm::boot(&VmConfig::default());
    let said = vm.finish("web", &Run::probe(["write-both", "1048576"]));
    assert_eq!((said.stdout.len(), said.stderr.len()), (MIB, MIB));
    assert!(said.stdout == pattern(MIB) && said.stderr == pattern(MIB));
    vm.shutdown();
}

/// Megabytes go in through stdin, and its end is seen.
#[test]
fn megabytes_go_in() {
    let vm = Vm::boot(&VmConfig::default());
    let said = vm.finish("web", &Run::probe(["sum"]).stdin(&pattern(4 * MIB))).facts();
    assert_eq!(
        (said.number("bytes"), said.get("sha256")),
        (4 * MIB as u64, sha256(&pattern(4 * MIB)).as_str())
    );
    vm.shutdown();
}

/// An exec has streams of its own, in both directions.
#[test]
fn exec_has_its_own_streams() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let said = web.exec("copy", &Run::probe(["cat"]).stdin(&pattern(MIB))).finish();
    assert!(said.stdout == pattern(MIB) && said.stderr.is_empty());
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A process whose input is closed reads the end, and what it had written is still there.
#[test]
fn closed_stdin_is_an_end_of_file() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["cat"]));
    vm.run("write and close", async {
        let mut stdin = web.process().stdin();
        stdin.write_all(b"hi").await.unwrap();
        stdin.shutdown().await.unwrap();
        let more = stdin.write_all(b"more").await.and(stdin.flush().await);
        assert!(more.is_err(), "a closed input takes more");
    });
    assert_eq!(web.wait(), 0);
    let mut said = String::new();
    vm.run("read", web.process().stdout().read_to_string(&mut said)).unwrap();
    assert_eq!(said, "hi");
    web.remove();
    vm.shutdown();
}

/// What a process wrote is kept after its exit, for whoever comes to read it.
#[test]
fn output_outlives_the_process() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["write", "stderr", "20000"]));
    assert_eq!(web.wait(), 0);
    let mut said = Vec::new();
    vm.run("read", web.process().stderr().read_to_end(&mut said)).unwrap();
    assert_eq!(said, pattern(20000));
    web.remove();
    vm.shutdown();
}

/// A reader that does not read stops that writer alone: others go on, and nothing is lost.
#[test]
fn slow_reader_stops_its_writer_alone() {
    let vm = Vm::boot(&VmConfig::default());
    let slow = vm.start("slow", &Run::probe(["write", "stdout", "2097152"]));
    let quick = vm.finish("quick", &Run::probe(["write", "stdout", "1048576"]));
    assert_eq!(quick.stdout.len(), MIB);
    let waited = vm.run("a short wait", async {
        tokio::time::timeout(Duration::from_millis(300), slow.process().wait()).await
    });
    assert!(waited.is_err(), "the writer ended, so its output went somewhere");
    assert_eq!(sha256(&slow.finish().stdout), sha256(&pattern(2 * MIB)));
    slow.remove();
    vm.shutdown();
}

/// A child that keeps the pipe delays the end of the output, not the exit.
#[test]
fn surviving_child_delays_the_end_of_output_only() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::shell("sleep 1000"));
    let parent = web.exec(
        "parent",
        &Run::shell("(until [ -e /tmp/go ]; do sleep 0.1; done; echo child) & echo parent"),
    );
    assert_eq!(parent.wait(), 0, "before the child has ended");
    assert_eq!(web.exec("go", &Run::shell("touch /tmp/go")).wait(), 0);
    let mut said = String::new();
    vm.run("the child's output", parent.process().stdout().read_to_string(&mut said)).unwrap();
    assert_eq!(said, "parent\nchild\n");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A terminal carries both streams, edits lines, and takes a new size.
#[test]
fn terminal_takes_a_new_size() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["resize", "123", "45"]).terminal());
    web.says("ready\r");
    vm.run("resize", web.process().resize(123, 45)).unwrap();
    let said = web.finish();
    assert_eq!((said.code, said.stdout(), said.stderr()), (0, "size=123x45\r\n", ""));
    web.remove();
    vm.shutdown();
}

/// Ctrl-C on a terminal is a signal to what runs in front.
#[test]
fn interrupt_key_is_a_signal() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["catch", "2", "5"]).terminal());
    web.says("ready\r");
    vm.run("type", async { web.process().stdin().write_all(b"\x03").await }).unwrap();
    let said = web.finish();
    assert_eq!((said.code, said.stdout()), (5, "^Ccaught SIGINT\r\n"));
    web.remove();
    vm.shutdown();
}

/// Without a terminal a resize is refused, and stays without effect.
#[test]
fn resize_needs_a_terminal() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "60000"]));
    let err = vm.run("resize", web.process().resize(80, 24)).unwrap_err();
    assert_eq!(err.code(), hyperstart::Code::Unavailable, "{err}");
    web.kill();
    web.remove();
    vm.shutdown();
}
