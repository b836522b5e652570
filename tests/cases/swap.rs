//! Swap that the host attaches to a running guest.

use harness::disk::{Filesystem, disk};
use harness::raw::Reply;
use harness::{Run, Vm, VmConfig};
use hyperstart::Code;
use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{AddSwapPathRequest, AddSwapRequest};
use hyperstart_vmm::MachineKind;

const MIB: u64 = 1 << 20;

fn add_path(vm: &Vm, path: &str) -> Result<Empty, Reply> {
    let request = AddSwapPathRequest { path: path.into(), ..AddSwapPathRequest::default() };
    vm.agent("AddSwapPath", &request)
}

fn add(vm: &Vm, slots: &[u32]) -> Result<Empty, Reply> {
    let request = AddSwapRequest { PCIPath: slots.to_owned(), ..AddSwapRequest::default() };
    vm.agent("AddSwap", &request)
}

/// Devices that are swapped on.
fn swaps(vm: &Vm) -> Vec<String> {
    let said = vm.inspect(&Run::shell("tail -n +2 /guest/proc/swaps"));
    said.stdout().lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// A disk with mkswap's signature is swapped on by its path: a container then holds more than the guest's memory, its
/// statistics say how much of it is swapped out, and the sandbox's end takes the swap off.
#[test]
fn disk_is_swapped_on_by_its_path() {
    let file = disk(Filesystem::Swap, 256 * MIB);
    let mut machine = VmConfig { memory_mib: 96, ..VmConfig::default() }.machine();
    machine.disks.push(file.attached());
    let cmdline = "agent.hotplug_timeout=1".to_owned();
    machine.cmdline.push(cmdline);
    let mut vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    assert_eq!(swaps(&vm), Vec::<String>::new());
    for (path, code, words) in [
        ("/dev/vda", Code::InvalidArgument, "EINVAL"), // an image, and no signature
        ("/dev/null", Code::InvalidArgument, "neither"),
        ("/run", Code::InvalidArgument, "neither"),
        ("relative", Code::InvalidArgument, "not an absolute path"),
        ("", Code::InvalidArgument, "not an absolute path"),
        ("/run/none", Code::NotFound, "ENOENT"),
        ("/proc/self/exe", Code::InvalidArgument, "ELOOP"),
    ] {
        let err = add_path(&vm, path).expect_err(path);
        assert!(err.is(code) && err.message.contains(words), "{path}: {err:?}");
    }
    let err = add_path(&vm, "/dev/vdz").unwrap_err();
    assert!(err.code == 4 && err.message.contains("/dev/vdz"), "{err:?}"); // DEADLINE_EXCEEDED
    add_path(&vm, "/dev/vdc").unwrap();
    assert_eq!(swaps(&vm), ["/dev/vdc"]);
    let err = add_path(&vm, "/dev/vdc").unwrap_err();
    assert!(err.message.contains("EBUSY"), "{err:?}");

    let web = vm.start("web", &Run::probe(["hold", "128"]));
    web.says("held");
    let memory = vm.run("stats", web.container().stats()).unwrap().memory;
    assert!(memory.swap_bytes > 32 * MIB, "{memory:?}");
    assert!(memory.usage_bytes + memory.swap_bytes > 128 * MIB, "{memory:?}");
    assert_eq!(memory.detail["total_swap"], memory.detail["swap"]);
    web.kill();
    web.remove();
    vm.power_off();
}

/// By PCI path too, as Kata plugs one in; a path that is none, or where nothing is, is an error in time.
#[test]
fn disk_is_swapped_on_by_its_pci_path() {
    let file = disk(Filesystem::Swap, 64 * MIB);
    let cmdline = vec!["agent.hotplug_timeout=20".to_owned()];
    let mut machine = VmConfig { cmdline, ..VmConfig::default() }.machine();
    machine.kind = MachineKind::Q35;
    machine.slots = 1;
    let mut vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let plugged = vm.run("attach", vm.machine().attach(&file.attached())).unwrap();
    let slots: Vec<u32> = plugged
        .device()
        .source
        .split('/')
        .map(|slot| u32::from_str_radix(slot, 16).unwrap())
        .collect();
    add(&vm, &slots).unwrap();
    assert_eq!(swaps(&vm).len(), 1);
    for bad in [&[][..], &[0; 9], &[32], &[u32::MAX]] {
        let err = add(&vm, bad).unwrap_err();
        assert!(err.is(Code::InvalidArgument), "{bad:?}: {err:?}");
    }
    vm.power_off();
}
