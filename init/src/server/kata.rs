//! `grpc.AgentService`: the face that Kata Containers' runtimes call. Wire types end here.
//!
//! A field that asks for something that is not done is refused by its name, never passed over. The init process of a
//! container is meant by an empty exec id (runtime-rs) and by the container's own id (the Go runtime).

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyperstart_protocol::agent::{
    AgentDetails, CloseStdinRequest, CreateContainerRequest, CreateSandboxRequest,
    DestroySandboxRequest, ExecProcessRequest, GetOOMEventRequest, GuestDetailsRequest,
    GuestDetailsResponse, OOMEvent, ReadStreamRequest, ReadStreamResponse, RemoveContainerRequest,
    SignalProcessRequest, StartContainerRequest, Storage as WireStorage, TtyWinResizeRequest,
    WaitProcessRequest, WaitProcessResponse, WriteStreamRequest, WriteStreamResponse,
};
use hyperstart_protocol::{AGENT_VERSION, Empty, GUEST_NODE};
use ttrpc::asynchronous::Service;

use super::oci;
use super::rpc::{Domain, Table};
use crate::container::{ContainerId, ExecId};
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::{Sandbox, SandboxSpec};
use crate::stdio::Output;
use crate::storage::{self, Storage};

pub fn service(domain: &Domain) -> (String, Service) {
    Table::new("grpc.AgentService", domain)
        .serve("CreateSandbox", create_sandbox)
        .serve("DestroySandbox", destroy_sandbox)
        .serve("GetGuestDetails", guest_details)
        .serve_waiting("GetOOMEvent", oom_event)
        .serve("CreateContainer", create_container)
        .serve("StartContainer", start_container)
        .serve("RemoveContainer", remove_container)
        .serve("ExecProcess", exec_process)
        .serve("SignalProcess", signal_process)
        .serve_waiting("WaitProcess", wait_process)
        .serve_waiting("ReadStdout", read_stdout)
        .serve_waiting("ReadStderr", read_stderr)
        .serve_waiting("WriteStdin", write_stdin)
        .serve("CloseStdin", close_stdin)
        .serve("TtyWinResize", resize)
        .refuse(NOT_SERVED)
        .into_service()
}

const NOT_SERVED: &[&str] = &[
    "AddARPNeighbors",
    "AddSwap",
    "AddSwapPath",
    "CopyFile",
    "GetDiagnosticData",
    "GetIPTables",
    "GetMetrics",
    "GetVolumeStats",
    "ListInterfaces",
    "ListRoutes",
    "MemAgentCompactSet",
    "MemAgentMemcgSet",
    "MemHotplugByProbe",
    "OnlineCPUMem",
    "PauseContainer",
    "RemoveStaleVirtiofsShareMounts",
    "ReseedRandomDev",
    "ResizeVolume",
    "ResumeContainer",
    "SetGuestDateTime",
    "SetIPTables",
    "SetPolicy",
    "StatsContainer",
    "UpdateContainer",
    "UpdateEphemeralMounts",
    "UpdateInterface",
    "UpdateRoutes",
];

/// WriteStdin waits while the pipe is full: a caller that goes away takes what it had not written yet with it.
async fn write_stdin(
    sandbox: Rc<Sandbox>,
    request: WriteStreamRequest,
) -> Result<WriteStreamResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let process = sandbox.process(&id, exec_id.as_ref())?;
    if request.data.is_empty() {
        process.stdio.close_stdin(); // how runtime-rs closes it
    } else {
        process.stdio.write_stdin(&request.data).await.context(|| format!("container {id:?}"))?;
    }
    let mut answer = WriteStreamResponse::new();
    answer.len = u32::try_from(request.data.len()).unwrap_or(u32::MAX); // a frame holds no more than 4 MiB
    Ok(answer)
}

async fn create_sandbox(sandbox: Rc<Sandbox>, request: CreateSandboxRequest) -> Result<Empty> {
    refuse_if(!request.guest_hook_path.is_empty(), "guest_hook_path")?;
    refuse_if(!request.kernel_modules.is_empty(), "kernel_modules")?;
    let spec = SandboxSpec {
        id: request.sandbox_id,
        hostname: request.hostname,
        dns: request.dns,
        shares_pids: request.sandbox_pidns,
        storages: storages(request.storages)?,
    };
    sandbox.create(spec).await?;
    Ok(Empty::new())
}

async fn destroy_sandbox(sandbox: Rc<Sandbox>, _: DestroySandboxRequest) -> Result<Empty> {
    sandbox.destroy().await?;
    Ok(Empty::new())
}

async fn guest_details(
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
        answer.mem_block_size_bytes = memory_block_bytes()?;
    }
    if request.mem_hotplug_probe {
        answer.support_mem_hotplug_probe = std::path::Path::new(MEMORY).join("probe").exists();
    }
    Ok(answer)
}

const MEMORY: &str = "/sys/devices/system/memory";

/// 0 where the kernel cannot take memory in at run time: it then has no blocks.
fn memory_block_bytes() -> Result<u64> {
    let file = std::path::Path::new(MEMORY).join("block_size_bytes");
    if !file.exists() {
        return Ok(0);
    }
    let text = std::fs::read_to_string(&file).context(|| format!("read {file:?}"))?;
    u64::from_str_radix(text.trim(), 16).map_err(|_err| {
        Error::new(Code::Internal, format!("read {file:?}: {text:?} is not a hexadecimal number"))
    })
}

async fn oom_event(sandbox: Rc<Sandbox>, _: GetOOMEventRequest) -> Result<OOMEvent> {
    let mut event = OOMEvent::new();
    event.container_id = sandbox.next_oom().await.as_str().to_owned();
    Ok(event)
}

async fn create_container(sandbox: Rc<Sandbox>, request: CreateContainerRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    refuse_if(exec_id.is_some(), "exec_id other than the container's id")?;
    refuse_if(request.string_user.is_some(), "string_user")?;
    if request.sandbox_pidns && !sandbox.shares_pids() {
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
    let shared = oci::Shared { hostname: sandbox.hostname(), pid: sandbox.shares_pids() };
    let mut spec = oci::container_spec(spec, &shared).context(operation)?;
    spec.guest_devices = oci::guest_devices(request.devices).context(operation)?;
    sandbox.create_container(&id, spec, &storages(request.storages)?).await?;
    Ok(Empty::new())
}

async fn start_container(sandbox: Rc<Sandbox>, request: StartContainerRequest) -> Result<Empty> {
    sandbox.start_container(&ContainerId::new(&request.container_id)?).await?;
    Ok(Empty::new())
}

async fn remove_container(sandbox: Rc<Sandbox>, request: RemoveContainerRequest) -> Result<Empty> {
    let timeout = (request.timeout != 0).then(|| Duration::from_secs(request.timeout.into()));
    sandbox.remove_container(&ContainerId::new(&request.container_id)?, timeout).await?;
    Ok(Empty::new())
}

async fn exec_process(sandbox: Rc<Sandbox>, request: ExecProcessRequest) -> Result<Empty> {
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

async fn signal_process(sandbox: Rc<Sandbox>, request: SignalProcessRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let signal = i32::try_from(request.signal).map_err(|_err| {
        Error::new(Code::InvalidArgument, format!("signal {}: no such signal", request.signal))
    })?;
    sandbox.signal(&id, exec_id.as_ref(), signal).await?;
    Ok(Empty::new())
}

async fn wait_process(
    sandbox: Rc<Sandbox>,
    request: WaitProcessRequest,
) -> Result<WaitProcessResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let mut answer = WaitProcessResponse::new();
    answer.status = sandbox.wait(&id, exec_id.as_ref()).await?.code();
    Ok(answer)
}

async fn read_stdout(
    sandbox: Rc<Sandbox>,
    request: ReadStreamRequest,
) -> Result<ReadStreamResponse> {
    read(sandbox, request, Output::Stdout).await
}

async fn read_stderr(
    sandbox: Rc<Sandbox>,
    request: ReadStreamRequest,
) -> Result<ReadStreamResponse> {
    read(sandbox, request, Output::Stderr).await
}

async fn read(
    sandbox: Rc<Sandbox>,
    request: ReadStreamRequest,
    output: Output,
) -> Result<ReadStreamResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let max = usize::try_from(request.len).unwrap_or(usize::MAX); // stdio bounds it
    let mut answer = ReadStreamResponse::new();
    answer.data = sandbox.read(&id, exec_id.as_ref(), output, max).await?;
    Ok(answer)
}

async fn close_stdin(sandbox: Rc<Sandbox>, request: CloseStdinRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    sandbox.process(&id, exec_id.as_ref())?.stdio.close_stdin();
    Ok(Empty::new())
}

async fn resize(sandbox: Rc<Sandbox>, request: TtyWinResizeRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let size = |name: &str, value: u32| {
        u16::try_from(value).map_err(|_err| {
            Error::new(Code::InvalidArgument, format!("{name} {value}: at most 65535"))
        })
    };
    let (columns, rows) = (size("column", request.column)?, size("row", request.row)?);
    sandbox.process(&id, exec_id.as_ref())?.stdio.resize(columns, rows)?;
    Ok(Empty::new())
}

fn ids(container_id: &str, exec_id: &str) -> Result<(ContainerId, Option<ExecId>)> {
    let exec = if exec_id.is_empty() || exec_id == container_id {
        None
    } else {
        Some(ExecId::new(exec_id)?)
    };
    Ok((ContainerId::new(container_id)?, exec))
}

fn refuse_if(asked: bool, field: &str) -> Result<()> {
    if asked {
        Err(Error::new(Code::Unimplemented, format!("{field}: not supported by this guest")))
    } else {
        Ok(())
    }
}

fn refuse_ports(stdin: u32, stdout: u32, stderr: u32) -> Result<()> {
    refuse_if(stdin != 0, "stdin_port")?;
    refuse_if(stdout != 0, "stdout_port")?;
    refuse_if(stderr != 0, "stderr_port")
}

fn storages(wire: Vec<WireStorage>) -> Result<Vec<Storage>> {
    wire.into_iter()
        .map(|storage| {
            refuse_if(storage.fs_group.is_some(), "storages[].fs_group")?;
            Ok(Storage {
                driver: storage.driver,
                driver_options: storage.driver_options,
                source: storage.source,
                fstype: storage.fstype,
                options: storage.options,
                mount_point: PathBuf::from(storage.mount_point),
            })
        })
        .collect()
}
