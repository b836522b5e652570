//! Containers and their processes, as they are.

use std::rc::Rc;

use hyperstart_protocol::MAX_FRAME;
use hyperstart_protocol::guest::{
    Container as WireContainer, ListRequest, ListResponse, Process as WireProcess,
    State as WireState, StreamState,
};
use protobuf::Message;

use crate::container::{Container, ContainerId, Process, State};
use crate::error::{Code, Error, Result};
use crate::sandbox::Sandbox;
use crate::stdio::{OutputState, Which};

/// What a frame has room for beside the answer: its status.
const FRAME_SPARE: u64 = 1024;

pub async fn list(sandbox: Rc<Sandbox>, request: ListRequest) -> Result<ListResponse> {
    let only = match request.container_id.as_str() {
        "" => None,
        id => Some(ContainerId::new(id)?),
    };
    let mut answer = ListResponse::new();
    let containers = sandbox.list(only.as_ref())?;
    answer.containers = containers.iter().map(|container| wire_container(container)).collect();
    answer.last_event = sandbox.events().last();
    if answer.compute_size() > MAX_FRAME as u64 - FRAME_SPARE {
        let message = "list: larger than a frame, ask for one container at a time";
        return Err(Error::new(Code::ResourceExhausted, message));
    }
    Ok(answer)
}

fn wire_container(container: &Container) -> WireContainer {
    let mut wire = WireContainer::new();
    wire.container_id = container.id().to_string();
    let state = match container.state() {
        State::Created => WireState::CREATED,
        State::Running => WireState::RUNNING,
        State::Paused => WireState::PAUSED,
        State::Stopped(_) => WireState::STOPPED,
    };
    wire.state = state.into();
    let annotations = container.annotations();
    wire.annotations_truncated = annotations.truncated;
    wire.annotations = annotations.kept.clone().into_iter().collect();
    let (first, execs) = container.processes();
    wire.processes = Vec::with_capacity(execs.len() + 1);
    wire.processes.push(wire_process(String::new(), &first));
    wire.processes.extend(execs.iter().map(|(id, process)| wire_process(id.to_string(), process)));
    wire
}

fn wire_process(exec_id: String, process: &Process) -> WireProcess {
    let mut wire = WireProcess::new();
    wire.exec_id = exec_id;
    let state = match (process.status(), process.started_ns()) {
        (Some(status), _) => {
            wire.exit_status = status.code();
            WireState::STOPPED
        }
        (None, Some(_)) => WireState::RUNNING,
        (None, None) => WireState::CREATED,
    };
    wire.state = state.into();
    wire.pid = process.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    wire.started_ns = process.started_ns().unwrap_or_default();
    wire.exited_ns = process.exited_ns().unwrap_or_default();
    wire.terminal = process.terminal;
    let stdio = &process.stdio;
    wire.stdout = Some(wire_stream(stdio.output(Which::Stdout).state())).into();
    wire.stderr = Some(wire_stream(stdio.output(Which::Stderr).state())).into();
    wire.input_offset = stdio.input.offset();
    wire.input_closed = stdio.input.is_closed();
    wire
}

fn wire_stream(state: OutputState) -> StreamState {
    let mut wire = StreamState::new();
    wire.oldest = state.oldest;
    wire.end_offset = state.end;
    wire.ended = state.ended;
    wire
}
