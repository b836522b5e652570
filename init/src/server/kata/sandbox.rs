//! The sandbox itself: its set-up and end, what it can do, who ran out of memory in it.

use std::rc::Rc;

use hyperstart_protocol::agent::{
    AgentDetails, CreateSandboxRequest, DestroySandboxRequest, GetOOMEventRequest,
    GuestDetailsRequest, GuestDetailsResponse, OOMEvent,
};
use hyperstart_protocol::{AGENT_VERSION, Empty, GUEST_NODE};

use protobuf::Message;

use super::{refuse_if, storages};
use crate::container::ContainerId;
use crate::error::Result;
use crate::hotplug;
use crate::sandbox::{Sandbox, SandboxSpec};
use crate::storage;

pub async fn create(sandbox: Rc<Sandbox>, request: CreateSandboxRequest) -> Result<Empty> {
    sandbox.create(understood(request)?).await?;
    Ok(Empty::new())
}

/// What is asked for.
pub fn understood(request: CreateSandboxRequest) -> Result<SandboxSpec> {
    refuse_if(!request.guest_hook_path.is_empty(), "guest_hook_path")?;
    refuse_if(!request.kernel_modules.is_empty(), "kernel_modules")?;
    Ok(SandboxSpec {
        id: request.sandbox_id,
        hostname: request.hostname,
        dns: request.dns,
        shares_pids: request.sandbox_pidns,
        storages: storages(request.storages)?,
    })
}

pub async fn destroy(sandbox: Rc<Sandbox>, _: DestroySandboxRequest) -> Result<Empty> {
    sandbox.destroy().await?;
    Ok(Empty::new())
}

pub async fn guest_details(
    _: Rc<Sandbox>,
    request: GuestDetailsRequest,
) -> Result<GuestDetailsResponse> {
    let mut details = AgentDetails::new();
    details.version = AGENT_VERSION.to_owned();
    details.init_daemon = true;
    details.storage_handlers = storage::DRIVERS.iter().map(|&driver| driver.to_owned()).collect();
    details.device_handlers = vec![GUEST_NODE.to_owned()];
    details.supports_seccomp = true;
    let mut answer = GuestDetailsResponse::new();
    answer.agent_details = Some(details).into();
    if request.mem_block_size {
        answer.mem_block_size_bytes = hotplug::memory_block_bytes()?;
    }
    if request.mem_hotplug_probe {
        answer.support_mem_hotplug_probe = hotplug::probes_memory();
    }
    Ok(answer)
}

pub async fn oom_event(sandbox: Rc<Sandbox>, _: GetOOMEventRequest) -> Result<OOMEvent> {
    let mut event = OOMEvent::new();
    event.container_id = sandbox.next_oom().await.as_str().to_owned();
    Ok(event)
}

/// The caller is gone: the next one is told.
pub fn oom_event_untold(sandbox: &Sandbox, answer: &[u8]) {
    // It is the answer that was made above.
    if let Ok(event) = OOMEvent::parse_from_bytes(answer)
        && let Ok(id) = ContainerId::new(event.container_id)
    {
        sandbox.give_back_oom(id);
    }
}
