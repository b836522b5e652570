//! The counting plugin: compiled for the QEMU that is there, attached to a machine, read while the guest runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::guest;
use hyperstart_vmm::Machine;
use tempfile::NamedTempFile;

const SOURCE: &str = include_str!("count.c");
/// As count.c lays it out: three numbers.
const BYTES: usize = 24;

/// The counters of one machine.
pub struct Counters {
    file: NamedTempFile,
}

/// What they say at one moment, in instructions.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Since the machine's reset.
    pub all: u64,
    /// Of them, in user mode.
    pub user: u64,
    /// `all` when the first in user mode ran, which is PID 1's first.
    pub first_user: u64,
}

impl Counters {
    /// Has `machine` counted.
    pub fn attach(machine: &mut Machine) -> Self {
        let file = NamedTempFile::new_in(guest::scratch()).expect("make a file for counters");
        file.as_file().set_len(4096).expect("make room for counters");
        machine.plugin = Some(format!("{},counters={}", plugin().display(), file.path().display()));
        machine.icount = true;
        // An idle guest's clock must not run ahead: its timers would be counted.
        machine.qemu_args.extend(["-icount", "shift=0,sleep=on"].map(Into::into));
        Self { file }
    }

    /// The same, for a machine whose clock jumps over idle time: its boot repeats exactly.
    pub fn attach_to_boot(machine: &mut Machine) -> Self {
        let counters = Self::attach(machine);
        machine.qemu_args.truncate(machine.qemu_args.len() - 2);
        counters
    }

    /// Reads them; the guest runs on.
    pub fn read(&self) -> Counts {
        let bytes = fs::read(self.file.path()).expect("read counters");
        let number = |index: usize| {
            let field = bytes[..BYTES][index * 8..][..8].try_into().expect("eight bytes");
            u64::from_ne_bytes(field)
        };
        Counts { all: number(0), user: number(1), first_user: number(2) }
    }
}

/// The compiled plugin.
fn plugin() -> PathBuf {
    let object = guest::scratch().join("count.so");
    let source = guest::scratch().join("count.c");
    fs::write(&source, SOURCE).expect("write the plugin's source");
    let version = if qemu_major() < 9 { 1 } else { 2 };
    let status = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-fvisibility=hidden"])
        .arg(format!("-DPLUGIN_VERSION={version}"))
        .arg("-o")
        .args([&object, &source])
        .status()
        .expect("run cc, which Rust links with too");
    assert!(status.success(), "compile {source:?}: {status}");
    object
}

/// `QEMU emulator version 7.2.22 (...)`.
fn qemu_major() -> u32 {
    let qemu = std::env::var("HYPERSTART_QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into());
    let output =
        Command::new(&qemu).arg("--version").output().unwrap_or_else(|err| panic!("{qemu}: {err}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        text.split_whitespace().nth(3).and_then(|version| version.split('.').next()?.parse().ok());
    version.unwrap_or_else(|| panic!("{qemu} says {text:?}"))
}
