//! The machine: processors, memory and swap that the host plugs in, and metrics.

use std::path::Path;
use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    AddSwapPathRequest, AddSwapRequest, GetMetricsRequest, MemHotplugByProbeRequest, Metrics,
    OnlineCPUMemRequest,
};

use crate::error::{Code, Error, Result};
use crate::sandbox::Sandbox;

/// Blocks of memory in one request: a TiB, where a block has 128 MiB.
const BLOCKS_MOST: usize = 8192;
/// Bridges behind bridges, at the most.
const SLOTS_MOST: usize = 8;

pub async fn online(sandbox: Rc<Sandbox>, request: OnlineCPUMemRequest) -> Result<Empty> {
    sandbox.online(request.nb_cpus, !request.cpu_only, request.wait).await?;
    Ok(Empty::new())
}

pub async fn probe_memory(
    sandbox: Rc<Sandbox>,
    request: MemHotplugByProbeRequest,
) -> Result<Empty> {
    let addresses = request.memHotplugProbeAddr;
    if addresses.len() > BLOCKS_MOST {
        let message =
            format!("memHotplugProbeAddr: {} entries, more than {BLOCKS_MOST}", addresses.len());
        return Err(Error::new(Code::InvalidArgument, message));
    }
    sandbox.probe_memory(&addresses).await?;
    Ok(Empty::new())
}

pub async fn add_swap(sandbox: Rc<Sandbox>, request: AddSwapRequest) -> Result<Empty> {
    let slots = request.PCIPath;
    if slots.is_empty() || slots.len() > SLOTS_MOST {
        let message = format!("PCIPath: {} slots: 1 to {SLOTS_MOST} are possible", slots.len());
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let slots: Vec<String> = slots.iter().map(|slot| format!("{slot:02x}")).collect();
    sandbox.add_swap(&slots.join("/")).await?;
    Ok(Empty::new())
}

pub async fn add_swap_path(sandbox: Rc<Sandbox>, request: AddSwapPathRequest) -> Result<Empty> {
    sandbox.add_swap_path(Path::new(&request.path)).await?;
    Ok(Empty::new())
}

pub async fn metrics(sandbox: Rc<Sandbox>, _: GetMetricsRequest) -> Result<Metrics> {
    let mut answer = Metrics::new();
    answer.metrics = sandbox.metrics()?;
    Ok(answer)
}
