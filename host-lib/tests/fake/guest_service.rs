//! `hyperstart.v1.Guest` of the fake guest.

use async_trait::async_trait;
use hyperstart_protocol::{Empty, PROTOCOL_MAJOR, guest, guest_ttrpc};
use ttrpc::asynchronous::TtrpcContext;

use super::Guest;

#[async_trait]
impl guest_ttrpc::Guest for Guest {
    async fn version(
        &self,
        _: &TtrpcContext,
        _: guest::VersionRequest,
    ) -> ttrpc::Result<guest::VersionResponse> {
        Ok(guest::VersionResponse {
            guest_version: "1.2.3".to_owned(),
            protocol_major: PROTOCOL_MAJOR,
            protocol_minor: 7,
            capabilities: vec!["boot-receipt".to_owned()],
            kernel_release: "6.12.0".to_owned(),
            ..Default::default()
        })
    }

    async fn events(
        &self,
        _: &TtrpcContext,
        request: guest::EventsRequest,
    ) -> ttrpc::Result<guest::EventsResponse> {
        self.note(format!("events {}", request.after))?;
        let mut events = self.events.subscribe();
        let is_later = |event: &&guest::Event| event.sequence > request.after;
        let events = events.wait_for(|events| events.iter().any(|event| is_later(&event)));
        let events: Vec<_> = events.await.unwrap().iter().filter(is_later).cloned().collect();
        let lost = events[0].sequence - request.after - 1;
        Ok(guest::EventsResponse { events, lost, ..Default::default() })
    }

    async fn list(
        &self,
        _: &TtrpcContext,
        request: guest::ListRequest,
    ) -> ttrpc::Result<guest::ListResponse> {
        self.note(format!("list {}", request.container_id))?;
        Ok(self.listing.lock().unwrap().clone())
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: guest::ListProcessesRequest,
    ) -> ttrpc::Result<guest::ListProcessesResponse> {
        self.note(format!("processes {}", request.container_id))?;
        Ok(self.processes.lock().unwrap().clone())
    }

    async fn start_pod(
        &self,
        _: &TtrpcContext,
        request: guest::StartPodRequest,
    ) -> ttrpc::Result<Empty> {
        let ids = request.containers.iter().map(|container| container.container_id.as_str());
        let ids: Vec<&str> = ids.collect();
        self.note(format!("start pod {} {ids:?}", request.sandbox.hostname))
    }

    async fn read_log(
        &self,
        _: &TtrpcContext,
        request: guest::ReadLogRequest,
    ) -> ttrpc::Result<guest::ReadLogResponse> {
        self.note(format!("log {} {}", request.offset, request.no_wait))?;
        Ok(self.journal.lock().unwrap().clone())
    }
}
