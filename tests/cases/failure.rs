//! Every way not to start: hyperctl says which, within its deadline, and leaves nothing behind. And every way to be ended.

use harness::command::{Place, Said, finish_started, start, until};
use harness::guest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Command, Stdio};

/// It is our failure, it says these words, and nothing is left of it.
fn assert_refused(place: &Place, said: &Said, words: &[&str]) {
    assert_eq!((said.code, said.stdout.as_str()), (125, ""), "{said:#?}");
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} not in {}", said.stderr);
    }
    place.assert_nothing_left();
}

/// QEMU is not installed: its name, and how to get it.
#[test]
fn qemu_is_missing() {
    let mut place = Place::new();
    place.set("HYPERSTART_QEMU", "/nowhere/qemu");
    let said = place.run(["run", "busybox", "true"]);
    assert_refused(&place, &said, &["/nowhere/qemu", "not found"]);
}

/// The kernel was not built: where it should be, and how to make it.
#[test]
fn kernel_is_missing() {
    let mut place = Place::new();
    let directory = place.path("guest");
    fs::create_dir_all(directory.join("images")).unwrap();
    for name in ["initrd.img", "images/busybox.erofs", "images/busybox.json"] {
        std::os::unix::fs::symlink(guest::file(name), directory.join(name)).unwrap();
    }
    place.set("HYPERSTART_GUEST_DIR", &directory);
    let said = place.run(["run", "busybox", "true"]);
    assert_refused(&place, &said, &["vmlinux", "make kernel"]);
}

/// The kernel is no kernel: it is said before a VM is started.
#[test]
fn kernel_is_garbage() {
    let place = Place::new();
    fs::write(place.path("kernel"), vec![0x5a; 100_000]).unwrap();
    let said = place.run([
        "run",
        "--timeout",
        "10",
        "--kernel",
        place.path("kernel").to_str().unwrap(),
        "busybox",
        "true",
    ]);
    assert_refused(&place, &said, &["neither a vmlinux", "make kernel"]);
}

/// Too little guest memory: the kernel's panic, or its silence, is told as that.
#[test]
fn guest_has_too_little_memory() {
    let place = Place::new();
    let said = place.run(["run", "--vm-memory", "20", "--timeout", "20", "busybox", "true"]);
    assert_refused(&place, &said, &["guest"]);
}

/// More memory than the host has: how much was asked for.
#[test]
fn host_has_too_little_memory() {
    let place = Place::new();
    let said = place.run(["run", "--vm-memory", "100000000", "busybox", "true"]);
    assert_refused(&place, &said, &["100000000 MiB"]);
}

/// A guest that panics: the kernel's own line.
#[test]
fn guest_panics() {
    let place = Place::new();
    let said = place.run(["run", "--append", "rdinit=/nowhere init=/nowhere", "busybox", "true"]);
    assert_refused(&place, &said, &["panic"]);
}

/// A guest that never gets ready: how long was waited, and init's last step.
#[test]
fn guest_never_gets_ready() {
    let place = Place::new();
    let initrd = place.path("silent.img");
    let built = Command::new(guest::binary("image-builder"))
        .args(["initrd", "--init"])
        .arg(guest::payload("probe"))
        .arg("--output")
        .arg(&initrd)
        .stdout(Stdio::null())
        .status();
    assert!(built.unwrap().success());
    // The probe as PID 1: the words after -- are its own (kernel-parameters.txt).
    let words = [
        "run",
        "--timeout",
        "5",
        "--initrd",
        initrd.to_str().unwrap(),
        "--append=-- hang",
        "busybox",
        "true",
    ];
    let said = place.run(words);
    assert_refused(&place, &said, &["not ready after 5"]);
}

/// The vsock daemon is missing where it was asked for: its name.
#[test]
fn daemon_is_missing() {
    let mut place = Place::new();
    fs::create_dir(place.path("bin")).unwrap();
    for name in ["sh", "mkdir", "rm", "rmdir"] {
        std::os::unix::fs::symlink(format!("/bin/{name}"), place.path("bin").join(name)).unwrap();
    }
    place.set("PATH", place.path("bin"));
    place.set("HOME", "/nowhere");
    place.set("CARGO_HOME", "/nowhere");
    place.set("HYPERSTART_QEMU", "/usr/bin/qemu-system-x86_64");
    let said = place.run(["run", "--transport", "vhost-user-vsock", "busybox", "true"]);
    assert_refused(&place, &said, &["vhost-device-vsock"]);
}

/// A QEMU that is killed under its pod is told, and the pod is over.
#[test]
fn killed_qemu_ends_the_pod() {
    let place = Place::new();
    let mut command = place.command(["run", "--rm", "busybox", "sleep", "1000"]);
    let child = start(&mut command);
    until("the pod runs", || place.run(["ps"]).stdout.contains("Up"));
    let qemu = place
        .processes()
        .into_iter()
        .find(|(_, words)| words.contains("qemu-system"))
        .expect("a VM runs");
    signal(qemu.0, Signal::SIGKILL);
    let said = finish_started(child);
    assert!(said.code == 125 && said.stderr.contains("qemu"), "{said:?}");
    place.assert_nothing_left();
}

/// SIGTERM asks hyperctl to end in order: the container is stopped, the VM is gone.
#[test]
fn terminated_hyperctl_ends_in_order() {
    let place = Place::new();
    let mut command = place.command([
        "run",
        "--rm",
        "--name",
        "web",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 12' TERM; echo ready; while true; do sleep 0.1; done",
    ]);
    let child = start(&mut command);
    until("it is ready", || place.run(["logs", "web"]).stdout.contains("ready"));
    signal(child.id(), Signal::SIGTERM);
    assert_eq!(finish_started(child).code, 12);
    place.assert_nothing_left();
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}
