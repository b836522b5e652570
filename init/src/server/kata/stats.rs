//! What a container has used, in the form that Kata's runtimes read.
//!
//! Names and places are those that they look for: memory by the names of cgroup v1, and all counters of a disk in one
//! list by words in lower case.

use std::rc::Rc;

use hyperstart_protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData,
    MemoryStats, NetworkStats, PidsStats, StatsContainerRequest, StatsContainerResponse,
    ThrottlingData,
};

use crate::container::{ContainerId, Cpu, Disk, Hugepages, Memory, Stats, Usage};
use crate::error::Result;
use crate::network::Counters;
use crate::sandbox::Sandbox;

pub async fn stats(
    sandbox: Rc<Sandbox>,
    request: StatsContainerRequest,
) -> Result<StatsContainerResponse> {
    let (stats, interfaces) = sandbox.stats(&ContainerId::new(&request.container_id)?)?;
    let mut answer = StatsContainerResponse::new();
    answer.network_stats = interfaces.into_iter().map(network).collect();
    answer.cgroup_stats = Some(cgroup(stats)).into();
    Ok(answer)
}

fn cgroup(stats: Stats) -> CgroupStats {
    let mut wire = CgroupStats::new();
    wire.cpu_stats = Some(cpu(stats.cpu)).into();
    wire.memory_stats = Some(memory(stats.memory)).into();
    let mut pids = PidsStats::new();
    pids.current = stats.pids;
    pids.limit = stats.pids_limit.unwrap_or_default(); // 0 is none
    wire.pids_stats = Some(pids).into();
    wire.blkio_stats = Some(blkio(&stats.disks)).into();
    wire.hugetlb_stats =
        stats.hugepages.into_iter().map(|(size, pages)| (size, hugetlb(pages))).collect();
    wire
}

fn cpu(cpu: Cpu) -> CpuStats {
    let mut usage = CpuUsage::new(); // cgroup v2 has no numbers of single processors
    usage.total_usage = cpu.usage_ns;
    usage.usage_in_usermode = cpu.user_ns;
    usage.usage_in_kernelmode = cpu.system_ns;
    let mut throttling = ThrottlingData::new();
    throttling.periods = cpu.periods;
    throttling.throttled_periods = cpu.throttled_periods;
    throttling.throttled_time = cpu.throttled_ns;
    let mut wire = CpuStats::new();
    wire.cpu_usage = Some(usage).into();
    wire.throttling_data = Some(throttling).into();
    wire
}

fn memory(memory: Memory) -> MemoryStats {
    let mut wire = MemoryStats::new();
    wire.cache = memory.cache_bytes();
    wire.usage = Some(memory_data(memory.usage)).into();
    wire.swap_usage = Some(memory_data(memory.swap)).into();
    let mut kernel = MemoryData::new(); // version 2 neither limits it nor keeps its peak
    kernel.usage = memory.kernel_bytes;
    wire.kernel_usage = Some(kernel).into();
    wire.use_hierarchy = true;
    wire.stats = memory.details.into_iter().collect();
    wire
}

fn memory_data(usage: Usage) -> MemoryData {
    let mut wire = MemoryData::new();
    wire.usage = usage.bytes;
    wire.max_usage = usage.peak_bytes;
    wire.failcnt = usage.failures;
    wire.limit = usage.limit_bytes;
    wire
}

fn blkio(disks: &[Disk]) -> BlkioStats {
    let mut wire = BlkioStats::new();
    for disk in disks {
        let entry = |(op, value): (&str, u64)| {
            let mut entry = BlkioStatsEntry::new();
            entry.major = disk.major.into();
            entry.minor = disk.minor.into();
            entry.op = op.to_owned();
            entry.value = value;
            entry
        };
        let operations = [("read", disk.reads), ("write", disk.writes)];
        wire.io_serviced_recursive.extend(operations.map(entry));
        let all = [
            ("read", disk.read_bytes),
            ("write", disk.written_bytes),
            ("rios", disk.reads),
            ("wios", disk.writes),
            ("dbytes", disk.discarded_bytes),
            ("dios", disk.discards),
        ];
        wire.io_service_bytes_recursive.extend(all.map(entry));
    }
    wire
}

fn hugetlb(pages: Hugepages) -> HugetlbStats {
    let mut wire = HugetlbStats::new();
    wire.usage = pages.usage_bytes;
    wire.failcnt = pages.failures;
    wire
}

fn network(counters: Counters) -> NetworkStats {
    let mut wire = NetworkStats::new();
    wire.name = counters.name;
    wire.rx_bytes = counters.rx_bytes;
    wire.rx_packets = counters.rx_packets;
    wire.rx_errors = counters.rx_errors;
    wire.rx_dropped = counters.rx_dropped;
    wire.tx_bytes = counters.tx_bytes;
    wire.tx_packets = counters.tx_packets;
    wire.tx_errors = counters.tx_errors;
    wire.tx_dropped = counters.tx_dropped;
    wire
}
