//! Commands that do one thing each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::fs::{
    CWD, FileType, Mode, RenameFlags, XattrFlags, getxattr, makedev, mknodat, renameat_with,
    setxattr,
};
use rustix::termios::tcgetwinsize;
use sha2::{Digest, Sha256};

use crate::Outcome;

/// One write(2): less than a pipe holds, so that a reader sees output flow and not one lump.
const CHUNK: usize = 16 * 1024;
/// Prime, so that a lost, doubled or moved page shifts the pattern and the hash shows it.
const PATTERN_PERIOD: usize = 251;

/// Each argument on a line of its own.
pub fn echo(words: &[String]) -> Outcome {
    let mut stdout = io::stdout().lock();
    for word in words {
        writeln!(stdout, "{word}")?;
    }
    Ok(0)
}

/// Panics, as a program with a bug does.
#[allow(clippy::panic)] // it is what is asked for
pub fn panic_saying(message: &str) -> Outcome {
    panic!("{message}")
}

/// Dies by the signal, as the kernel's default has it.
pub fn kill_self(signo: i32) -> Outcome {
    let deadly = Signal::try_from(signo)?;
    dispose(deadly, SigHandler::SigDfl)?; // Rust catches SIGSEGV to tell of stack overflows
    raise(deadly)?;
    sleep(10_000) // a signal that is not deadly, or PID 1 that sends to itself: the caller's deadline finds it
}

/// Says `ready` and then sleeps for ever under signals that ask a process to go; only SIGKILL ends it.
pub fn ignore_signals() -> Outcome {
    for asked in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        dispose(asked, SigHandler::SigIgn)?;
    }
    say("ready")?;
    loop {
        thread::park();
    }
}

/// Says `ready`, waits for the signal, says which came and exits with the code.
pub fn catch(signo: i32, code: u8) -> Outcome {
    extern "C" fn nothing(_: i32) {}
    let awaited = Signal::try_from(signo)?;
    dispose(awaited, SigHandler::Handler(nothing))?; // seen by who asks whether this process handles it
    let mut set = SigSet::empty();
    set.add(awaited);
    set.thread_block()?;
    say("ready")?;
    let came = set.wait()?;
    say(&format!("caught {}", came.as_str()))?;
    Ok(code)
}

#[allow(unsafe_code)] // signal(2) has no safe form in nix
fn dispose(which: Signal, how: SigHandler) -> io::Result<()> {
    // SAFETY: the only handler that this program installs does nothing, which is async-signal-safe.
    unsafe { signal(which, how) }?;
    Ok(())
}

pub fn sleep(milliseconds: u64) -> Outcome {
    thread::sleep(Duration::from_millis(milliseconds));
    Ok(0)
}

/// The pattern, so many bytes of it, to `stdout` or `stderr`.
pub fn write(stream: &str, bytes: usize) -> Outcome {
    match stream {
        "stdout" => pour(io::stdout().lock(), bytes)?,
        "stderr" => pour(io::stderr().lock(), bytes)?,
        other => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{other:?}: stdout or stderr"),
            ));
        }
    }
    Ok(0)
}

/// The pattern to stdout, as fast as it goes and without having it all in memory.
pub fn pour_out(bytes: usize) -> Outcome {
    let piece = pattern(PATTERN_PERIOD * 256);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?); // io::Stdout looks for lines
    let mut rest = bytes;
    while rest > 0 {
        let piece = piece.get(..rest).unwrap_or(&piece);
        stdout.write_all(piece)?;
        rest -= piece.len();
    }
    Ok(0)
}

/// The pattern to both streams, chunk by chunk in turn.
pub fn write_both(bytes: usize) -> Outcome {
    let pattern = pattern(bytes);
    for chunk in pattern.chunks(CHUNK) {
        io::stdout().lock().write_all(chunk)?;
        io::stderr().lock().write_all(chunk)?;
    }
    io::stdout().flush()?;
    Ok(0)
}

fn pour(mut stream: impl Write, bytes: usize) -> io::Result<()> {
    for chunk in pattern(bytes).chunks(CHUNK) {
        stream.write_all(chunk)?;
    }
    stream.flush()
}

/// The tests make the same bytes on their side of the wire.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..PATTERN_PERIOD).filter_map(|index| u8::try_from(index).ok()).cycle().take(bytes).collect()
}

/// Length and hash of stdin up to its end.
pub fn sum() -> Outcome {
    let (mut hash, mut total, mut buffer) = (Sha256::new(), 0_u64, vec![0; CHUNK]);
    let mut stdin = io::stdin().lock();
    loop {
        let got = stdin.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        total += u64::try_from(got).unwrap_or_default();
    }
    say(&format!("bytes={total}"))?;
    say(&format!("sha256={}", hex(&hash.finalize())))?;
    Ok(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// stdin to stdout.
pub fn cat() -> Outcome {
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())?;
    Ok(0)
}

/// Starts children that sleep, and goes without waiting for them.
pub fn orphans(count: u32, milliseconds: u64) -> Outcome {
    let myself = std::env::current_exe()?;
    for _ in 0..count {
        let sleeper = Command::new(&myself)
            .args(["sleep", &milliseconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        drop(sleeper); // not waited for: that is the point
    }
    say(&format!("orphans={count}"))?;
    Ok(0)
}

/// Takes memory and touches every page of it.
pub fn allocate(mebibytes: usize) -> Outcome {
    let mut held: Vec<Vec<u8>> = Vec::new();
    for done in 1..=mebibytes {
        held.push(vec![1; 1 << 20]);
        say(&format!("allocated={done}"))?;
    }
    Ok(0)
}

/// Takes memory, touches every page of it, says `held`, and keeps it.
pub fn hold(mebibytes: usize) -> Outcome {
    let held = vec![1_u8; mebibytes << 20];
    say("held")?;
    sleep(u64::MAX)?;
    drop(held);
    Ok(0)
}

/// What each file says, as `path=length:first line`, or `path=error:ERRNO`: what masking and read-only leave of it.
pub fn read(paths: &[String]) -> Outcome {
    for path in paths {
        let mut content = Vec::new();
        match File::open(path).and_then(|mut file| file.read_to_end(&mut content)) {
            Ok(length) => {
                let first = String::from_utf8_lossy(&content);
                say(&format!("{path}={length}:{}", first.lines().next().unwrap_or_default()))?;
            }
            Err(err) => say(&format!("{path}=error:{}", err.raw_os_error().unwrap_or_default()))?,
        }
    }
    Ok(0)
}

/// Connects to a vsock port by each address that may mean this guest, and asks for the agent's health:
/// `cid.NUMBER=answered`, `silent`, or an errno.
pub fn reach_vsock(port: u32) -> Outcome {
    const ANY: u32 = u32::MAX; // VMADDR_CID_ANY: a guest's own, as the ioctl that tells it is /dev/vsock's
    const LOCAL: u32 = 1;
    const USUAL_GUEST: u32 = 3;
    const HYPERVISOR: u32 = 0;
    const HOST: u32 = 2; // a listener of the host's would be another way in
    for cid in [HYPERVISOR, LOCAL, HOST, USUAL_GUEST, ANY] {
        match ask_health(cid, port) {
            Ok(true) => say(&format!("cid.{cid}=answered"))?,
            Ok(false) => say(&format!("cid.{cid}=silent"))?,
            Err(err) => say(&format!("cid.{cid}={}", err.raw_os_error().unwrap_or_default()))?,
        }
    }
    Ok(0)
}

/// Whether anything comes back.
fn ask_health(cid: u32, port: u32) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    let patience = TimeVal::seconds(2);
    setsockopt(&socket, sockopt::SendTimeout, &patience)?; // a connect too: socket(7)
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(cid, port))?;
    let request = b"\x0a\x0bgrpc.Health\x12\x05Check";
    let mut frame =
        vec![0, 0, 0, u8::try_from(request.len()).map_err(io::Error::other)?, 0, 0, 0, 1, 1, 0];
    frame.extend_from_slice(request);
    let mut stream = File::from(socket);
    stream.write_all(&frame)?;
    Ok(matches!(stream.read(&mut [0; 10]), Ok(1..)))
}

/// The lines of a file that hold a text.
pub fn find(path: &str, text: &str) -> Outcome {
    for line in fs::read_to_string(path)?.lines().filter(|line| line.contains(text)) {
        say(line)?;
    }
    Ok(0)
}

/// `open=ok`, or `open=ERRNO`.
pub fn open_for_writing(path: &str) -> Outcome {
    say_result("open", OpenOptions::new().write(true).open(path).map(drop))
}

/// Makes a node for the first virtio disk and opens it: `make=`, then `open=`, each `ok` or an errno.
pub fn make_node(path: &str) -> Outcome {
    const VIRTIO_BLK_MAJOR: u32 = 254; // the first dynamic one: what the guest's kernel gives virtio_blk
    let device = makedev(VIRTIO_BLK_MAJOR, 0);
    let made = mknodat(CWD, path, FileType::BlockDevice, Mode::from_raw_mode(0o600), device);
    say_result("make", made.map_err(io::Error::from))?;
    say_result("open", File::open(path).map(drop))
}

/// Says `swapping`, and then swaps two names for ever.
pub fn swap(one: &str, two: &str) -> Outcome {
    say("swapping")?;
    loop {
        renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)?;
    }
}

/// Gives a file an extended attribute.
pub fn set_xattr(path: &str, name: &str, value: &str) -> Outcome {
    setxattr(path, name, value.as_bytes(), XattrFlags::empty())?;
    Ok(0)
}

/// An extended attribute of a file, as `NAME=VALUE`.
pub fn xattr(path: &str, name: &str) -> Outcome {
    let mut value = vec![0; 256];
    let length = getxattr(path, name, value.as_mut_slice())?;
    let value = String::from_utf8_lossy(value.get(..length).unwrap_or_default()).into_owned();
    say(&format!("{name}={value}"))?;
    Ok(0)
}

fn say_result(name: &str, result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => say(&format!("{name}=ok"))?,
        Err(err) => say(&format!("{name}={}", err.raw_os_error().unwrap_or_default()))?,
    }
    Ok(0)
}

/// Says `ready`, then waits until the terminal on stdin has the size, and says so.
pub fn await_size(columns: u16, rows: u16) -> Outcome {
    say("ready")?;
    loop {
        let size = tcgetwinsize(io::stdin())?;
        if (size.ws_col, size.ws_row) == (columns, rows) {
            say(&format!("size={columns}x{rows}"))?;
            return Ok(0);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Lines on stdout, and status 0.
pub fn print(lines: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    stdout.flush()?;
    Ok(0)
}

/// A line on stdout, at once: whoever waits for it reads a pipe.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
