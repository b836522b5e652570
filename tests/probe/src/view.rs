//! What a process sees of itself and of the guest, one `name=value` a line.
//!
//! A name that repeats (`env.`, `mount.`) carries its key in the name. What cannot be found out is said as
//! `name=error:ERRNO`, never left out: a test that asks for it then fails with the reason in sight.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{OFlags, major, minor};
use rustix::process::{
    Resource, getegid, geteuid, getgid, getgroups, getpid, getppid, getrlimit, getuid, umask,
};
use rustix::system::uname;
use rustix::termios::tcgetwinsize;

use crate::Outcome;

const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// Lines of `/proc/self/status` that are told as they are.
const STATUS: &[&str] = &[
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "SigIgn",
    "SigBlk",
];
/// Files of the process's own cgroup, as its cgroup namespace shows them.
const CGROUP_FILES: &[&str] =
    &["memory.max", "memory.current", "cpu.max", "cpu.weight", "pids.max", "cgroup.procs"];
const RESOURCES: &[(&str, Resource)] = &[
    ("AS", Resource::As),
    ("CORE", Resource::Core),
    ("CPU", Resource::Cpu),
    ("DATA", Resource::Data),
    ("FSIZE", Resource::Fsize),
    ("LOCKS", Resource::Locks),
    ("MEMLOCK", Resource::Memlock),
    ("MSGQUEUE", Resource::Msgqueue),
    ("NICE", Resource::Nice),
    ("NOFILE", Resource::Nofile),
    ("NPROC", Resource::Nproc),
    ("RSS", Resource::Rss),
    ("RTPRIO", Resource::Rtprio),
    ("RTTIME", Resource::Rttime),
    ("SIGPENDING", Resource::Sigpending),
    ("STACK", Resource::Stack),
];

/// All that this process sees of itself.
pub fn print() -> Outcome {
    let mut facts = Facts::default();
    facts.process();
    facts.identity();
    facts.status();
    facts.limits();
    facts.namespaces("/proc/self");
    facts.terminal();
    facts.files();
    facts.cgroup();
    facts.mounts();
    facts.nodes();
    facts.print()
}

/// The namespaces of another process: `ns.NAME=`.
pub fn print_namespaces(pid: &str) -> Outcome {
    let mut facts = Facts::default();
    facts.namespaces(&format!("/proc/{pid}"));
    facts.print()
}

#[derive(Default)]
struct Facts(Vec<(String, String)>);

impl Facts {
    fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    fn add_result<T: ToString>(&mut self, name: impl Into<String>, value: io::Result<T>) {
        match value {
            Ok(value) => self.add(name, value),
            Err(err) => self.add(name, format!("error:{}", err.raw_os_error().unwrap_or_default())),
        }
    }

    fn process(&mut self) {
        self.add("pid", getpid().as_raw_nonzero());
        self.add("ppid", getppid().map_or(0, |pid| pid.as_raw_nonzero().get()));
        // 0: the session's leader is outside this pid namespace, which rustix's type cannot say.
        self.add_result("sid", nix::unistd::getsid(None).map_err(io::Error::from));
        let name = uname();
        self.add("hostname", name.nodename().to_string_lossy());
        self.add("kernel", name.release().to_string_lossy());
        self.add_result("cwd", std::env::current_dir().map(|path| path.display().to_string()));
        for (name, value) in std::env::vars_os() {
            self.add(format!("env.{}", name.display()), value.display());
        }
        for (index, word) in std::env::args_os().enumerate() {
            self.add(format!("arg.{index}"), word.display());
        }
    }

    fn identity(&mut self) {
        self.add("uid", getuid().as_raw());
        self.add("euid", geteuid().as_raw());
        self.add("gid", getgid().as_raw());
        self.add("egid", getegid().as_raw());
        let groups = getgroups().map_err(io::Error::from).map(|groups| {
            let sorted: BTreeSet<u32> = groups.iter().map(|gid| gid.as_raw()).collect();
            sorted.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        });
        self.add_result("groups", groups);
        let mask = umask(rustix::fs::Mode::empty());
        umask(mask);
        self.add("umask", format!("{:04o}", mask.bits()));
        self.add_result("oom_score_adj", read_trimmed("/proc/self/oom_score_adj"));
    }

    fn status(&mut self) {
        let status = fs::read_to_string("/proc/self/status");
        for name in STATUS {
            let value = match &status {
                Ok(text) => text
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .map_or_else(|| "absent".to_owned(), |value| value.trim().to_owned()),
                Err(err) => format!("error:{}", err.raw_os_error().unwrap_or_default()),
            };
            self.add(*name, value);
        }
    }

    fn limits(&mut self) {
        let say = |limit: Option<u64>| {
            limit.map_or_else(|| "unlimited".to_owned(), |value| value.to_string())
        };
        for (name, resource) in RESOURCES {
            let limit = getrlimit(*resource);
            self.add(
                format!("rlimit.{name}"),
                format!("{}:{}", say(limit.current), say(limit.maximum)),
            );
        }
    }

    fn namespaces(&mut self, process: &str) {
        for name in NAMESPACES {
            let link = fs::read_link(format!("{process}/ns/{name}"));
            self.add_result(format!("ns.{name}"), link.map(|path| path.display().to_string()));
        }
    }

    fn terminal(&mut self) {
        self.add(
            "tty",
            format!(
                "{}{}{}",
                tty_digit(&io::stdin()),
                tty_digit(&io::stdout()),
                tty_digit(&io::stderr())
            ),
        );
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            self.add("tty.size", format!("{}x{}", size.ws_col, size.ws_row));
        }
        self.add_result(
            "tty.name",
            fs::read_link("/proc/self/fd/0").map(|path| path.display().to_string()),
        );
        // Opens only for a process that has a controlling terminal: tty(4).
        self.add_result("tty.controlling", fs::File::open("/dev/tty").map(|_| "yes"));
    }

    /// `fd.NUMBER=TARGET`; the descriptor that lists them is left out.
    fn files(&mut self) {
        let listed = match fs::read_dir("/proc/self/fd") {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>(),
            Err(err) => return self.add_result::<String>("fds", Err(err)),
        };
        for path in listed {
            // The list's own descriptor is closed again, so its link is gone.
            let Ok(target) = fs::read_link(&path) else { continue };
            self.add(
                format!("fd.{}", path.file_name().unwrap_or_default().display()),
                target.display(),
            );
        }
    }

    fn cgroup(&mut self) {
        self.add_result("cgroup", read_trimmed("/proc/self/cgroup"));
        for name in CGROUP_FILES {
            let value = read_trimmed(&format!("/sys/fs/cgroup/{name}"));
            self.add_result(format!("cgroup.{name}"), value.map(|text| text.replace('\n', ",")));
        }
    }

    /// `mount.TARGET=FSTYPE SOURCE OPTIONS`, of proc_pid_mounts(5).
    fn mounts(&mut self) {
        match fs::read_to_string("/proc/self/mounts") {
            Ok(text) => {
                for line in text.lines() {
                    let mut fields = line.split(' ');
                    if let (Some(source), Some(target), Some(fstype), Some(options)) =
                        (fields.next(), fields.next(), fields.next(), fields.next())
                    {
                        self.add(format!("mount.{target}"), format!("{fstype} {source} {options}"));
                    }
                }
            }
            Err(err) => self.add_result::<String>("mounts", Err(err)),
        }
    }

    /// `dev.NAME=KIND MAJOR:MINOR MODE UID:GID`, or where a link points.
    fn nodes(&mut self) {
        let mut names: Vec<_> = fs::read_dir("/dev")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        for path in names {
            let name = format!("dev.{}", path.file_name().unwrap_or_default().display());
            self.add_result(name, describe(&path));
        }
    }

    fn print(self) -> Outcome {
        let mut out = String::new();
        for (name, value) in self.0 {
            out.push_str(&format!("{name}={value}\n"));
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()?;
        Ok(0)
    }
}

fn tty_digit(stream: &impl IsTerminal) -> u8 {
    u8::from(stream.is_terminal())
}

fn read_trimmed(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

fn describe(path: &Path) -> io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        return Ok(format!("-> {}", fs::read_link(path)?.display()));
    }
    let letter = match () {
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_dir() => 'd',
        () if kind.is_fifo() => 'p',
        () => '-',
    };
    let mode = meta.permissions().mode() & 0o7777;
    let (device, uid, gid) = (meta.rdev(), meta.uid(), meta.gid());
    Ok(format!("{letter} {}:{} {mode:04o} {uid}:{gid}", major(device), minor(device)))
}

/// The guest as its PID 1 sees it, through binds of its `/proc` and its `/dev/kmsg`: whether anything was left behind.
///
/// `zombie=PID NAME`, `process=PID NAME` (kernel threads left out), `guest_mount=TARGET`, `ns.NAME=` of PID 1,
/// `kernel=LINE` of its log.
pub fn print_guest(proc: &str, kmsg: &str) -> Outcome {
    let mut facts = Facts::default();
    let mut pids: Vec<u32> = fs::read_dir(proc)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        // A process may be gone since it was listed.
        let Ok(stat) = fs::read_to_string(format!("{proc}/{pid}/stat")) else { continue };
        facts.guest_process(pid, &stat);
    }
    for line in fs::read_to_string(format!("{proc}/1/mountinfo"))?.lines() {
        facts.add("guest_mount", line.split(' ').nth(4).unwrap_or_default());
    }
    facts.namespaces(&format!("{proc}/1"));
    facts.kernel_log(kmsg)?;
    facts.print()
}

impl Facts {
    /// One read(2) is one record, `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`, and EAGAIN is the end of the log so far.
    fn kernel_log(&mut self, kmsg: &str) -> io::Result<()> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let mut log = fs::OpenOptions::new().read(true).custom_flags(flags).open(kmsg)?;
        let mut record = vec![0; 8192];
        loop {
            match log.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    let line = text.split_once(';').map_or("", |(_, line)| line);
                    self.add("kernel", line.lines().next().unwrap_or_default());
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {} // records were overwritten: go on
                Err(err) => return Err(err),
            }
        }
    }

    /// proc_pid_stat(5): `PID (NAME) STATE PPID PGRP SESSION TTY TPGID FLAGS ...`; PF_KTHREAD is a flag.
    fn guest_process(&mut self, pid: u32, stat: &str) {
        const PF_KTHREAD: u64 = 0x0020_0000;
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "))
        else {
            return;
        };
        let fields: Vec<&str> = rest.split(' ').collect();
        let flags: u64 = fields.get(6).and_then(|flags| flags.parse().ok()).unwrap_or_default();
        match fields.first() {
            Some(&"Z") => self.add("zombie", format!("{pid} {name}")),
            _ if flags & PF_KTHREAD != 0 => {}
            _ => self.add("process", format!("{pid} {name}")),
        }
    }
}

/// What PID 1 costs: `smaps_rollup` in KiB, threads, open descriptors, through a bind of the guest's `/proc`.
pub fn print_init_memory(proc: &str) -> Outcome {
    let mut facts = Facts::default();
    for line in fs::read_to_string(format!("{proc}/1/smaps_rollup"))?.lines() {
        if let Some((name, value)) = line.split_once(':').filter(|(_, value)| value.ends_with("kB"))
        {
            facts.add(name, value.trim_end_matches("kB").trim());
        }
    }
    facts.add("threads", fs::read_dir(format!("{proc}/1/task"))?.count());
    facts.add("descriptors", fs::read_dir(format!("{proc}/1/fd"))?.count());
    facts.print()
}
