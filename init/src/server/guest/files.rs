//! Files in and out of a container, as execs that read and write a tar stream.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::guest::ArchiveRequest;

use crate::container::{Archive, ContainerId, Direction, ExecId};
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::Sandbox;

/// PATH_MAX of limits.h, which counts a NUL.
const PATH_MAX: usize = 4096;

pub async fn export(sandbox: Rc<Sandbox>, request: ArchiveRequest) -> Result<Empty> {
    let direction = Direction::Export { follow: request.follow };
    begin(sandbox, request, direction, "export").await
}

pub async fn import(sandbox: Rc<Sandbox>, request: ArchiveRequest) -> Result<Empty> {
    let direction = Direction::Import { reset_owner: request.reset_owner };
    begin(sandbox, request, direction, "import").await
}

async fn begin(
    sandbox: Rc<Sandbox>,
    request: ArchiveRequest,
    direction: Direction,
    name: &str,
) -> Result<Empty> {
    let (id, exec_id) = (ContainerId::new(request.container_id)?, ExecId::new(request.exec_id)?);
    let path = request.path;
    if !path.starts_with('/') || path.len() >= PATH_MAX || path.contains('\0') {
        return Err(Error::new(Code::InvalidArgument, format!("{name}: path: not absolute")));
    }
    let operation = format!("{name} {path:?} of container {id:?}");
    sandbox.archive(&id, exec_id, Archive { path, direction }).await.context(|| operation)?;
    Ok(Empty::new())
}
