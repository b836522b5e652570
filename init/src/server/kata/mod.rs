//! `grpc.AgentService`: the face that Kata Containers' runtimes call. Wire types end here.
//!
//! A field that asks for something that is not done is refused by its name, never passed over. The init process of a
//! container is meant by an empty exec id (runtime-rs) and by the container's own id (the Go runtime).

mod clock;
pub mod container;
mod files;
mod iptables;
mod machine;
mod network;
mod resources;
pub mod sandbox;
mod stats;
mod stdio;
mod volumes;

use hyperstart_protocol::agent::{FSGroup, Storage as WireStorage};
use hyperstart_protocol::types::FSGroupChangePolicy;
use std::path::PathBuf;
use ttrpc::asynchronous::Service;

use super::rpc::{Domain, Table};
use crate::container::{ContainerId, ExecId};
use crate::error::{Code, Error, Result};
use crate::storage::{FsGroup, Policy, Storage};

pub fn service(domain: &Domain) -> (String, Service) {
    Table::new("grpc.AgentService", domain)
        .serve("CreateSandbox", sandbox::create)
        .serve("DestroySandbox", sandbox::destroy)
        .serve("GetGuestDetails", sandbox::guest_details)
        .serve_taken("GetOOMEvent", sandbox::oom_event, sandbox::oom_event_untold)
        .serve("SetGuestDateTime", clock::set_time)
        .serve("ReseedRandomDev", clock::reseed)
        .serve("CreateContainer", container::create)
        .serve("StartContainer", container::start)
        .serve("RemoveContainer", container::remove)
        .serve("UpdateContainer", resources::update)
        .serve("StatsContainer", stats::stats)
        .serve("UpdateEphemeralMounts", volumes::update_ephemeral)
        .serve("GetVolumeStats", volumes::stats)
        .serve("ResizeVolume", volumes::resize)
        .serve("OnlineCPUMem", machine::online)
        .serve("MemHotplugByProbe", machine::probe_memory)
        .serve("AddSwap", machine::add_swap)
        .serve("AddSwapPath", machine::add_swap_path)
        .serve("GetMetrics", machine::metrics)
        .serve("PauseContainer", resources::pause)
        .serve("ResumeContainer", resources::resume)
        .serve("ExecProcess", container::exec)
        .serve("SignalProcess", container::signal)
        .serve_waiting("WaitProcess", container::wait)
        .serve_waiting("ReadStdout", stdio::read_stdout)
        .serve_waiting("ReadStderr", stdio::read_stderr)
        .serve_waiting("WriteStdin", stdio::write_stdin)
        .serve("CloseStdin", stdio::close_stdin)
        .serve("TtyWinResize", stdio::resize)
        .serve("CopyFile", files::copy)
        .serve("GetDiagnosticData", files::diagnostic_data)
        .serve("RemoveStaleVirtiofsShareMounts", files::look_at_shared_mounts)
        .serve("GetIPTables", iptables::get)
        .serve("SetIPTables", iptables::set)
        .serve("UpdateInterface", network::update_interface)
        .serve("UpdateRoutes", network::update_routes)
        .serve("ListInterfaces", network::list_interfaces)
        .serve("ListRoutes", network::list_routes)
        .serve("AddARPNeighbors", network::add_neighbours)
        .refuse(NOT_SERVED)
        .into_service()
}

const NOT_SERVED: &[&str] = &["MemAgentCompactSet", "MemAgentMemcgSet", "SetPolicy"];

/// The process that a request names: none is the container's init.
pub fn ids(container_id: &str, exec_id: &str) -> Result<(ContainerId, Option<ExecId>)> {
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

fn storages(wire: Vec<WireStorage>) -> Result<Vec<Storage>> {
    wire.into_iter()
        .map(|storage| {
            let fs_group = storage.fs_group.into_option().map(fs_group).transpose()?;
            Ok(Storage {
                driver: storage.driver,
                driver_options: storage.driver_options,
                source: storage.source,
                fstype: storage.fstype,
                options: storage.options,
                mount_point: PathBuf::from(storage.mount_point),
                fs_group,
                shared: storage.shared,
            })
        })
        .collect()
}

fn fs_group(wire: FSGroup) -> Result<FsGroup> {
    let policy = match wire.group_change_policy.enum_value() {
        Ok(FSGroupChangePolicy::Always) => Policy::Always,
        Ok(FSGroupChangePolicy::OnRootMismatch) => Policy::OnRootMismatch,
        Err(other) => {
            let message =
                format!("storages[].fs_group.group_change_policy {other}: no such policy");
            return Err(Error::new(Code::InvalidArgument, message));
        }
    };
    if wire.group_id == u32::MAX {
        let message = "storages[].fs_group.group_id: no group has this number";
        return Err(Error::new(Code::InvalidArgument, message));
    }
    Ok(FsGroup { gid: wire.group_id, policy })
}
