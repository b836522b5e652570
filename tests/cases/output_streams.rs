//! Streams on vsock connections of their own: what is written arrives whole and in order, whoever dies meanwhile, and a
//! peer that does not keep to the protocol hurts nobody but itself.

use harness::raw::{bytes_field, number_field};
use harness::stream::{DATA, END, FAILED, OPEN, OPENED, RawStream, Said, TAKEN, header};
use harness::{Run, Running, Vm, VmConfig, pattern, sha256};
use hyperstart::{Code, OutputReader, Process, Result, Stream};
use hyperstart_vmm::TransportKind;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const MIB: usize = 1 << 20;
/// google.rpc.Code
const INVALID_ARGUMENT: u64 = 3;
const NOT_FOUND: u64 = 5;
const RESOURCE_EXHAUSTED: u64 = 8;
const OUT_OF_RANGE: u64 = 11;
/// StreamOpen.Which
const STDERR: u64 = 1;
const STDIN: u64 = 2;
/// Connections at a time.
const MOST: usize = 256;

fn boot() -> Vm {
    let transport = Some(TransportKind::VhostUserVsock);
    Vm::boot(&VmConfig { transport, ..VmConfig::default() })
}

fn web(vm: &Vm) -> Running<'_> {
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    web
}

async fn stdout(process: &Process, offset: u64) -> Result<OutputReader> {
    process.output(Stream::Stdout).from(offset).open().await
}

async fn rest_of(mut output: OutputReader) -> Result<Vec<u8>> {
    let (mut at, mut all) = (output.offset(), Vec::new());
    while let Some(chunk) = output.next().await? {
        assert_eq!(chunk.offset, at, "a gap, or a byte twice");
        at = chunk.end();
        all.extend(chunk.data);
    }
    assert_eq!(output.next().await?, None, "the end is the end");
    Ok(all)
}

/// The fields of a StreamOpen.
fn open(container: &str, exec: &str, which: u64, reader: &str, offset: u64) -> Vec<u8> {
    [
        bytes_field(1, container.as_bytes()),
        bytes_field(2, exec.as_bytes()),
        number_field(3, which),
        bytes_field(4, reader.as_bytes()),
        number_field(5, offset),
    ]
    .concat()
}

fn opened(stream: &mut RawStream<'_>, open: &[u8]) -> u64 {
    stream.frame(OPEN, open);
    match stream.receive() {
        Said::Frame(OPENED, payload) if payload.is_empty() => 0,
        Said::Frame(OPENED, payload) => {
            payload[1..].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        }
        other => panic!("{other:?} where OPENED was expected"),
    }
}

fn refused(stream: &mut RawStream<'_>) -> u64 {
    match stream.receive() {
        Said::Failed(code, message) => {
            assert!(!message.is_empty());
            code
        }
        other => panic!("{other:?} where FAILED was expected"),
    }
}

/// Everything that is written arrives over a stream: an init's, an exec's, a terminal's; and many at a time.
#[test]
fn all_that_is_written_arrives() {
    let vm = boot();
    let first = vm.start("first", &Run::probe(["pour", "16777216"]));
    let read = async { rest_of(stdout(first.process(), 0).await?).await };
    let said = vm.run("an init's", read).unwrap();
    assert_eq!(sha256(&said), sha256(&pattern(16 * MIB)));
    assert_eq!(first.wait(), 0);
    first.remove();
    let script = "stty -opost; head -c 300000 /dev/zero | tr '\\0' x";
    let shell = vm.start("shell", &Run::shell(script).terminal());
    let read = async { rest_of(stdout(shell.process(), 0).await?).await };
    let said = vm.run("a terminal's", read).unwrap();
    assert!(said == vec![b'x'; 300_000], "{} bytes", said.len());
    shell.wait();
    shell.remove();
    let web = web(&vm);
    let execs: Vec<_> = (0..8)
        .map(|number| web.exec(&format!("e{number}"), &Run::probe(["write-both", "1048576"])))
        .collect();
    let reads = execs.iter().flat_map(|exec| {
        [Stream::Stdout, Stream::Stderr].map(|stream| {
            let process = exec.process().clone();
            async move {
                let output = process.output(stream).open().await?;
                let said = rest_of(output).await?;
                if stream == Stream::Stdout {
                    process.wait().await?;
                }
                Ok::<_, hyperstart::Error>(said)
            }
        })
    });
    for said in vm.run_together("sixteen streams", reads.collect::<Vec<_>>()) {
        assert_eq!(sha256(&said.unwrap()), sha256(&pattern(MIB)));
    }
    // Waited for and read to their ends, they are forgotten, once the last word has come.
    let execs = || vm.run("list", vm.sandbox().list()).unwrap().containers[0].execs.len();
    let begun = Instant::now();
    while execs() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(100), "{} execs are kept", execs());
    }
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A client that is gone in the middle of a frame loses nothing: another goes on at the offset that it has. Meanwhile the
/// writer waits, and a reader that does not read stops nobody else.
#[test]
fn client_that_died_is_followed_by_another() {
    let vm = boot();
    let web = web(&vm);
    let exec = web.exec("pour", &Run::probe(["pour", "8388608"]));
    let mut said = Vec::new();
    for round in 0..20 {
        let mut raw = vm.raw_stream();
        let at = opened(&mut raw, &open("web", "pour", 0, "front", said.len() as u64));
        assert_eq!(at, said.len() as u64);
        for _ in 0..=round % 3 {
            match raw.receive() {
                Said::Frame(DATA, data) => said.extend(data),
                other => panic!("{other:?} where DATA was expected"),
            }
        }
        raw.frame(TAKEN, &(said.len() as u64 - 10).to_be_bytes());
        raw.send(&header(TAKEN, 8)[..5]); // and is cut
    }
    let stalled = vm.run("a reader that does not read", stdout(exec.process(), said.len() as u64));
    let other = web.exec("other", &Run::probe(["pour", "4194304"]));
    let read = async { rest_of(stdout(other.process(), 0).await?).await };
    assert_eq!(vm.run("another's", read).unwrap().len(), 4 * MIB);
    drop(stalled);
    let last = exec.process().output(Stream::Stdout).reader("front").from(said.len() as u64);
    let last = async {
        let mut output = last.open().await?;
        while let Some(chunk) = output.next().await? {
            said.extend_from_slice(&chunk.data);
            output.taken(chunk.end()).await?;
        }
        Ok::<_, hyperstart::Error>(())
    };
    vm.run("the rest", last).unwrap();
    assert_eq!(sha256(&said), sha256(&pattern(8 * MIB)));
    assert_eq!(exec.wait(), 0);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// END comes after the last writer is gone and after all its bytes, and once; a reader without a name holds what it has
/// not taken only while it is there.
#[test]
fn end_is_told_once() {
    let vm = boot();
    let web = web(&vm);
    web.exec("say", &Run::probe(["echo", "hi"])).wait();
    let mut raw = vm.raw_stream();
    opened(&mut raw, &open("web", "say", 0, "", 0));
    assert_eq!(raw.receive(), Said::Frame(DATA, b"hi\n".to_vec()));
    assert_eq!(raw.receive(), Said::Frame(END, Vec::new()));
    drop(raw); // and has taken nothing
    let mut again = vm.raw_stream();
    assert_eq!(opened(&mut again, &open("web", "say", 0, "", 0)), 0);
    assert_eq!(again.receive(), Said::Frame(DATA, b"hi\n".to_vec()));
    assert_eq!(again.receive(), Said::Frame(END, Vec::new()));
    let mut err = vm.raw_stream();
    opened(&mut err, &open("web", "say", STDERR, "", 0));
    assert_eq!(err.receive(), Said::Frame(END, Vec::new()));
    err.frame(TAKEN, &0_u64.to_be_bytes());
    again.frame(TAKEN, &3_u64.to_be_bytes());
    again.frame(DATA, b"x");
    assert_eq!(refused(&mut again), INVALID_ARGUMENT);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Whoever does not keep to the protocol is told so and hung up on; nobody else notices.
#[test]
fn broken_streams_hurt_themselves_only() {
    let vm = boot();
    let web = web(&vm);
    let fine = open("web", "", 0, "", 6); // behind what the harness has read
    let frame = |kind, payload: &[u8]| [&header(kind, payload.len())[..], payload].concat();
    let taken = |offset: u64| frame(TAKEN, &offset.to_be_bytes());
    let then = |more: Vec<u8>| [frame(OPEN, &fine), more].concat();
    let broken: Vec<(&str, Vec<u8>, bool, u64)> = vec![
        ("DATA before OPEN", frame(DATA, b"x"), false, INVALID_ARGUMENT),
        ("kind 0", frame(0, b""), false, INVALID_ARGUMENT),
        ("kind 99", frame(99, b""), false, INVALID_ARGUMENT),
        ("a frame that is too large", header(OPEN, 65537).to_vec(), false, INVALID_ARGUMENT),
        ("a length of 2^32-1", header(OPEN, u32::MAX as usize).to_vec(), false, INVALID_ARGUMENT),
        ("an OPEN of 64 KiB", frame(OPEN, &[0; 65536]), false, INVALID_ARGUMENT),
        ("an OPEN that is none", frame(OPEN, &[0xff; 9]), false, INVALID_ARGUMENT),
        ("no container", frame(OPEN, b""), false, INVALID_ARGUMENT),
        ("an unknown container", frame(OPEN, &open("x", "", 0, "", 0)), false, NOT_FOUND),
        ("an unknown exec", frame(OPEN, &open("web", "x", 0, "", 0)), false, NOT_FOUND),
        ("an unknown stream", frame(OPEN, &open("web", "", 7, "", 0)), false, INVALID_ARGUMENT),
        ("a bad reader", frame(OPEN, &open("web", "", 0, "a/b", 0)), false, INVALID_ARGUMENT),
        ("beyond the end", frame(OPEN, &open("web", "", 0, "", 1 << 40)), false, OUT_OF_RANGE),
        ("stdin ahead", frame(OPEN, &open("web", "", STDIN, "", 1)), false, OUT_OF_RANGE),
        ("stdin's reader", frame(OPEN, &open("web", "", STDIN, "a", 0)), false, INVALID_ARGUMENT),
        ("a second OPEN", then(frame(OPEN, &fine)), true, INVALID_ARGUMENT),
        ("DATA to an output", then(frame(DATA, b"x")), true, INVALID_ARGUMENT),
        ("END to an output", then(frame(END, b"")), true, INVALID_ARGUMENT),
        ("FAILED to an output", then(frame(FAILED, b"")), true, INVALID_ARGUMENT),
        ("a short TAKEN", then(frame(TAKEN, b"1234567")), true, INVALID_ARGUMENT),
        ("TAKEN of what was not sent", then(taken(1 << 40)), true, OUT_OF_RANGE),
    ];
    for (what, bytes, opens, code) in broken {
        let mut raw = vm.raw_stream();
        raw.send(&bytes);
        if opens {
            assert!(matches!(raw.receive(), Said::Frame(OPENED, _)), "{what}");
            assert_eq!(refused(&mut raw), code, "{what}");
        } else {
            assert_eq!(refused(&mut raw), code, "{what}");
        }
        drop(raw);
    }
    for silent in [&b""[..], &header(OPEN, 10)[..3], &frame(OPEN, &fine)[..12]] {
        let mut raw = vm.raw_stream();
        raw.send(silent);
    }
    let exec = web.exec("pour", &Run::probe(["pour", "1048576"]));
    let read = async { rest_of(stdout(exec.process(), 0).await?).await };
    assert_eq!(vm.run("a correct one", read).unwrap().len(), MIB);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// There are at most so many streams; one more is refused, and has room once others are gone.
#[test]
fn streams_are_bounded_in_number_and_memory() {
    let vm = boot();
    let web = vm.start("web", &Run::probe(["cat"]));
    let before = vm.init_memory().number("Anonymous");
    let mut held: Vec<_> = (0..MOST).map(|_| vm.raw_stream()).collect();
    let inputs = held.iter_mut().take(MOST / 2);
    for raw in inputs {
        opened(raw, &open("web", "", STDIN, "", 0));
        raw.send(&header(DATA, 65536)); // and nothing of it
    }
    for raw in held.iter_mut().skip(MOST / 2) {
        opened(raw, &open("web", "", 0, "", 0));
    }
    let mut more = vm.raw_stream();
    assert_eq!(refused(&mut more), RESOURCE_EXHAUSTED);
    assert_eq!(more.receive(), Said::HungUp);
    let grown = vm.init_memory().number("Anonymous").saturating_sub(before);
    assert!(grown < 4096, "PID 1 grew by {grown} KiB for {MOST} streams");
    drop((held, more));
    let read = async {
        let mut input = web.process().input(0).await?;
        input.write(b"hi").await?;
        input.close().await?;
        rest_of(stdout(web.process(), 0).await?).await
    };
    assert_eq!(vm.run("one more", read).unwrap(), b"hi");
    assert_eq!(web.wait(), 0);
    web.remove();
    vm.shutdown();
}

/// A stream that is read holds more on its way; a few at a time, and no longer than it is read.
#[test]
fn what_fast_streams_hold_is_bounded() {
    let vm = boot();
    let web = web(&vm);
    let before = vm.init_memory().number("Anonymous");
    let readers: Vec<_> = (0..24)
        .map(|number| {
            let exec = web.exec(&format!("e{number}"), &Run::probe(["pour", "1073741824"]));
            let process = exec.process().clone();
            vm.run("read some", async {
                let mut output = stdout(&process, 0).await?;
                let mut some = vec![0; 2 * MIB];
                output.read_exact(&mut some).await.unwrap();
                assert_eq!(sha256(&some), sha256(&pattern(2 * MIB)));
                Ok::<_, hyperstart::Error>(output)
            })
            .unwrap()
        })
        .collect();
    // 64 KiB each and 448 KiB more for eight are 5 MiB, and there are chunks that are taken in part. If all held 512 KiB, it
    // were more than 12 MiB.
    let grown = vm.init_memory().number("Anonymous").saturating_sub(before);
    assert!(grown < 8192, "PID 1 grew by {grown} KiB");
    drop(readers);
    let other = web.exec("other", &Run::probe(["pour", "4194304"]));
    let read = async { rest_of(stdout(other.process(), 0).await?).await };
    assert_eq!(sha256(&vm.run("one more", read).unwrap()), sha256(&pattern(4 * MIB)));
    web.kill();
    web.remove();
    vm.shutdown();
}

/// stdin takes each byte once, whoever sends it again; it is closed once; and what is behind its end is refused.
#[test]
fn input_is_taken_once() {
    for transport in [TransportKind::VhostUserVsock, TransportKind::Serial] {
        let vm = Vm::boot(&VmConfig { transport: Some(transport), ..VmConfig::default() });
        let bytes = pattern(MIB);
        let web = vm.start("web", &Run::probe(["sum"]));
        let process = web.process();
        let feed = async {
            let mut first = process.input(0).await?;
            first.write(&bytes[..400_000]).await?;
            assert_eq!(first.offset(), 400_000);
            drop(first); // without an end
            let ahead = process.input(400_001).await.map(drop).unwrap_err();
            assert_eq!(ahead.code(), Code::OutOfRange, "{ahead}");
            let mut again = process.input(100_000).await?;
            let known = usize::try_from(again.offset()).unwrap();
            assert_eq!(known, 400_000, "it says how much it has");
            let mut other = process.input(0).await?;
            again.write(&bytes[known..]).await?;
            other.write(&bytes[known..]).await?; // the same once more
            other.close().await?;
            let closed = again.write(b"x").await.unwrap_err();
            assert_eq!(closed.code(), Code::FailedPrecondition, "{closed}");
            process.input(0).await?.close().await // for the second time
        };
        vm.run("feed", feed).unwrap_or_else(|err| panic!("over {transport:?}: {err}"));
        let said = web.finish().facts();
        assert_eq!(said.number("bytes"), MIB as u64, "over {transport:?}");
        assert_eq!(said.get("sha256"), sha256(&bytes), "over {transport:?}");
        web.remove();
        vm.shutdown();
    }
}

/// A stream is tokio's AsyncRead too, and a container's removal ends it.
#[test]
fn removal_ends_a_stream() {
    let vm = boot();
    let web = vm.start("web", &Run::shell("printf hello; exec sleep 100000"));
    let mut output = vm.run("open", stdout(web.process(), 0)).unwrap();
    let mut hello = [0; 5];
    vm.run("hello", output.read_exact(&mut hello)).unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(output.offset(), 5);
    web.remove();
    let mut rest = Vec::new();
    vm.run("the end", output.read_to_end(&mut rest)).unwrap();
    assert!(rest.is_empty());
    vm.shutdown();
}
