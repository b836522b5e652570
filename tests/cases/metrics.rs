//! What the guest tells a monitor, and the processes of a container.

use std::collections::BTreeMap;

use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, ContainerId};
use hyperstart_protocol::agent::{GetMetricsRequest, Metrics};

const MIB: f64 = 1_048_576.0;

/// Samples by name and labels, of a text that is as Prometheus has it.
fn scrape(vm: &Vm) -> BTreeMap<String, f64> {
    let text = vm.agent::<Metrics>("GetMetrics", &GetMetricsRequest::default()).unwrap().metrics;
    let (mut samples, mut family) = (BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            match kind {
                "HELP" => family = name.to_owned(),
                "TYPE" => assert!(
                    name == family && ["gauge", "counter"].contains(&words.next().unwrap()),
                    "{line}"
                ),
                other => panic!("{other}: {line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert_eq!(sample.split('{').next().unwrap(), family, "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} twice");
    }
    samples
}

/// Metrics are well-formed, say what `/proc` says, and tell containers apart by what they use.
#[test]
fn metrics_are_what_the_guest_uses() {
    let vm = Vm::boot(&VmConfig::default());
    let idle = scrape(&vm);
    assert_eq!(idle["kata_agent_scrape_count"], 1.0);
    assert_eq!(idle["kata_agent_threads"], 1.0);
    let memory = vm.init_memory();
    let rss = |samples: &BTreeMap<String, f64>| samples["kata_agent_total_rss"] / 1024.0;
    let said = memory.number("Rss") as f64;
    assert!((rss(&idle) - said).abs() < 512.0, "{} kB, /proc says {said}", rss(&idle));
    let anonymous = idle["kata_agent_proc_status{item=\"rssanon\"}"];
    assert!((anonymous - memory.number("Anonymous") as f64).abs() < 256.0, "{anonymous}");
    let total = idle["kata_guest_meminfo{item=\"mem_total\"}"];
    assert!((96.0 * MIB..128.0 * MIB).contains(&total), "{total}");
    for name in [
        "kata_agent_total_time",
        "kata_agent_total_vm",
        "kata_agent_process_open_fds",
        "kata_guest_load{item=\"load1\"}",
        "kata_guest_tasks{item=\"max\"}",
        "kata_guest_meminfo{item=\"mem_available\"}",
        "kata_guest_vm_stat{item=\"pgfault\"}",
        "kata_guest_vm_stat{item=\"oom_kill\"}",
        "kata_guest_cpu_time{cpu=\"total\",item=\"user\"}",
        "kata_guest_cpu_time{cpu=\"0\",item=\"idle\"}",
        "kata_guest_diskstat{disk=\"vda\",item=\"sectors_read\"}",
        "kata_guest_netdev_stat{interface=\"lo\",item=\"recv_bytes\"}",
        "hyperstart_guest_pressure{resource=\"memory\",kind=\"full\",item=\"total\"}",
        "hyperstart_guest_pressure{resource=\"cpu\",kind=\"some\",item=\"avg10\"}",
    ] {
        assert!(idle.contains_key(name), "{name}: {:?}", idle.keys());
    }
    let hog = vm.start("hog", &Run::probe(["hold", "24"]));
    hog.says("held");
    let busy = vm.start("busy", &Run::shell("echo begun; sleep 10000 & while :; do :; done"));
    busy.says("begun");
    let of = |samples: &BTreeMap<String, f64>, name: &str, id: &str| {
        samples[&format!("hyperstart_container_{name}{{container=\"{id}\"}}")]
    };
    let first = scrape(&vm);
    assert_eq!(first["kata_agent_scrape_count"], 2.0);
    assert!((24.0 * MIB..32.0 * MIB).contains(&of(&first, "memory_bytes", "hog")));
    assert_eq!((of(&first, "pids", "hog"), of(&first, "pids", "busy")), (1.0, 2.0));
    let cpu = |samples: &BTreeMap<String, f64>| of(samples, "cpu_seconds_total", "busy");
    let mut later = scrape(&vm);
    while cpu(&later) < cpu(&first) + 0.02 {
        later = scrape(&vm); // the test's deadline ends it
    }
    for web in [hog, busy] {
        web.kill();
        web.remove();
    }
    let after = scrape(&vm);
    assert!(after.keys().all(|sample| !sample.contains("container=")), "{:?}", after.keys());
    vm.shutdown();
}

/// The processes of a container are those that run in it, as they are: pids of both namespaces, parents, users, memory,
/// command lines with what is odd in them; a child of a child too, and nothing of another container.
#[test]
fn processes_of_a_container_are_listed() {
    let vm = Vm::boot(&VmConfig::default());
    let other = vm.start("other", &Run::probe(["ignore-signals"]));
    other.says("ready");
    let web = vm.start("web", &Run::shell("sh -c 'sleep 10001 & echo begun; wait' & wait"));
    web.says("begun");
    let exec = web.exec("exec", &Run::busybox(["sleep", "10002"]).user("1000"));
    let list = |name: &str| {
        let container = vm.sandbox().container(ContainerId::new(name).unwrap());
        vm.run("list processes", container.processes())
    };
    let said = list("web").unwrap();
    assert!(!said.truncated);
    let find = |command: &str| {
        let found = said.processes.iter().find(|process| process.command == command);
        found.unwrap_or_else(|| panic!("{command:?}: {said:?}")).clone()
    };
    let first = find("/bin/sh -c sh -c 'sleep 10001 & echo begun; wait' & wait");
    let middle = find("sh -c sleep 10001 & echo begun; wait");
    let last = find("sleep 10001");
    assert_eq!((first.container_pid, first.uid), (1, 0));
    assert_eq!((middle.parent_pid, last.parent_pid), (first.pid, middle.pid));
    assert!(first.pid > 1 && middle.container_pid > 1 && last.state == 'S');
    assert!(first.started <= last.started && first.resident_bytes > 0);
    let user = find("sleep 10002");
    assert_eq!((user.parent_pid, user.uid), (1, 1000));
    assert_eq!(list("other").unwrap().processes.len(), 1);
    exec.signal(libc::SIGKILL).unwrap();
    exec.wait();
    vm.run("pause", web.container().pause()).unwrap();
    assert!(list("web").unwrap().processes.len() >= 3, "of a paused one too");
    for web in [web, other] {
        web.kill();
        assert_eq!(list(web.container().id().as_str()).unwrap().processes.len(), 0);
        web.remove();
    }
    let err = list("web").unwrap_err();
    assert!(err.code() == Code::NotFound && err.to_string().contains("not found"), "{err}");
    vm.shutdown();
}

/// More processes than a list holds are cut, and it says so; the guest serves on.
#[test]
fn long_lists_of_processes_are_cut() {
    let config = VmConfig { memory_mib: 512, ..VmConfig::default() };
    let vm = Vm::boot(&config);
    // A long command line each, so that it is the bytes that are too many.
    let long = "x".repeat(4000);
    let script = format!(
        "i=0; while [ $i -lt 700 ]; do sleep 10000 & i=$((i+1)); done; echo begun; : {long}; wait"
    );
    let web = vm.start("web", &Run::shell(&script));
    web.says("begun");
    let many = Run::shell(&format!(
        "i=0; while [ $i -lt 600 ]; do sh -c 'sleep 10000; : {long}' & i=$((i+1)); done; echo begun; wait"
    ));
    let exec = web.exec("many", &many);
    exec.says("begun");
    let said = vm.run("list processes", web.container().processes()).unwrap();
    assert!(said.truncated && said.processes.len() > 500, "{}", said.processes.len());
    assert!(said.processes.iter().all(|process| process.command.len() <= 4096));
    web.kill();
    web.remove();
    vm.shutdown();
}
