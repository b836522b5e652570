//! Processors that come while the guest runs, and memory that a kernel has to be told of.

use std::ffi::OsString;

use harness::{Run, Vm, VmConfig};
use hyperstart::Code;
use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    GuestDetailsRequest, GuestDetailsResponse, MemHotplugByProbeRequest, OnlineCPUMemRequest,
};
use hyperstart_vmm::MachineKind;
use serde_json::json;

fn online(nb_cpus: u32, wait: bool) -> OnlineCPUMemRequest {
    OnlineCPUMemRequest { nb_cpus, wait, ..OnlineCPUMemRequest::default() }
}

/// A q35 of one processor that has room for more.
fn boot(most: u32, timeout: u32) -> Vm {
    let cmdline = vec![format!("agent.hotplug_timeout={timeout}")];
    let mut machine = VmConfig { cmdline, ..VmConfig::default() }.machine();
    machine.kind = MachineKind::Q35;
    machine.slots = 1; // so that it has ACPI, which tells of what comes
    machine.qemu_args = vec![OsString::from("-smp"), format!("1,maxcpus={most}").into()];
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    vm
}

fn plug(vm: &Vm, id: &str) {
    let all = vm.run("ask", vm.machine().qmp().execute("query-hotpluggable-cpus", json!({})));
    let all = all.unwrap_or_else(|err| panic!("{err}"));
    let free = all.as_array().unwrap().iter().rev().find(|cpu| cpu.get("qom-path").is_none());
    let free = free.expect("room for a processor");
    let mut device = free["props"].clone();
    device["driver"] = free["type"].clone();
    device["id"] = json!(id);
    vm.run("plug", vm.machine().qmp().execute("device_add", device))
        .unwrap_or_else(|err| panic!("{err}"));
}

fn processors(vm: &Vm, name: &str) -> String {
    let script = "cat /sys/devices/system/cpu/online /sys/fs/cgroup/cpuset.cpus.effective; nproc";
    let said = vm.finish(name, &Run::shell(script));
    assert_eq!((said.code, said.stderr()), (0, ""));
    said.stdout().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A processor that is plugged in is brought online by one call, be it waited for or not, and containers run on it: also
/// one that ran before.
#[test]
fn plugged_processor_comes_online() {
    let vm = boot(3, 100);
    assert_eq!(processors(&vm, "before"), "0 0 1");
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    plug(&vm, "one");
    vm.agent::<Empty>("OnlineCPUMem", &online(2, true)).unwrap();
    assert_eq!(processors(&vm, "after"), "0-1 0-1 2");
    let said =
        web.exec("look", &Run::probe(["read", "/sys/fs/cgroup/cpuset.cpus.effective"])).finish();
    assert_eq!(said.facts().get("/sys/fs/cgroup/cpuset.cpus.effective"), "4:0-1");
    // Not waited for: it comes online as soon as it is there.
    vm.agent::<Empty>("OnlineCPUMem", &online(3, false)).unwrap();
    plug(&vm, "two");
    let mut tries = 0;
    while processors(&vm, &format!("soon-{tries}")) != "0-2 0-2 3" {
        tries += 1; // the test's deadline ends it
    }
    vm.agent::<Empty>("OnlineCPUMem", &online(3, true)).unwrap();
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Processors that do not come are said to be missing after the time that a device has; more than can be are refused at
/// once; memory is found by this kernel itself, and GetGuestDetails says so.
#[test]
fn what_does_not_come_is_said() {
    let vm = boot(2, 1);
    let err = vm.agent::<Empty>("OnlineCPUMem", &online(2, true)).unwrap_err();
    assert!(err.message.contains("online 2 CPUs: 1 are online after 1 s"), "{err:?}");
    assert_eq!(err.code, 4, "{err:?}"); // DEADLINE_EXCEEDED
    let err = vm.agent::<Empty>("OnlineCPUMem", &online(3, true)).unwrap_err();
    assert!(err.is(Code::InvalidArgument) && err.message.contains("nb_cpus 3"), "{err:?}");
    vm.agent::<Empty>("OnlineCPUMem", &online(1, true)).unwrap();
    vm.agent::<Empty>("OnlineCPUMem", &online(0, false)).unwrap();
    let only_cpus = OnlineCPUMemRequest { cpu_only: true, ..online(2, false) };
    vm.agent::<Empty>("OnlineCPUMem", &only_cpus).unwrap();

    let probe = MemHotplugByProbeRequest {
        memHotplugProbeAddr: vec![1 << 32],
        ..MemHotplugByProbeRequest::default()
    };
    let err = vm.agent::<Empty>("MemHotplugByProbe", &probe).unwrap_err();
    assert!(err.is(Code::Unimplemented) && err.message.contains("probe memory"), "{err:?}");
    let many = MemHotplugByProbeRequest {
        memHotplugProbeAddr: vec![0; 9000],
        ..MemHotplugByProbeRequest::default()
    };
    let err = vm.agent::<Empty>("MemHotplugByProbe", &many).unwrap_err();
    assert!(err.is(Code::InvalidArgument) && err.message.contains("9000"), "{err:?}");
    let request = GuestDetailsRequest {
        mem_block_size: true,
        mem_hotplug_probe: true,
        ..GuestDetailsRequest::default()
    };
    let details: GuestDetailsResponse = vm.agent("GetGuestDetails", &request).unwrap();
    assert!(!details.support_mem_hotplug_probe);
    assert!(details.mem_block_size_bytes.is_power_of_two(), "{}", details.mem_block_size_bytes);
    vm.shutdown();
}
