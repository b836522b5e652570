//! What a container uses: processor time, memory, tasks, disks, and the sandbox's network.
//!
//! The wire's form is Kata's, which is cgroup v1's: it has a number for "no limit" (zero, or the largest there is), and
//! lists of devices. Here no limit is `None`, times are [`Duration`]s and devices are summed up.

use std::collections::BTreeMap;
use std::time::Duration;

use hyperstart_protocol::agent::{self, StatsContainerRequest, StatsContainerResponse};

use crate::connection::CALL;
use crate::container::Container;
use crate::error::{Cause, Result, printable};

/// From here on a limit is none: -1 as an unsigned number, and the page-aligned LLONG_MAX of cgroup v1's files.
const NO_LIMIT: u64 = (i64::MAX as u64) - (1 << 16);

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Of processor time.
    pub cpu: CpuStats,
    /// Of memory.
    pub memory: MemoryStats,
    /// Of processes and threads.
    pub pids: PidsStats,
    /// Of all block devices together.
    pub io: IoStats,
    /// Of each network interface of the sandbox, which its containers share.
    pub network: Vec<NetworkStats>,
}

/// Processor time that was used since the container was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// In all.
    pub usage: Duration,
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub kernel: Duration,
    /// Periods of the limit in which it wanted to run.
    pub periods: u64,
    /// How many of them it was held back in.
    pub throttled_periods: u64,
    /// For how long it was held back, summed up over processors.
    pub throttled: Duration,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage_bytes: u64,
    /// The most that was in use; `None` where the guest does not know it.
    pub max_usage_bytes: Option<u64>,
    /// The limit.
    pub limit_bytes: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: u64,
    /// Page cache, which is given back when memory runs short.
    pub cache_bytes: u64,
    /// Swap in use.
    pub swap_bytes: u64,
    /// The kernel's own file memory.stat, name by name (cgroup-v2.rst).
    pub detail: BTreeMap<String, u64>,
}

impl MemoryStats {
    /// What is in use and not just kept because nobody else needs it: without files that were not used lately. Docker's
    /// and Kubernetes' figure.
    pub fn working_set_bytes(&self) -> u64 {
        let idle = self.detail.get("inactive_file").copied().unwrap_or(0);
        self.usage_bytes.saturating_sub(idle)
    }
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be.
    pub limit: Option<u64>,
}

/// Traffic of all block devices together, since the container was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// How many reads there were.
    pub reads: u64,
    /// How many writes there were.
    pub writes: u64,
}

/// Traffic of a network interface, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// The interface's name.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// One direction of a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that were carried.
    pub bytes: u64,
    /// Packets that were carried.
    pub packets: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets for which there was no room.
    pub dropped: u64,
}

impl Container {
    /// Asks what the container uses.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such container.
    pub async fn stats(&self) -> Result<ContainerStats> {
        let container_id = self.id().as_str().to_owned();
        let request = StatsContainerRequest { container_id, ..Default::default() };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.stats_container(context, &request).await
        });
        let answer = call.await.map_err(Cause::of("ask statistics of container", self.id()))?;
        Ok(stats(answer))
    }
}

fn stats(mut answer: StatsContainerResponse) -> ContainerStats {
    let mut cgroup = answer.cgroup_stats.take().unwrap_or_default();
    let pids = cgroup.pids_stats.get_or_default();
    ContainerStats {
        cpu: cpu(cgroup.cpu_stats.get_or_default()),
        pids: PidsStats { current: pids.current, limit: limit(pids.limit) },
        io: io(cgroup.blkio_stats.get_or_default()),
        memory: memory(cgroup.memory_stats.take().unwrap_or_default()),
        network: answer.network_stats.into_iter().map(network).collect(),
    }
}

fn cpu(from: &agent::CpuStats) -> CpuStats {
    let (usage, throttling) =
        (from.cpu_usage.get_or_default(), from.throttling_data.get_or_default());
    CpuStats {
        usage: Duration::from_nanos(usage.total_usage),
        user: Duration::from_nanos(usage.usage_in_usermode),
        kernel: Duration::from_nanos(usage.usage_in_kernelmode),
        periods: throttling.periods,
        throttled_periods: throttling.throttled_periods,
        throttled: Duration::from_nanos(throttling.throttled_time),
    }
}

fn memory(from: agent::MemoryStats) -> MemoryStats {
    let usage = from.usage.get_or_default();
    MemoryStats {
        usage_bytes: usage.usage,
        max_usage_bytes: (usage.max_usage != 0).then_some(usage.max_usage),
        limit_bytes: limit(usage.limit),
        limit_hits: usage.failcnt,
        cache_bytes: from.cache,
        swap_bytes: from.swap_usage.get_or_default().usage,
        detail: from.stats.into_iter().map(|(name, value)| (printable(&name), value)).collect(),
    }
}

fn io(from: &agent::BlkioStats) -> IoStats {
    let sum = |entries: &[agent::BlkioStatsEntry], op: &str| {
        let of_op = entries.iter().filter(|entry| entry.op.eq_ignore_ascii_case(op));
        of_op.fold(0_u64, |sum, entry| sum.saturating_add(entry.value))
    };
    let (bytes, operations) = (&from.io_service_bytes_recursive, &from.io_serviced_recursive);
    IoStats {
        read_bytes: sum(bytes, "read"),
        written_bytes: sum(bytes, "write"),
        reads: sum(operations, "read"),
        writes: sum(operations, "write"),
    }
}

fn network(from: agent::NetworkStats) -> NetworkStats {
    NetworkStats {
        name: printable(&from.name),
        received: Traffic {
            bytes: from.rx_bytes,
            packets: from.rx_packets,
            errors: from.rx_errors,
            dropped: from.rx_dropped,
        },
        sent: Traffic {
            bytes: from.tx_bytes,
            packets: from.tx_packets,
            errors: from.tx_errors,
            dropped: from.tx_dropped,
        },
    }
}

fn limit(number: u64) -> Option<u64> {
    (1..NO_LIMIT).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_has_many_numbers_on_the_wire() {
        assert_eq!(limit(6 << 20), Some(6 << 20));
        for none in [0, u64::MAX, 0x7fff_ffff_ffff_f000, i64::MAX as u64] {
            assert_eq!(limit(none), None, "{none:#x}");
        }
    }

    #[test]
    fn what_files_keep_idle_is_not_in_the_working_set() {
        let detail = BTreeMap::from([("inactive_file".to_owned(), 30)]);
        let stats = MemoryStats { usage_bytes: 100, detail, ..MemoryStats::default() };
        assert_eq!(stats.working_set_bytes(), 70);
        assert_eq!(MemoryStats { usage_bytes: 20, ..stats }.working_set_bytes(), 0);
    }
}
