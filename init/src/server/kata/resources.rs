//! What a container may use, and what it has used.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    PauseContainerRequest, ResumeContainerRequest, UpdateContainerRequest,
};

use super::super::oci;
use crate::container::ContainerId;
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::Sandbox;

pub async fn pause(sandbox: Rc<Sandbox>, request: PauseContainerRequest) -> Result<Empty> {
    sandbox.pause(&ContainerId::new(&request.container_id)?).await?;
    Ok(Empty::new())
}

pub async fn resume(sandbox: Rc<Sandbox>, request: ResumeContainerRequest) -> Result<Empty> {
    sandbox.resume(&ContainerId::new(&request.container_id)?).await?;
    Ok(Empty::new())
}

pub async fn update(sandbox: Rc<Sandbox>, request: UpdateContainerRequest) -> Result<Empty> {
    let id = ContainerId::new(&request.container_id)?;
    let operation = || format!("update container {id:?}");
    let missing = || Error::new(Code::InvalidArgument, "resources: missing");
    let resources = request.resources.into_option().ok_or_else(missing).context(operation)?;
    let resources = oci::resources(resources).context(operation)?;
    sandbox.update(&id, &resources).await?;
    Ok(Empty::new())
}
