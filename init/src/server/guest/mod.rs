//! `hyperstart.v1.Guest`: what Kata's API lacks. Who we are, what we can, and how the boot went.

mod boot;
mod events;
mod files;
mod list;
mod log;
mod output;
mod processes;
mod start_pod;

use std::rc::Rc;

use hyperstart_protocol::guest::{VersionRequest, VersionResponse};
use hyperstart_protocol::{AGENT_VERSION, PROTOCOL_MAJOR, PROTOCOL_MINOR};
use nix::sys::utsname::uname;
use ttrpc::asynchronous::Service;

use super::rpc::{Domain, Table};
use crate::error::{Context, Result};
use crate::sandbox::Sandbox;

/// What a host may build on; a name is added with the feature and never changes its meaning.
const CAPABILITIES: &[&str] = &[
    "archives",
    "boot-receipt",
    "events",
    "kata-agent-4.1",
    "list",
    "log",
    "oci-1.2-subset",
    "oci-extensions",
    "output-offsets",
    "start-pod",
    "streams",
];

pub fn service(domain: &Domain) -> (String, Service) {
    Table::new("hyperstart.v1.Guest", domain)
        .serve("Version", version)
        .serve("BootReceipt", boot::receipt)
        .serve("List", list::list)
        .serve("StartPod", start_pod::start_pod)
        .serve("ListProcesses", processes::list)
        .serve_waiting("Events", events::events)
        .serve_waiting("ReadLog", log::read)
        .serve_waiting("ReadOutput", output::read)
        .serve("ReleaseReader", output::release_reader)
        .serve_waiting("WriteInput", output::write_input)
        .serve("DeleteExec", output::delete_exec)
        .serve("ExportFiles", files::export)
        .serve("ImportFiles", files::import)
        .into_service()
}

/// How much of something a request asks for: 0, and more than `most`, is as much as may be.
fn up_to(most: usize, asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(asked) if (1..=most).contains(&asked) => asked,
        Ok(_) | Err(_) => most,
    }
}

async fn version(_: Rc<Sandbox>, _: VersionRequest) -> Result<VersionResponse> {
    let mut answer = VersionResponse::new();
    answer.guest_version = AGENT_VERSION.to_owned();
    answer.protocol_major = PROTOCOL_MAJOR;
    answer.protocol_minor = PROTOCOL_MINOR;
    answer.capabilities = CAPABILITIES.iter().map(|&name| name.to_owned()).collect();
    let kernel = uname().context(|| "uname".to_owned())?;
    answer.kernel_release = kernel.release().to_string_lossy().into_owned();
    Ok(answer)
}
