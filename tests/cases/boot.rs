//! The guest comes up: in both boot modes, over every transport that this host has.
use harness::{Vm, VmConfig};

/// An initrd on a microvm boots, runs a container and powers off.
#[test]
fn initrd_boots_and_powers_off() {
    let vm = Vm::boot(&VmConfig::default());
    assert_eq!(vm.view("web").get("pid"), "1");
    vm.shutdown();
}
