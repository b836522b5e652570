//! Disks that come and go while the guest runs, on each board that can take them.

use harness::container::Run;
use harness::vm::Mode;
use harness::{PATIENCE, Vm, VmConfig};
use hyperstart::{ContainerId, ContainerOptions, Storage};
use hyperstart_vmm::{Disk, MachineKind};

/// A disk that is plugged in serves a container, is let go after it, and its slot serves another.
#[test]
fn disk_comes_and_goes() {
    for (kind, mode) in [
        (MachineKind::Q35, Mode::Initrd),
        (MachineKind::Pc, Mode::Initrd),
        (MachineKind::Q35, Mode::Dax),
    ] {
        let mut machine = VmConfig { mode, ..VmConfig::default() }.machine();
        machine.kind = kind;
        machine.slots = 1;
        let busybox = machine.disks.pop().expect("busybox is the last disk");
        let vm = Vm::boot_machine(&machine);
        vm.create_sandbox();
        for name in ["one", "two"] {
            says_hello(&vm, &busybox, name);
        }
        vm.shutdown();
    }
}

fn says_hello(vm: &Vm, disk: &Disk, name: &str) {
    let plugged = vm.run("attach", vm.machine().attach(disk)).unwrap();
    let full = vm.run("attach", vm.machine().attach(disk)).unwrap_err();
    assert!(full.to_string().contains("no free slot"), "{full}");
    let id = ContainerId::new(name).unwrap();
    let image = Storage::image(plugged.device().driver, &plugged.device().source, &id);
    let storages = vec![image.clone(), Storage::overlay(&id, &[image])];
    let run = Run::busybox(["true"]);
    let options = ContainerOptions { storages, ..ContainerOptions::default() };
    let spec = run.spec(&id);
    let container =
        vm.run("create", vm.sandbox().create_container(&id, &spec, options)).expect("create");
    vm.run("start", container.start()).expect("start");
    assert_eq!(vm.run("wait", container.wait()).expect("wait").code(), 0);
    vm.run("remove", container.remove(PATIENCE)).expect("remove");
    vm.run("detach", vm.machine().detach(plugged)).expect("detach");
}
