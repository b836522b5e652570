//! Output by offset, by requests: rings, readers, ends and exits. Streams are in `output_streams.rs`.

use harness::{Run, Running, Vm, VmConfig, pattern, sha256};
use hyperstart::{Chunk, Code, OutputAt, Process, Result, Stream};
use hyperstart_vmm::TransportKind;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A guest that has time: the machine may be busy.
fn config(transport: TransportKind) -> VmConfig {
    VmConfig { transport: Some(transport), ..VmConfig::default() }
}

fn boot() -> Vm {
    Vm::boot(&config(TransportKind::VhostUserVsock))
}

/// A container in which execs write.
fn web(vm: &Vm) -> Running<'_> {
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    web
}

/// All that comes, each chunk at its place, acknowledged as it comes.
async fn read_all(at: OutputAt) -> Result<Vec<u8>> {
    let mut output = at.open().await?;
    let (first, mut all) = (output.offset(), Vec::new());
    while let Some(Chunk { offset, data }) = output.next().await? {
        assert_eq!(offset, first + all.len() as u64, "a gap, or a byte twice");
        all.extend(data);
        output.taken(first + all.len() as u64).await?;
    }
    assert_eq!(output.next().await?, None, "the end is the end");
    Ok(all)
}

fn stdout(process: &Process) -> OutputAt {
    process.output(Stream::Stdout).by_requests()
}

/// Everything that is written arrives, in order: by pipes and by terminals, from an init and from an exec, over vsock
/// and over serial.
#[test]
fn all_that_is_written_arrives() {
    for transport in [TransportKind::VhostUserVsock, TransportKind::Serial] {
        let vm = Vm::boot(&config(transport));
        let first = vm.start("first", &Run::probe(["write", "stdout", "1048576"]));
        let said = vm.run("an init's", read_all(stdout(first.process()).reader("log"))).unwrap();
        assert_eq!(sha256(&said), sha256(&pattern(MIB)), "an init's, over {transport:?}");
        assert_eq!(first.wait(), 0);
        first.remove();
        let web = web(&vm);
        let pipe = web.exec("pipe", &Run::probe(["write", "stderr", "1048576"]));
        let err = pipe.process().output(Stream::Stderr);
        let said = vm.run("an exec's", read_all(err.reader("log"))).unwrap();
        assert_eq!(sha256(&said), sha256(&pattern(MIB)), "an exec's, over {transport:?}");
        let script = "stty -opost; head -c 300000 /dev/zero | tr '\\0' x";
        let shell = vm.start("shell", &Run::shell(script).terminal());
        let said = vm.run("a terminal's", read_all(stdout(shell.process()))).unwrap();
        assert!(said == vec![b'x'; 300_000], "{} bytes, over {transport:?}", said.len());
        let err = shell.process().output(Stream::Stderr).by_requests();
        assert!(vm.run("its stderr", read_all(err)).unwrap().is_empty());
        shell.wait();
        shell.remove();
        web.kill();
        web.remove();
        vm.shutdown();
    }
}

/// With no reader the writer stops when ring and pipe are full, and goes on once somebody takes what there is. Nothing
/// is dropped, and PID 1's memory does not grow with what is written.
#[test]
fn writer_stops_until_it_is_read() {
    let vm = boot();
    let web = web(&vm);
    let before = vm.init_memory().number("Anonymous");
    let slow = web.exec("slow", &Run::probe(["write", "stdout", "4194304"]));
    let waited =
        async { tokio::time::timeout(Duration::from_secs(2), slow.process().wait()).await };
    assert!(vm.run("a short wait", waited).is_err(), "it ended, so its output went somewhere");
    let look = vm.run("a look", stdout(slow.process()).look()).unwrap();
    assert_eq!((look.offset, look.data.len(), look.ended), (0, 64 * KIB, false));
    let grown = vm.init_memory().number("Anonymous").saturating_sub(before);
    assert!(grown < 256, "PID 1 grew by {grown} KiB");
    let said = vm.run("the rest", read_all(stdout(slow.process()).reader("log"))).unwrap();
    assert_eq!(sha256(&said), sha256(&pattern(4 * MIB)));
    assert_eq!(slow.wait(), 0);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// What a process wrote before it exited is there when the exit is told, though nobody has read: in the ring, and beyond
/// its size what the pipe held.
#[test]
fn exit_comes_after_all_that_was_written() {
    let vm = boot();
    let web = web(&vm);
    for (name, bytes) in [("few", 1), ("ring", 64 * KIB), ("beyond", 100 * KIB)] {
        let exec = web.exec(name, &Run::probe(["write", "stdout", &bytes.to_string()]));
        assert_eq!(exec.wait(), 0, "{name}");
        let listing = vm.run("list", vm.sandbox().list()).unwrap();
        let state = listing.containers[0].execs.values().find(|exec| exec.stdout.end > 0);
        assert_eq!(state.map(|exec| exec.stdout.end), Some(bytes as u64), "{name}");
        let said = vm.run("read", read_all(stdout(exec.process()))).unwrap();
        assert!(said == pattern(bytes), "{name}: {} bytes", said.len());
        let err = exec.process().output(Stream::Stderr).by_requests();
        assert!(vm.run("read stderr", read_all(err)).unwrap().is_empty());
    }
    let script = "stty -opost; head -c 20000 /dev/zero | tr '\\0' y";
    let shell = vm.start("shell", &Run::shell(script).terminal());
    shell.wait();
    let said = vm.run("a terminal's", read_all(stdout(shell.process()))).unwrap();
    assert!(said == vec![b'y'; 20_000], "{} bytes of a terminal", said.len());
    shell.remove();
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A background child that holds stdout delays the end, not the exit; its bytes still arrive, and then the end, once.
#[test]
fn background_child_delays_the_end_and_not_the_exit() {
    let vm = boot();
    let web = vm.start("web", &Run::shell("sleep 1000"));
    let script = "(read go < /tmp/go; echo child) & echo parent";
    assert_eq!(web.exec("fifo", &Run::shell("mkfifo /tmp/go")).wait(), 0);
    let parent = web.exec("parent", &Run::shell(script));
    assert_eq!(parent.wait(), 0);
    let look = vm.run("a look", stdout(parent.process()).look()).unwrap();
    assert_eq!((look.data.as_slice(), look.ended), (&b"parent\n"[..], false));
    assert_eq!(web.exec("go", &Run::shell("echo > /tmp/go")).wait(), 0);
    let said = vm.run("the child's", read_all(stdout(parent.process()))).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "parent\nchild\n");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A terminal that no process has open for a while has not ended: its process may open it again.
#[test]
fn terminal_ends_with_its_process() {
    let vm = boot();
    let script = "stty -opost; exec < /dev/null > /dev/null 2>&1; sleep 2; echo back > /dev/tty";
    let shell = vm.start("shell", &Run::shell(script).terminal());
    let said = vm.run("read", read_all(stdout(shell.process()))).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "back\n");
    assert_eq!(shell.wait(), 0);
    shell.remove();
    vm.shutdown();
}

/// A reader with a name is remembered over its connection; bytes are kept for the slowest of all readers, and read
/// again by who comes with an offset.
#[test]
fn readers_are_remembered_by_name() {
    let vm = boot();
    let web = web(&vm);
    let exec = web.exec("pour", &Run::probe(["write", "stdout", "300000"]));
    let process = exec.process();
    let one = async {
        let mut log = stdout(process).reader("log").open().await?;
        let first = log.next().await?.expect("a chunk");
        log.taken(first.end() - 100).await?;
        let kept = first.end() - 100;
        drop(log);
        let behind = stdout(process).reader("second").from(kept - 1).open().await.unwrap_err();
        assert_eq!(behind.code(), Code::OutOfRange, "{behind}");
        assert!(behind.message().contains(&kept.to_string()), "{behind}");
        let beyond = stdout(process).from(1 << 40).look().await.unwrap_err();
        assert_eq!(beyond.code(), Code::OutOfRange, "{beyond}");
        let second = stdout(process).reader("second").from_oldest().open().await?;
        assert_eq!(second.offset(), kept);
        drop(second);
        Ok::<_, hyperstart::Error>(kept)
    };
    let kept = vm.run("a first connection", one).unwrap();
    let other = vm.connect();
    let process = other
        .container(exec.container().id().clone())
        .exec_process(exec.process().exec_id().expect("an exec").clone());
    let two = async {
        let log = read_all(stdout(&process).reader("log").from(kept));
        let second = read_all(stdout(&process).reader("second").from(kept));
        tokio::try_join!(log, second)
    };
    let (log, second) = vm.run("another connection", two).unwrap();
    let rest = &pattern(300_000)[usize::try_from(kept).unwrap()..];
    assert!(log == rest && second == rest, "{} and {} bytes", log.len(), second.len());
    let released = async {
        process.release_reader(Stream::Stdout, "second").await?;
        Ok::<_, hyperstart::Error>(process.release_reader(Stream::Stdout, "second").await)
    };
    let twice = vm.run("release", released).unwrap().unwrap_err();
    assert_eq!(twice.code(), Code::NotFound, "{twice}");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A stream has at most eight readers with a name; a name is what may be one; a process is one that there is.
#[test]
fn readers_are_few_and_well_named() {
    let vm = boot();
    let web = web(&vm);
    let open = |name: &str| {
        let name = name.to_owned();
        vm.run("open", stdout(web.process()).reader(&name).from_oldest().open()).map(drop)
    };
    for number in 0..8 {
        open(&number.to_string()).unwrap();
    }
    assert_eq!(open("8").unwrap_err().code(), Code::ResourceExhausted);
    open("7").unwrap();
    for bad in ["a/b", "a b", &"x".repeat(65)] {
        assert_eq!(open(bad).unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
    }
    let nobody = web.container().exec_process(hyperstart::ExecId::new("nobody").unwrap());
    let err = vm.run("open", stdout(&nobody).open()).unwrap_err();
    assert_eq!(err.code(), Code::NotFound, "{err}");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// An exec is forgotten once it was waited for and read to its end by who keeps no account; one with a named reader
/// stays until it is deleted; one that runs is not deleted, nor is an init.
#[test]
fn execs_are_forgotten_or_kept() {
    let vm = boot();
    let web = web(&vm);
    let delete = |process: &Process| vm.run("delete", process.delete());
    let gone = web.exec("gone", &Run::probe(["echo", "hi"]));
    gone.finish();
    assert_eq!(delete(gone.process()).unwrap_err().code(), Code::NotFound);
    let kept = web.exec("kept", &Run::probe(["echo", "hi"]));
    for _ in 0..2 {
        let said = vm.run("read", read_all(stdout(kept.process()).reader("log").from_oldest()));
        assert!(["hi\n", ""].map(str::as_bytes).contains(&said.unwrap().as_slice()));
    }
    assert_eq!((kept.wait(), kept.wait()), (0, 0));
    assert_eq!(kept.finish().code, 0);
    delete(kept.process()).unwrap();
    assert_eq!(delete(kept.process()).unwrap_err().code(), Code::NotFound);
    let runs = web.exec("runs", &Run::probe(["sleep", "100000"]));
    assert_eq!(delete(runs.process()).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(delete(web.process()).unwrap_err().code(), Code::InvalidArgument);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// The ring has the size, and a pipe too, that the kernel's command line gives them.
#[test]
fn ring_and_pipe_have_the_size_that_is_asked_for() {
    let vsock = config(TransportKind::VhostUserVsock);
    let cmdline = ["hyperstart.output_ring=16384", "agent.container_pipe_size=8192"];
    let vm = Vm::boot(&VmConfig { cmdline: cmdline.map(str::to_owned).into(), ..vsock });
    let web = web(&vm);
    let fits = web.exec("fits", &Run::probe(["write", "stdout", "24576"]));
    assert_eq!(fits.wait(), 0);
    let more = web.exec("more", &Run::probe(["write", "stdout", "40960"]));
    let begun = Instant::now();
    while vm.run("look", stdout(more.process()).look()).unwrap().data.len() < 16 * KIB {
        assert!(begun.elapsed() < Duration::from_secs(100), "the ring does not fill");
    }
    let waited =
        async { tokio::time::timeout(Duration::from_secs(1), more.process().wait()).await };
    assert!(vm.run("a short wait", waited).is_err(), "it went into a larger pipe");
    let mut said = Vec::new();
    vm.run("read", more.process().stdout().read_to_end(&mut said)).unwrap();
    assert!(said == pattern(40960));
    web.kill();
    web.remove();
    vm.shutdown();
}
