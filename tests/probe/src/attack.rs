//! What a process tries that wants out of its container. Each command says how far it came; the test says how far is
//! too far.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::Outcome;

/// How often something was found, by what it is.
#[derive(Default)]
struct Found(BTreeMap<String, u64>);

impl Found {
    fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn say(&self) -> Outcome {
        for (what, count) in &self.0 {
            say(&format!("{what}={count}"))?;
        }
        Ok(0)
    }
}

/// Says `ready`, then until its input ends goes after every other process that /proc shows: reads its descriptors and its
/// program, opens its root, opens its program for writing, traces it.
///
/// `fd.TARGET`, `exe.PATH`, `guest-root`, `written.PATH`, `traced.PATH` with how often; `seen` is the number of process
/// ids met.
pub fn chase() -> Outcome {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let (mut found, mut seen) = (Found::default(), BTreeSet::new());
    let ourselves = std::process::id();
    thread::spawn(|| {
        let ended = io::stdin().read_to_end(&mut Vec::new());
        ENOUGH.store(ended.is_ok(), Ordering::Relaxed);
    });
    say("ready")?;
    while !ENOUGH.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if pid != ourselves {
                seen.insert(pid);
                attack_process(&mut found, pid);
            }
        }
    }
    say(&format!("seen={}", seen.len()))?;
    found.say()
}

/// Every step may fail because the process has just ended, or because it is protected: what worked is what counts.
fn attack_process(found: &mut Found, pid: u32) {
    let place = format!("/proc/{pid}");
    for entry in fs::read_dir(format!("{place}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
        found.add(format!("fd.{kind}"));
    }
    let program = || fs::read_link(format!("{place}/exe")).map(|path| path.display().to_string());
    if let Ok(path) = program() {
        found.add(format!("exe.{path}"));
        if OpenOptions::new().write(true).open(format!("{place}/exe")).is_ok() {
            found.add(format!("written.{path}"));
        }
    }
    if Path::new(&format!("{place}/root/run/kata-containers")).exists() {
        found.add("guest-root");
    }
    let traced = i32::try_from(pid).map(Pid::from_raw);
    let Some(traced) = traced.ok().filter(|pid| ptrace::attach(*pid).is_ok()) else { return };
    let stopped = waitpid(traced, Some(WaitPidFlag::__WALL)); // what it is while it stands still
    match program() {
        Ok(path) => found.add(format!("traced.{path}")),
        Err(_) => found.add("traced-at-its-end"), // it has no memory left to look into
    }
    if stopped.is_ok() && ptrace::detach(traced, None).is_err() {
        found.add("lost"); // it was killed meanwhile
    }
    if kill(traced, Signal::SIGCONT).is_err() {
        found.add("gone"); // else the stop that tracing began with could hold it when nobody traces it
    }
}

/// Makes a node for each `KIND:MAJOR:MINOR` and opens it: `node.KIND:MAJOR:MINOR.make`, `.read`, `.write`, each `ok` or
/// an errno.
pub fn nodes(numbers: &[String]) -> Outcome {
    for number in numbers {
        let mut parts = number.split(':');
        let (Some(kind), Some(major), Some(minor)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(io::Error::other(format!("{number:?}: not KIND:MAJOR:MINOR")));
        };
        let parse = |text: &str| text.parse::<u32>().map_err(io::Error::other);
        try_node(&format!("node.{number}"), kind, parse(major)?, parse(minor)?)?;
    }
    Ok(0)
}

/// As [`nodes`], for every device that the kernel has: /sys/dev.
pub fn all_nodes() -> Outcome {
    let mut numbers = Vec::new();
    for (kind, directory) in [("b", "/sys/dev/block"), ("c", "/sys/dev/char")] {
        for entry in fs::read_dir(directory)?.flatten() {
            numbers.push(format!("{kind}:{}", entry.file_name().display()));
        }
    }
    nodes(&numbers)
}

fn try_node(name: &str, kind: &str, major: u32, minor: u32) -> io::Result<()> {
    let kind = if kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let path = format!("/tmp/{name}");
    let made = mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), makedev(major, minor));
    say_result(&format!("{name}.make"), made.map_err(io::Error::from))?;
    say_result(&format!("{name}.read"), File::open(&path).map(drop))?;
    say_result(&format!("{name}.write"), OpenOptions::new().write(true).open(&path).map(drop))
}

/// System calls by number, with zeros for arguments: `call.NUMBER=ok` or an errno.
#[allow(unsafe_code)] // a raw syscall, which is what is tried
pub fn call_numbers(numbers: &[String]) -> Outcome {
    for number in numbers {
        let number: i64 = number.parse().map_err(io::Error::other)?;
        // SAFETY: zeros are no addresses to the calls that a test names here: the kernel reads and writes nothing of
        // ours.
        let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
        let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        say_result(&format!("call.{number}"), result)?;
    }
    Ok(0)
}

/// Sends noise and lies to every uevent socket that /proc/net/netlink shows: `sockets=`, `sent=`, `refused=`.
pub fn spoof_uevents() -> Outcome {
    const UEVENTS: &str = "15"; // NETLINK_KOBJECT_UEVENT
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let own = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let lie =
        b"add@/devices/virtual/block/vdz\0ACTION=add\0DEVPATH=/x\0SUBSYSTEM=block\0DEVNAME=vdz\0";
    let (mut sockets, mut sent, mut refused) = (0, 0, 0);
    for line in fs::read_to_string("/proc/net/netlink")?.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(&UEVENTS), Some(port)) = (fields.get(1), fields.get(2)) else { continue };
        let port: u32 = port.parse().map_err(io::Error::other)?;
        if port == 0 {
            continue; // the kernel's own
        }
        sockets += 1;
        for message in [lie.as_slice(), &[0xff; 8192], &[0]].iter().cycle().take(300) {
            let address = NetlinkAddr::new(port, 0);
            match sendto(own.as_raw_fd(), message, &address, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => sent += 1,
                Err(_) => refused += 1,
            }
        }
    }
    say(&format!("sockets={sockets}"))?;
    say(&format!("sent={sent}"))?;
    say(&format!("refused={refused}"))?;
    Ok(0)
}

/// Listens at an abstract address, says `ready`, and stays.
pub fn listen_abstract(name: &str) -> Outcome {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    say("ready")?;
    thread::sleep(Duration::from_secs(3600));
    drop(listener);
    Ok(0)
}

/// Opens files until so many are open or no more can be, says how many they are, and keeps them.
pub fn hold_files(count: usize) -> Outcome {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut held = Vec::new();
    while held.len() < count {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(err) => {
                say(&format!("held={} errno={}", held.len(), err.raw_os_error().unwrap_or(0)))?;
                return keep(&held);
            }
        }
    }
    say(&format!("held={} errno=0", held.len()))?;
    keep(&held)
}

fn keep(_held: &[File]) -> Outcome {
    thread::sleep(Duration::from_secs(3600));
    Ok(0)
}

/// Takes the program that decides on device access off the cgroup that is this process's root: `program=` is how many
/// programs could be had, `detached=` how many came off, `errno.CALL=` the last refusal.
#[allow(unsafe_code)] // bpf(2) has no wrapper
pub fn detach_device_rules() -> Outcome {
    const PROG_GET_NEXT_ID: i32 = 11;
    const PROG_GET_FD_BY_ID: i32 = 13;
    const PROG_DETACH: i32 = 9;
    const CGROUP_DEVICE: u32 = 6;
    let cgroup = File::open("/sys/fs/cgroup")?;
    let bpf = |command: i32, attr: &mut [u32; 32]| {
        // SAFETY: `attr` is a live bpf_attr of the size that is said, and these commands take no pointers in it.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    };
    let (mut id, mut programs, mut detached) = (0, 0, 0);
    loop {
        let mut attr = [0; 32];
        attr[0] = id;
        if let Err(err) = bpf(PROG_GET_NEXT_ID, &mut attr) {
            say(&format!("errno.next={}", err.raw_os_error().unwrap_or_default()))?;
            break;
        }
        id = attr[1];
        let mut attr = [0; 32];
        attr[0] = id;
        let Ok(program) = bpf(PROG_GET_FD_BY_ID, &mut attr) else { continue };
        programs += 1;
        let mut attr = [0; 32];
        attr[0] = cgroup.as_raw_fd().cast_unsigned();
        attr[1] = u32::try_from(program).map_err(io::Error::other)?;
        attr[2] = CGROUP_DEVICE;
        match bpf(PROG_DETACH, &mut attr) {
            Ok(_) => detached += 1,
            Err(err) => say(&format!("errno.detach={}", err.raw_os_error().unwrap_or_default()))?,
        }
    }
    say(&format!("programs={programs}"))?;
    say(&format!("detached={detached}"))?;
    Ok(0)
}

fn say_result(name: &str, result: io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => say(&format!("{name}=ok")),
        Err(err) => say(&format!("{name}={}", err.raw_os_error().unwrap_or_default())),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
