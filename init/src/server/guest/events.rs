//! What happened, by number.

use std::rc::Rc;

use hyperstart_protocol::guest::{
    Event as WireEvent, EventsRequest, EventsResponse, event::Kind as WireKind,
};

use super::up_to;
use crate::error::Result;
use crate::events::{Event, What};
use crate::sandbox::Sandbox;

/// One answer's events at the most.
const MOST: usize = 256;

pub async fn events(sandbox: Rc<Sandbox>, request: EventsRequest) -> Result<EventsResponse> {
    let most = up_to(MOST, request.most);
    Sandbox::watch_pressure(&sandbox);
    let after = if request.no_wait {
        sandbox.events().after(request.after, most)
    } else {
        sandbox.events().wait_after(request.after, most).await
    };
    let mut answer = EventsResponse::new();
    answer.lost = after.lost;
    answer.events = after.events.into_iter().map(wire_event).collect();
    Ok(answer)
}

fn wire_event(event: Event) -> WireEvent {
    let mut wire = WireEvent::new();
    wire.sequence = event.sequence;
    wire.time_ns = event.time_ns;
    let (kind, container) = match event.what {
        What::ContainerCreated(id) => (WireKind::CONTAINER_CREATED, Some(id)),
        What::ContainerStarted(id) => (WireKind::CONTAINER_STARTED, Some(id)),
        What::ContainerPaused(id) => (WireKind::CONTAINER_PAUSED, Some(id)),
        What::ContainerResumed(id) => (WireKind::CONTAINER_RESUMED, Some(id)),
        What::ContainerRemoved(id) => (WireKind::CONTAINER_REMOVED, Some(id)),
        What::ExecStarted(id, exec_id) => {
            wire.exec_id = exec_id.to_string();
            (WireKind::EXEC_STARTED, Some(id))
        }
        What::ProcessExited(id, exec_id, status) => {
            wire.exec_id = exec_id.map(|exec_id| exec_id.to_string()).unwrap_or_default();
            wire.exit_status = status.code();
            (WireKind::PROCESS_EXITED, Some(id))
        }
        What::Oom(id) => (WireKind::OOM, Some(id)),
        What::DeviceAdded(path) => {
            wire.detail = path;
            (WireKind::DEVICE_ADDED, None)
        }
        What::DeviceRemoved(path) => {
            wire.detail = path;
            (WireKind::DEVICE_REMOVED, None)
        }
        What::LowMemory(pressure) => {
            wire.detail = pressure;
            (WireKind::LOW_MEMORY, None)
        }
    };
    wire.kind = kind.into();
    wire.container_id = container.map(|id| id.to_string()).unwrap_or_default();
    wire
}
