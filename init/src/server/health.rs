//! `grpc.Health`: whether we live, and which version. Kata's runtimes ask every few seconds.

use std::rc::Rc;

use hyperstart_protocol::health::{
    CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response,
};
use hyperstart_protocol::{AGENT_VERSION, PROTOCOL_VERSION};
use ttrpc::asynchronous::Service;

use super::rpc::{Domain, Table};
use crate::error::Result;
use crate::sandbox::Sandbox;

pub fn service(domain: &Domain) -> (String, Service) {
    Table::new("grpc.Health", domain).serve("Check", check).serve("Version", version).into_service()
}

/// An answer is the proof: it comes from the task that does everything else.
async fn check(_: Rc<Sandbox>, _: CheckRequest) -> Result<HealthCheckResponse> {
    let mut answer = HealthCheckResponse::new();
    answer.status = health_check_response::ServingStatus::SERVING.into();
    Ok(answer)
}

async fn version(_: Rc<Sandbox>, _: CheckRequest) -> Result<VersionCheckResponse> {
    let mut answer = VersionCheckResponse::new();
    answer.grpc_version = PROTOCOL_VERSION.to_owned();
    answer.agent_version = AGENT_VERSION.to_owned();
    Ok(answer)
}
