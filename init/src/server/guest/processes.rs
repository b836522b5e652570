//! The processes in a container.

use std::rc::Rc;

use hyperstart_protocol::guest::list_processes_response::Entry as WireEntry;
use hyperstart_protocol::guest::{ListProcessesRequest, ListProcessesResponse};

use crate::container::{ContainerId, ProcessEntry};
use crate::error::Result;
use crate::sandbox::Sandbox;

pub async fn list(
    sandbox: Rc<Sandbox>,
    request: ListProcessesRequest,
) -> Result<ListProcessesResponse> {
    let id = ContainerId::new(&request.container_id)?;
    let (processes, truncated) = sandbox.list_processes(&id).await?;
    let mut answer = ListProcessesResponse::new();
    answer.processes = processes.into_iter().map(entry).collect();
    answer.truncated = truncated;
    Ok(answer)
}

fn entry(process: ProcessEntry) -> WireEntry {
    let mut wire = WireEntry::new();
    wire.pid = process.pid;
    wire.container_pid = process.container_pid;
    wire.parent_pid = process.parent_pid;
    wire.uid = process.uid;
    wire.state = process.state;
    wire.resident_bytes = process.resident_bytes;
    wire.cpu_ns = process.cpu_ns;
    wire.started_ns = process.started_ns;
    wire.command = process.command;
    wire
}
