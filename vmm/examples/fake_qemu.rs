//! Stands for QEMU, or for vhost-device-vsock, in tests that need no guest.
//!
//! As QEMU it takes the same arguments, answers on QMP and does what words of the kernel's command line say:
//! - `fake.console=TEXT` (with `_` for a space) prints a console line;
//! - `fake.ready` says READY on the serial port and then echoes frames, `fake.hangup` with it closes the port at the
//!   first; `fake.wrong` says something else;
//! - `fake.stop` tells by QMP that the guest stands still; `fake.exit=N` ends after QMP; `fake.hang`, or nothing, hangs;
//! - `fake.refuse=TEXT` says TEXT on stderr and ends before QMP, `fake.no-seccomp` does if it is told to confine
//!   itself; `fake.reset` ends before QMP without a word.
//!
//! As the daemon (it is when it is given `--uds-path`) it listens and waits.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "a test's stand-in")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's stand-in")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use hyperstart_protocol::{FRAME_HEADER, READY_LINE};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    if let Some(uds) = after("--uds-path") {
        let _clients = UnixListener::bind(uds).unwrap();
        let _listener = UnixListener::bind(after("--socket").unwrap()).unwrap();
        hang();
    }
    let kernel_words = after("-append").unwrap();
    let word = |name: &str| {
        kernel_words.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned)
    };
    if let Some(text) = word("fake.refuse=") {
        eprintln!("qemu-system-x86_64: {}", text.replace('_', " "));
        std::process::exit(1);
    }
    if word("fake.no-seccomp").is_some() && after("-sandbox").is_some() {
        eprintln!("qemu-system-x86_64: -sandbox support is not enabled in this QEMU binary");
        std::process::exit(1);
    }
    if word("fake.reset").is_some() {
        return;
    }
    let stops = word("fake.stop").is_some();
    if let Some(path) = socket_of(&args, "heir") {
        let heirs = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            heirs.incoming().for_each(|heir| serve_qmp(heir.unwrap(), stops))
        });
    }
    let port = serial_server(&args);
    let qmp = UnixStream::connect(socket_of(&args, "qmp").unwrap()).unwrap();
    std::thread::spawn(move || serve_qmp(qmp, stops));
    if let Some(text) = word("fake.console=") {
        println!("{}", text.replace('_', " "));
    }
    if let Some(code) = word("fake.exit=") {
        std::thread::sleep(Duration::from_millis(300)); // after QMP
        std::process::exit(code.parse().unwrap());
    }
    let line = match (word("fake.ready"), word("fake.wrong")) {
        (Some(_), _) => READY_LINE,
        (None, Some(_)) => "login: \n",
        (None, None) => hang(),
    };
    if let Some(port) = port {
        for agent in port.incoming() {
            let mut agent = agent.unwrap();
            if agent.write_all(line.as_bytes()).is_ok() {
                echo_frames(agent);
            }
        }
    }
    let mut agent = UnixStream::connect(socket_of(&args, "agent").unwrap()).unwrap();
    agent.write_all(line.as_bytes()).unwrap();
    if word("fake.hangup").is_some() {
        agent.read_exact(&mut [0]).unwrap();
        drop(agent);
        hang();
    }
    echo_frames(agent);
}

/// The path of the socket chardev that has this id.
fn socket_of(args: &[String], id: &str) -> Option<String> {
    let start = format!("socket,id={id},");
    let chardev = args.iter().find(|arg| arg.starts_with(&start))?;
    chardev.split_once("path=").map(|(_, path)| path.to_owned())
}

/// Where the serial port's host side connects, if that is so.
fn serial_server(args: &[String]) -> Option<UnixListener> {
    let server = args.iter().any(|arg| arg.starts_with("socket,id=agent,server=on"));
    server.then(|| UnixListener::bind(socket_of(args, "agent").unwrap()).unwrap())
}

fn serve_qmp(stream: UnixStream, stops: bool) {
    let status = if stops { "internal-error" } else { "running" };
    let mut writer = stream.try_clone().unwrap();
    writer.write_all(b"{\"QMP\": {}}\n").unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let command: serde_json::Value = serde_json::from_str(&line).unwrap();
        let returned = serde_json::json!({"status": status, "running": !stops});
        let answer = serde_json::json!({"return": returned, "id": command["id"]});
        writer.write_all(format!("{answer}\n").as_bytes()).unwrap();
        if command["execute"] == "query-status" && stops {
            writer.write_all(b"{\"event\": \"STOP\"}\n").unwrap();
        }
        if command["execute"] == "quit" {
            std::process::exit(0);
        }
    }
}

/// Answers each request with its own payload.
fn echo_frames(mut agent: UnixStream) {
    let mut header = [0; FRAME_HEADER];
    while agent.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let mut frame = header.to_vec();
        frame[8] = 2;
        Read::by_ref(&mut agent).take(u64::from(length)).read_to_end(&mut frame).unwrap();
        if agent.write_all(&frame).is_err() {
            return;
        }
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
