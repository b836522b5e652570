//! A container's life and its processes', as requests.

use std::rc::Rc;
use std::time::Duration;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    CreateContainerRequest, ExecProcessRequest, RemoveContainerRequest, SignalProcessRequest,
    StartContainerRequest, WaitProcessRequest, WaitProcessResponse,
};

use super::super::oci;
use super::{ids, refuse_if, storages};
use crate::container::{ContainerId, ExecId};
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::{NewContainer, Sandbox};

pub async fn create(sandbox: Rc<Sandbox>, request: CreateContainerRequest) -> Result<Empty> {
    let shared = oci::Shared { hostname: sandbox.hostname(), pid: sandbox.shares_pids() };
    let NewContainer { id, spec, storages } = understood(request, &shared)?;
    sandbox.create_container(&id, spec, &storages).await?;
    Ok(Empty::new())
}

/// What is asked for, in a sandbox that shares so much.
pub fn understood(request: CreateContainerRequest, shared: &oci::Shared) -> Result<NewContainer> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    refuse_if(exec_id.is_some(), "exec_id other than the container's id")?;
    refuse_if(request.string_user.is_some(), "string_user")?;
    if request.sandbox_pidns && !shared.pid {
        let message = "sandbox_pidns: the sandbox was created without it";
        return Err(Error::new(Code::FailedPrecondition, message));
    }
    refuse_if(!request.shared_mounts.is_empty(), "shared_mounts")?;
    refuse_ports(request.stdin_port, request.stdout_port, request.stderr_port)?;
    let Some(spec) = request.OCI.into_option() else {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("create container {id:?}: OCI: missing"),
        ));
    };
    let operation = || format!("create container {id:?}");
    let mut spec = oci::container_spec(spec, shared).context(operation)?;
    spec.guest_devices = oci::guest_devices(request.devices).context(operation)?;
    Ok(NewContainer { storages: storages(request.storages)?, id, spec })
}

pub async fn start(sandbox: Rc<Sandbox>, request: StartContainerRequest) -> Result<Empty> {
    sandbox.start_container(&ContainerId::new(&request.container_id)?).await?;
    Ok(Empty::new())
}

pub async fn remove(sandbox: Rc<Sandbox>, request: RemoveContainerRequest) -> Result<Empty> {
    let timeout = (request.timeout != 0).then(|| Duration::from_secs(request.timeout.into()));
    sandbox.remove_container(&ContainerId::new(&request.container_id)?, timeout).await?;
    Ok(Empty::new())
}

pub async fn exec(sandbox: Rc<Sandbox>, request: ExecProcessRequest) -> Result<Empty> {
    let id = ContainerId::new(&request.container_id)?;
    let exec_id = ExecId::new(&request.exec_id)?;
    refuse_if(request.string_user.is_some(), "string_user")?;
    refuse_ports(request.stdin_port, request.stdout_port, request.stderr_port)?;
    let Some(process) = request.process.into_option() else {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("exec in container {id:?}: process: missing"),
        ));
    };
    let spec = oci::process_spec(process).context(|| format!("exec in container {id:?}"))?;
    sandbox.exec(&id, exec_id, spec).await?;
    Ok(Empty::new())
}

pub async fn signal(sandbox: Rc<Sandbox>, request: SignalProcessRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let signal = i32::try_from(request.signal).map_err(|_err| {
        Error::new(Code::InvalidArgument, format!("signal {}: no such signal", request.signal))
    })?;
    sandbox.signal(&id, exec_id.as_ref(), signal).await?;
    Ok(Empty::new())
}

pub async fn wait(
    sandbox: Rc<Sandbox>,
    request: WaitProcessRequest,
) -> Result<WaitProcessResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let mut answer = WaitProcessResponse::new();
    answer.status = sandbox.wait(&id, exec_id.as_ref()).await?.code();
    Ok(answer)
}

fn refuse_ports(stdin: u32, stdout: u32, stderr: u32) -> Result<()> {
    refuse_if(stdin != 0, "stdin_port")?;
    refuse_if(stdout != 0, "stdout_port")?;
    refuse_if(stderr != 0, "stderr_port")
}
