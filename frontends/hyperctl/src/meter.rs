//! What a container uses, asked again and again: figures that are a rate come from two answers.

use std::time::{Duration, Instant};

use hyperstart::{Container, ContainerStats, Sandbox};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::pod::client;
use crate::pod::state::State;
use crate::pod::store::Pod;

/// A guest that is not starved answers at once; a table of many pods does not wait for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks one container, over one connection.
pub struct Meter {
    pub pod: Pod,
    connection: Option<(Sandbox, Container)>,
    /// When it was asked last, and the processor time that it had used then.
    last: Option<(Instant, Duration)>,
}

/// What a container uses, in the figures of `stats`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// 100 is one processor. It takes two answers.
    pub cpu_percent: Option<f64>,
    pub cpu_time: Duration,
    pub memory_bytes: u64,
    /// Its limit, or all that the VM has.
    pub memory_limit_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub pids: u64,
}

impl Meter {
    pub fn new(pod: Pod) -> Meter {
        Meter { pod, connection: None, last: None }
    }

    /// What it uses, and has used since it was asked last.
    pub async fn measure(&mut self) -> Result<Usage> {
        let asked = timeout(PATIENCE, self.ask()).await;
        let asked = asked.unwrap_or_else(|_| Err(Error::new("the guest does not answer")));
        let Ok(stats) = asked else {
            (self.connection, self.last) = (None, None);
            return asked.map(|_| Usage::default());
        };
        let (now, used) = (Instant::now(), stats.cpu.usage);
        let last = self.last.replace((now, used));
        let cpu_percent = last.map(|(then, before)| rate(now - then, used.saturating_sub(before)));
        Ok(Usage { cpu_percent, ..usage(&stats, &self.pod.state) })
    }

    async fn ask(&mut self) -> Result<ContainerStats> {
        let (_, container) = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(client::connect(&self.pod).await?),
        };
        container.stats().await.map_err(|err| client::guest_error(&err))
    }
}

fn rate(time: Duration, used: Duration) -> f64 {
    let time = time.as_secs_f64();
    if time > 0.0 { used.as_secs_f64() / time * 100.0 } else { 0.0 }
}

fn usage(stats: &ContainerStats, state: &State) -> Usage {
    let vm_bytes = u64::from(state.vm.memory_mib) << 20;
    // The loopback interface carries nothing in or out.
    let carried = stats.network.iter().filter(|interface| interface.name != "lo");
    let (received_bytes, sent_bytes) = carried.fold((0_u64, 0_u64), |(received, sent), traffic| {
        (received.saturating_add(traffic.received.bytes), sent.saturating_add(traffic.sent.bytes))
    });
    Usage {
        cpu_percent: None,
        cpu_time: stats.cpu.usage,
        memory_bytes: stats.memory.working_set_bytes(),
        memory_limit_bytes: stats.memory.limit_bytes.map_or(vm_bytes, |limit| limit.min(vm_bytes)),
        received_bytes,
        sent_bytes,
        read_bytes: stats.io.read_bytes,
        written_bytes: stats.io.written_bytes,
        pids: stats.pids.current,
    }
}

impl Usage {
    pub fn memory_percent(&self) -> f64 {
        match self.memory_limit_bytes {
            0 => 0.0,
            limit => self.memory_bytes as f64 / limit as f64 * 100.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::state::Vm;
    use hyperstart::{MemoryStats, NetworkStats, Traffic};

    #[test]
    fn a_rate_is_of_one_processor() {
        assert_eq!(rate(Duration::from_secs(2), Duration::from_secs(3)), 150.0);
        assert_eq!(rate(Duration::ZERO, Duration::from_secs(3)), 0.0);
    }

    #[test]
    fn the_limit_is_the_containers_or_else_the_vms() {
        let vm = Vm { memory_mib: 64, ..Vm::default() };
        let state = State::new("0123456789ab".into(), "web".into(), "busybox".into(), vm);
        let limited = |limit_bytes| {
            let memory = MemoryStats { usage_bytes: 16 << 20, limit_bytes, ..Default::default() };
            let interface = |name: &str| NetworkStats {
                name: name.into(),
                received: Traffic { bytes: 7, ..Traffic::default() },
                ..NetworkStats::default()
            };
            let network = vec![interface("lo"), interface("eth0")];
            usage(&ContainerStats { memory, network, ..Default::default() }, &state)
        };
        assert_eq!(limited(None).memory_percent(), 25.0);
        assert_eq!(limited(Some(32 << 20)).memory_percent(), 50.0);
        assert_eq!(limited(Some(1 << 40)).memory_limit_bytes, 64 << 20);
        assert_eq!(limited(None).received_bytes, 7);
    }
}
