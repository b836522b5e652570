//! Statistics of a container, held against what it really did.

use std::time::Duration;

use harness::disk::{Filesystem, disk};
use harness::edit::put;
use harness::{Run, Running, Vm, VmConfig, list_namespace};
use hyperstart::{Code, ContainerId, ContainerStats};
use hyperstart_protocol::agent::{StatsContainerRequest, StatsContainerResponse};
use oci_spec::runtime::LinuxNamespaceType;
use serde_json::json;

const MIB: u64 = 1 << 20;

fn boot() -> Vm {
    Vm::boot(&VmConfig::default())
}

fn stats(vm: &Vm, web: &Running<'_>) -> ContainerStats {
    vm.run("stats", web.container().stats()).unwrap_or_else(|err| panic!("{err}"))
}

/// Processor time is what its processes say of themselves; one that is held back says for how many periods.
#[test]
fn processor_time_is_what_was_used() {
    let vm = boot();
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let before = stats(&vm, &web).cpu;
    let burn = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat /proc/self/stat > /dev/null; cat /proc/$$/stat";
    let said = vm.finish("burner", &Run::shell(burn));
    assert_eq!(said.code, 0);
    let idle = stats(&vm, &web).cpu;
    assert!(idle.usage - before.usage < Duration::from_millis(50), "another container's time");

    let busy = vm.start("busy", &Run::shell(&format!("{burn}; sleep 1000")));
    let ticks = busy.line();
    let used = stats(&vm, &busy).cpu;
    let fields: Vec<u64> =
        ticks.split(' ').skip(13).take(2).map(|field| field.parse().unwrap()).collect();
    let own = Duration::from_millis(10) * u32::try_from(fields.iter().sum::<u64>()).unwrap();
    assert!(own > Duration::from_millis(50), "the loop was too short: {own:?}");
    let tick = Duration::from_millis(20);
    assert!(used.usage + tick > own, "{used:?}, its process says {own:?}");
    assert!(used.usage < own * 3 + Duration::from_secs(1), "{used:?}, its process says {own:?}");
    let parts = used.user + used.kernel;
    assert!(parts.abs_diff(used.usage) < Duration::from_millis(1), "{used:?}");
    assert_eq!((used.periods, used.throttled_periods, used.throttled), (0, 0, Duration::ZERO));
    busy.kill();
    busy.remove();

    let slow = vm.start_with("slow", &Run::shell("echo begun; while :; do :; done"), |spec| {
        put(spec, "/linux/resources/cpu", json!({ "quota": 5000, "period": 50_000 }));
    });
    slow.says("begun");
    let held_back = loop {
        let cpu = stats(&vm, &slow).cpu;
        if cpu.throttled_periods >= 3 {
            break cpu;
        }
    };
    assert!(held_back.periods >= held_back.throttled_periods, "{held_back:?}");
    assert!(held_back.throttled > Duration::from_millis(30), "{held_back:?}");
    slow.kill();
    slow.remove();
    web.kill();
    web.remove();
    vm.shutdown();
}

/// Memory is what is held, by the kernel's names and by those that kubelet looks for; limits are the spec's.
#[test]
fn memory_is_what_is_held() {
    let vm = boot();
    let limits = json!({
        "memory": { "limit": 64 * MIB, "swap": 96 * MIB }, "pids": { "limit": 33 },
    });
    let web = vm.start_with("web", &Run::probe(["hold", "24"]), |spec| {
        put(spec, "/linux/resources", limits.clone());
    });
    web.says("held");
    let used = stats(&vm, &web);
    let memory = &used.memory;
    let near = |bytes: u64, mib: u64| (mib * MIB..(mib + 8) * MIB).contains(&bytes);
    assert!(near(memory.usage_bytes, 24), "{memory:?}");
    assert!(memory.max_usage_bytes.unwrap() >= memory.usage_bytes, "{memory:?}");
    for name in ["anon", "rss", "total_rss"] {
        assert!(near(memory.detail[name], 24), "{name}: {memory:?}");
    }
    assert_eq!(memory.limit_bytes, Some(64 * MIB));
    assert_eq!(memory.detail["hierarchical_memory_limit"], 64 * MIB);
    assert_eq!(memory.detail["hierarchical_memsw_limit"], 96 * MIB);
    assert_eq!((memory.limit_hits, memory.swap_bytes), (0, 0));
    for name in
        ["cache", "mapped_file", "inactive_file", "total_inactive_file", "pgfault", "pgmajfault"]
    {
        assert!(memory.detail.contains_key(name), "{name}: {memory:?}");
    }
    let fill = Run::shell("dd if=/dev/zero of=/dev/shm/file bs=1M count=6 2> /dev/null");
    assert_eq!((used.pids.current, used.pids.limit), (1, Some(33)));
    web.kill();
    let dead = stats(&vm, &web);
    assert!(dead.memory.detail["rss"] < MIB, "{dead:?}");
    assert_eq!(dead.pids.current, 0);
    web.remove();

    let shell = vm.start("shell", &Run::shell("echo begun; sleep 1000"));
    shell.says("begun");
    let before = stats(&vm, &shell).memory;
    assert_eq!(before.limit_bytes, None);
    assert_eq!(shell.exec("fill", &fill).finish().code, 0);
    let after = stats(&vm, &shell).memory;
    assert!(near(after.cache_bytes - before.cache_bytes, 6), "{before:?} {after:?}");
    assert_eq!(stats(&vm, &shell).pids.limit, None);
    shell.kill();
    shell.remove();
    vm.shutdown();
}

/// A container that runs into its limit says how often.
#[test]
fn hits_of_the_limit_are_counted() {
    let vm = boot();
    let hog = vm.start_with("hog", &Run::probe(["allocate", "64"]), |spec| {
        put(spec, "/linux/resources/memory", json!({ "limit": 16 * MIB, "swap": 16 * MIB }));
    });
    assert_eq!(hog.wait(), 137);
    let memory = stats(&vm, &hog).memory;
    assert!(memory.limit_hits > 0, "{memory:?}");
    assert!(memory.max_usage_bytes.unwrap() > 15 * MIB, "{memory:?}");
    hog.remove();
    vm.shutdown();
}

/// Bytes on a disk are those that were written and read, on the disk's own number, in Kata's words too.
#[test]
fn disk_traffic_is_what_was_written_and_read() {
    let file = disk(Filesystem::Ext4, 64 * MIB);
    let mut machine = VmConfig::default().machine();
    machine.disks.push(file.attached());
    let mut vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let volume = file.storage(&vm, 2);
    let web = vm.start_with("web", &Run::shell("echo begun; sleep 1000").storage(volume), |spec| {
        harness::volume::add_mounts(spec, json!([harness::disk::mount()]));
    });
    web.says("begun");
    let before = stats(&vm, &web).io;
    let write = "dd if=/dev/zero of=/disk/file bs=64k count=128 conv=fsync 2> /dev/null";
    assert_eq!(web.exec("write", &Run::shell(write)).finish().code, 0);
    let after = stats(&vm, &web).io;
    let written = after.written_bytes - before.written_bytes;
    assert!((8 * MIB..12 * MIB).contains(&written), "{before:?} {after:?}");
    assert!(after.writes > before.writes, "{before:?} {after:?}");

    let request = StatsContainerRequest { container_id: "web".into(), ..Default::default() };
    let answer: StatsContainerResponse = vm.agent("StatsContainer", &request).unwrap();
    let stats = answer.cgroup_stats.unwrap();
    let value = |op: &str| {
        let all = &stats.blkio_stats.io_service_bytes_recursive;
        let of_disk = all.iter().filter(|entry| (entry.major, entry.minor) == (254, 32));
        of_disk.filter(|entry| entry.op == op).map(|entry| entry.value).sum::<u64>()
    };
    assert!(
        value("write") >= 8 * MIB && value("wios") > 0,
        "{:?}",
        stats.blkio_stats.io_service_bytes_recursive.len()
    );
    assert!(stats.memory_stats.use_hierarchy);
    assert!(stats.hugetlb_stats.contains_key("2MB"));
    web.kill();
    web.remove();
    vm.power_off();
}

/// Network counters are the sandbox's; those of a container with a network of its own are its own.
#[test]
fn network_counters_are_what_went_through() {
    let vm = boot();
    let web = vm.start("web", &Run::shell("echo begun; sleep 1000"));
    web.says("begun");
    let alone = vm.start_with("alone", &Run::shell("echo begun; sleep 1000"), |spec| {
        list_namespace(spec, LinuxNamespaceType::Network, None);
    });
    alone.says("begun");
    let lo = |web: &Running<'_>| {
        let network = stats(&vm, web).network;
        network.into_iter().find(|interface| interface.name == "lo").expect("there is lo").received
    };
    let (before, others) = (lo(&web), lo(&alone));
    let send = "nc -l -p 7777 -e cat & sleep 1; dd if=/dev/zero bs=1k count=256 2> /dev/null | nc 127.0.0.1 7777 | wc -c";
    assert_eq!(web.exec("send", &Run::shell(send)).finish().stdout().trim(), "262144");
    let after = lo(&web);
    // There and back again.
    let carried = after.bytes - before.bytes;
    assert!((512 << 10..1024 << 10).contains(&carried), "{before:?} {after:?}");
    assert!(after.packets > before.packets);
    assert_eq!(lo(&alone), others);
    for web in [web, alone] {
        web.kill();
        web.remove();
    }
    vm.shutdown();
}

/// Statistics of nobody are not found, by a bad id refused.
#[test]
fn statistics_of_nobody_are_not_found() {
    let vm = boot();
    let nobody = vm.sandbox().container(ContainerId::new("nobody").unwrap());
    let err = vm.run("stats", nobody.stats()).unwrap_err();
    assert!(err.code() == Code::NotFound && err.to_string().contains("not found"), "{err}");
    for id in ["", "../up"] {
        let request = StatsContainerRequest { container_id: id.into(), ..Default::default() };
        let reply = vm.agent::<StatsContainerResponse>("StatsContainer", &request).unwrap_err();
        assert!(reply.is(Code::InvalidArgument), "{id:?}: {reply:?}");
    }
    let created = vm.create("web", &Run::probe(["exit", "0"]));
    assert!(stats(&vm, &created).pids.current == 1);
    created.remove();
    vm.shutdown();
}
