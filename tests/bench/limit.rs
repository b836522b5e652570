//! The limit: the same machine and kernel, with a PID 1 that says what it sees and stops.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{Facts, Mode, guest};
use hyperstart_vmm::{Boot, Machine, Vm};
use tokio::runtime::Builder;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(120);

/// What the trivial init said, and how long it took until QEMU was gone.
pub struct Limit {
    /// The time stamp counter when it began.
    pub tsc: u64,
    /// Memory that is used, in KiB.
    pub used_kib: u64,
    pub wall: Duration,
}

/// `machine` with its guest's root replaced by the trivial init's.
pub fn replace_root(machine: &mut Machine, mode: Mode) {
    machine.boot = match mode {
        Mode::Initrd => Boot::Initrd(image("initrd", "limit-initrd.img")),
        Mode::Dax => Boot::Rootfs(image("rootfs", "limit-rootfs.erofs")),
    };
}

fn image(kind: &str, name: &str) -> PathBuf {
    let path = guest::scratch().join(name);
    let status = Command::new(guest::binary("image-builder"))
        .args([kind, "--init"])
        .arg(guest::payload("limit-init"))
        .arg("--output")
        .arg(&path)
        .stdout(std::process::Stdio::null())
        .status()
        .expect("run image-builder");
    assert!(status.success(), "image-builder {kind}: {status}");
    path
}

/// Runs a machine with the trivial init to its end; `None` if it did not come that far.
pub fn try_run(machine: &Machine) -> Option<Limit> {
    let directory = tempfile::tempdir().expect("make a run directory");
    let runtime = Builder::new_current_thread().enable_all().build().expect("start a runtime");
    let (console, wall) = runtime.block_on(async {
        let vm = Vm::launch(machine, directory.path()).await.unwrap_or_else(|err| panic!("{err}"));
        timeout(DEADLINE, vm.wait()).await.ok()?;
        Some((fs::read_to_string(vm.console_log()).expect("read the console"), vm.uptime()))
    })?;
    let line =
        console.lines().find_map(|line| line.split_once("limit: "))?.1.trim().replace(' ', "\n");
    let facts = Facts::parse(&line);
    Some(Limit { tsc: facts.number("tsc"), used_kib: facts.number("used_kib"), wall })
}

/// As [`try_run`], of a machine that has enough of everything.
pub fn run(machine: &Machine) -> Limit {
    try_run(machine).expect("the trivial init has said nothing")
}
