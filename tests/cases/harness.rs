//! The checks themselves: each finds what it is there to find.

use harness::{Run, Vm, VmConfig};

/// A container that is left behind is found by its process.
#[test]
#[should_panic(expected = "processes left")]
fn process_left_behind_is_found() {
    let vm = Vm::boot(&VmConfig::default());
    vm.start("web", &Run::probe(["ignore-signals"])).says("ready");
    vm.shutdown();
}

/// A container that is made and not removed is found, though it never ran.
#[test]
#[should_panic(expected = "left")]
fn container_left_behind_is_found() {
    let vm = Vm::boot(&VmConfig::default());
    vm.start("web", &Run::probe(["exit", "0"])).wait();
    vm.shutdown();
}

/// A zombie anywhere in the guest is found.
#[test]
#[should_panic(expected = "zombies in the guest")]
fn zombie_is_found() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    web.exec("orphans", &Run::probe(["orphans", "3", "1"])).finish();
    std::thread::sleep(std::time::Duration::from_millis(500));
    vm.shutdown();
}

/// A complaint in the kernel's log is found.
#[test]
#[should_panic(expected = "the guest's kernel complains")]
fn kernel_warning_is_found() {
    let vm = Vm::boot(&VmConfig::default());
    vm.inspect(&Run::shell("echo '<4>WARNING: this is a test' > /guest/kmsg"));
    vm.shutdown();
}

/// A test that forgets its guest is told so.
#[test]
#[should_panic(expected = "a test says how its VM ends")]
fn forgotten_guest_is_found() {
    let vm = Vm::boot(&VmConfig::default());
    vm.view("web");
}

/// A wait that never ends is ended by the test's deadline, which says what was waited for.
#[test]
#[should_panic(expected = "the test's deadline has passed")]
fn deadline_ends_a_wait() {
    let vm =
        Vm::boot(&VmConfig { deadline: std::time::Duration::from_secs(8), ..VmConfig::default() });
    vm.start("web", &Run::probe(["ignore-signals"])).wait();
}

/// A bug in a program that is built as PID 1 is, with a standard library made for size, says what went wrong and where.
#[test]
fn a_panic_says_its_message_and_place() {
    let vm = Vm::boot(&VmConfig::default());
    let died = vm.finish("web", &Run::probe(["panic", "out of ideas"]));
    assert!(died.code > 128, "not by a signal: {died:?}"); // which one: process 1 is spared SIGABRT
    assert!(died.stderr().contains("out of ideas"), "{died:?}");
    assert!(died.stderr().contains("src/act.rs:"), "{died:?}");
    vm.shutdown();
}
