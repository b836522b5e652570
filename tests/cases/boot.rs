//! The guest comes up: in both boot modes, on every board, over every transport that this host has.

use harness::guest;
use harness::{Mode, PATIENCE, Run, Vm, VmConfig};
use hyperstart_vmm::{Error, MachineKind, PmemKind, TransportKind};
use std::path::Path;

/// Boots, runs a container, and ends clean.
fn runs_a_container(config: &VmConfig) {
    let vm = Vm::boot(config);
    assert_eq!(vm.view("web").get("pid"), "1");
    vm.shutdown();
}

/// An initrd on a microvm, over virtio-vsock.
#[test]
fn initrd_over_vsock() {
    let transport = Some(TransportKind::VhostUserVsock);
    runs_a_container(&VmConfig { transport, ..VmConfig::default() });
}

/// An initrd on a microvm, over a virtio-serial port.
#[test]
fn initrd_over_serial() {
    let transport = Some(TransportKind::Serial);
    runs_a_container(&VmConfig { transport, ..VmConfig::default() });
}

/// A rootfs in persistent memory on a q35, over virtio-vsock.
#[test]
fn dax_over_vsock() {
    let transport = Some(TransportKind::VhostUserVsock);
    runs_a_container(&VmConfig { mode: Mode::Dax, transport, ..VmConfig::default() });
}

/// A rootfs in persistent memory on a q35, over a virtio-serial port.
#[test]
fn dax_over_serial() {
    let transport = Some(TransportKind::Serial);
    runs_a_container(&VmConfig { mode: Mode::Dax, transport, ..VmConfig::default() });
}

/// The host kernel's vsock serves where it is there; where it is not, the refusal names the device.
#[test]
fn kernel_vsock_serves_or_is_refused_by_name() {
    let config = VmConfig { transport: Some(TransportKind::VhostVsock), ..VmConfig::default() };
    if Path::new("/dev/vhost-vsock").exists() {
        return runs_a_container(&config);
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let launched =
        runtime.block_on(hyperstart_vmm::Vm::launch(&config.machine(), directory.path()));
    let err = launched.expect_err("a host without vhost-vsock refuses it");
    assert!(matches!(err, Error::Transport { .. }), "{err}");
    assert!(err.to_string().contains("/dev/vhost-vsock"), "{err}");
}

/// The older PCI board boots a rootfs too.
#[test]
fn pc_boots_a_rootfs() {
    let mut machine = VmConfig { mode: Mode::Dax, ..VmConfig::default() }.machine();
    machine.kind = MachineKind::Pc;
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    assert_eq!(vm.view("web").get("pid"), "1");
    vm.shutdown();
}

/// Root and images as ACPI NVDIMMs are mapped as directly as virtio-pmem.
#[test]
fn nvdimm_is_mapped_directly() {
    let mut machine = VmConfig { mode: Mode::Dax, ..VmConfig::default() }.machine();
    machine.pmem = PmemKind::Nvdimm;
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    assert!(vm.run("the receipt", vm.sandbox().boot_receipt()).unwrap().root_dax);
    assert_eq!(vm.view("web").get("pid"), "1");
    vm.shutdown();
}

/// The compressed kernel boots as the plain one does.
#[test]
fn bzimage_boots() {
    let mut machine = VmConfig::default().machine();
    machine.kernel = guest::file("bzImage");
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    assert_eq!(vm.view("web").get("pid"), "1");
    vm.shutdown();
}

/// A second processor is there for containers.
#[test]
fn two_processors_are_seen() {
    let vm = Vm::boot(&VmConfig { cpus: 2, ..VmConfig::default() });
    assert_eq!(vm.finish("web", &Run::shell("nproc")).stdout(), "2\n");
    vm.shutdown();
}

/// The receipt says which boot it was, and has the steps in their order on both clocks.
#[test]
fn receipt_of_an_initrd_boot() {
    let vm = Vm::boot(&VmConfig::default());
    vm.view("web");
    let receipt = vm.run("the receipt", vm.sandbox().boot_receipt()).unwrap();
    assert_eq!((receipt.boot_mode.as_str(), receipt.root_dax), ("initrd", false));
    let steps: Vec<&str> = receipt.steps.iter().map(|step| step.name.as_str()).collect();
    let known = ["init", "mounts", "listening", "ready", "first_container"];
    assert_eq!(
        steps.iter().filter(|step| known.contains(step)).collect::<Vec<_>>(),
        known.iter().collect::<Vec<_>>()
    );
    assert!(receipt.steps.is_sorted_by_key(|step| step.monotonic), "{:?}", receipt.steps);
    assert!(receipt.steps.is_sorted_by_key(|step| step.tsc), "{:?}", receipt.steps);
    assert!(
        receipt.mem_total_bytes > receipt.mem_available_bytes && receipt.mem_available_bytes > 0
    );
    vm.shutdown();
}

/// In dax mode the guest's root is mapped from the host's memory, and so are the containers' images.
#[test]
fn dax_is_no_mere_name() {
    let vm = Vm::boot(&VmConfig { mode: Mode::Dax, ..VmConfig::default() });
    let receipt = vm.run("the receipt", vm.sandbox().boot_receipt()).unwrap();
    let is = (receipt.boot_mode.as_str(), receipt.root_fstype.as_str(), receipt.root_dax);
    assert_eq!(is, ("dax", "erofs", true));
    let mounts =
        vm.inspect(&Run::probe(["find", "/guest/proc/1/mounts", "/run/hyperstart/images/probe"]));
    assert!(mounts.stdout().contains("dax=always"), "{mounts:?}");
    vm.shutdown();
}

/// The guest says who it is: its kernel is the one that its containers see, and PID 1 is the agent.
#[test]
fn guest_says_who_it_is() {
    let vm = Vm::boot(&VmConfig::default());
    let version = vm.run("the version", vm.sandbox().guest_version()).unwrap();
    assert_eq!(version.kernel_release, vm.view("web").get("kernel"));
    let details = vm.run("the details", vm.sandbox().details()).unwrap();
    assert!(details.init_daemon && details.supports_seccomp, "{details:?}");
    for driver in [
        "mmioblk",
        "blk",
        "nvdimm",
        "virtio-pmem",
        "virtio-fs",
        "9p",
        "overlayfs",
        "ephemeral",
        "local",
        "bind",
        "scsi",
        "watchable-bind",
        "erofs.multi-layer",
    ] {
        assert!(
            details.storage_handlers.iter().any(|have| have == driver),
            "{driver} not in {details:?}"
        );
    }
    assert!(!vm.run("the agent's version", vm.sandbox().version()).unwrap().agent.is_empty());
    vm.shutdown();
}

/// A kernel parameter of ours that makes no sense stops the boot, with its name on the console.
#[test]
fn bad_kernel_parameter_stops_the_boot() {
    let machine =
        VmConfig { cmdline: vec!["agent.log=loud".into()], ..VmConfig::default() }.machine();
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let err = runtime.block_on(async {
        let vm = hyperstart_vmm::Vm::launch(&machine, directory.path()).await.unwrap();
        vm.ready(PATIENCE).await.unwrap_err()
    });
    assert!(err.to_string().contains("agent.log"), "{err}");
}
