//! What a user sees and changes of a container that runs: statistics, limits, processes, a pause.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use fake::Guest;
use hyperstart::{Code, ConnectOptions, Container, ContainerId, ContainerStats};
use hyperstart_protocol::{agent, guest};
use oci_spec::runtime::{LinuxMemory, LinuxPids, LinuxResources};
use tempfile::TempDir;
use ttrpc::asynchronous::Server;

async fn web() -> (Arc<Guest>, Container, (Server, TempDir)) {
    let (guest, sandbox, server) = Guest::connected(ConnectOptions::default()).await;
    (guest, sandbox.container(ContainerId::new("web").unwrap()), server)
}

#[tokio::test]
async fn a_container_is_paused_and_goes_on() {
    let (guest, web, _server) = web().await;
    web.pause().await.unwrap();
    web.resume().await.unwrap();
    assert_eq!(guest.log(), ["pause web", "resume web"]);
}

#[tokio::test]
async fn statistics_have_durations_sums_and_no_number_for_no_limit() {
    let (guest, web, _server) = web().await;
    *guest.stats.lock().unwrap() = answer();
    let stats = web.stats().await.unwrap();
    assert_eq!(stats.cpu.usage, Duration::from_millis(1500));
    assert_eq!(stats.cpu.throttled, Duration::from_secs(2));
    assert_eq!((stats.memory.usage_bytes, stats.memory.limit_bytes), (8 << 20, Some(64 << 20)));
    assert_eq!((stats.memory.working_set_bytes(), stats.memory.max_usage_bytes), (6 << 20, None));
    assert_eq!((stats.pids.current, stats.pids.limit), (3, None));
    assert_eq!((stats.io.read_bytes, stats.io.written_bytes), (30, 5));
    let eth0 = &stats.network[0];
    assert_eq!((eth0.name.as_str(), eth0.received.bytes, eth0.sent.packets), ("eth0\\n", 7, 9));
    assert_eq!(guest.log(), ["stats web"]);
}

fn answer() -> agent::StatsContainerResponse {
    let entry = |minor, op: &str, value| agent::BlkioStatsEntry {
        major: 254,
        minor,
        op: op.to_owned(),
        value,
        ..Default::default()
    };
    let mut answer = agent::StatsContainerResponse::new();
    let cgroup = answer.cgroup_stats.mut_or_insert_default();
    let cpu = cgroup.cpu_stats.mut_or_insert_default();
    cpu.cpu_usage.mut_or_insert_default().total_usage = 1_500_000_000;
    cpu.throttling_data.mut_or_insert_default().throttled_time = 2_000_000_000;
    let memory = cgroup.memory_stats.mut_or_insert_default();
    memory.usage.mut_or_insert_default().usage = 8 << 20;
    memory.usage.mut_or_insert_default().limit = 64 << 20;
    memory.stats.insert("inactive_file".to_owned(), 2 << 20);
    let pids = cgroup.pids_stats.mut_or_insert_default();
    (pids.current, pids.limit) = (3, u64::MAX);
    cgroup.blkio_stats.mut_or_insert_default().io_service_bytes_recursive =
        vec![entry(0, "Read", 10), entry(1, "read", 20), entry(1, "Write", 5)];
    answer.network_stats = vec![agent::NetworkStats {
        name: "eth0\n".to_owned(),
        rx_bytes: 7,
        tx_packets: 9,
        ..Default::default()
    }];
    answer
}

/// A guest may leave out what it does not know.
#[tokio::test]
async fn statistics_that_are_not_there_are_zero() {
    let (_guest, web, _server) = web().await;
    assert_eq!(web.stats().await.unwrap(), ContainerStats::default());
}

#[tokio::test]
async fn an_update_has_what_was_said_and_nothing_else() {
    let (guest, web, _server) = web().await;
    let mut resources = LinuxResources::default();
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(32 << 20));
    let mut pids = LinuxPids::default();
    pids.set_limit(-1);
    resources.set_memory(Some(memory)).set_pids(Some(pids));
    web.update(&resources).await.unwrap();
    let sent = guest.resources.lock().unwrap().take().unwrap();
    assert_eq!((sent.Memory.Limit, sent.Memory.Swap, sent.Pids.Limit), (32 << 20, 0, -1));
    assert!(sent.CPU.is_none() && sent.Devices.is_empty());
    assert_eq!(guest.log(), ["update web"]);
}

/// An agent that does not read our extensions would say yes and do nothing.
#[tokio::test]
async fn an_update_that_the_agent_would_pass_over_is_refused() {
    let (guest, web, _server) = web().await;
    let mut resources = LinuxResources::default();
    resources.set_unified(Some([("memory.high".to_owned(), "1".to_owned())].into()));
    let err = web.update(&resources).await.unwrap_err();
    assert_eq!(err.code(), Code::Unimplemented);
    assert!(
        err.to_string().starts_with("update container \"web\": linux.resources.unified: "),
        "{err}"
    );
    assert_eq!(guest.log(), [""; 0]);
}

#[tokio::test]
async fn processes_are_listed_with_text_that_is_safe_to_print() {
    let (guest, web, _server) = web().await;
    guest.processes.lock().unwrap().processes = vec![guest::list_processes_response::Entry {
        pid: 77,
        container_pid: 1,
        state: "S".to_owned(),
        resident_bytes: 4096,
        cpu_ns: 1_000,
        command: "sleep \x1b[2J".to_owned(),
        ..Default::default()
    }];
    let list = web.processes().await.unwrap();
    let sleep = &list.processes[0];
    assert_eq!((sleep.pid, sleep.container_pid, sleep.state), (77, 1, 'S'));
    assert_eq!((sleep.cpu, sleep.command.as_str()), (Duration::from_micros(1), "sleep \\u{1b}[2J"));
    assert!(!list.truncated);
}

/// More than a correct guest ever lists.
#[tokio::test]
async fn a_flood_of_processes_is_no_answer() {
    let (guest, web, _server) = web().await;
    guest.processes.lock().unwrap().processes = vec![Default::default(); 5000];
    let err = web.processes().await.unwrap_err();
    assert_eq!(err.code(), Code::Internal);
    assert!(err.to_string().contains("5000 processes"), "{err}");
}
