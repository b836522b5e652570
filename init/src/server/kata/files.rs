//! Files that come into the guest, and words that containers have left.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    CopyFileRequest, GetDiagnosticDataRequest, GetDiagnosticDataResponse,
    RemoveStaleVirtiofsShareMountsRequest,
};

use super::refuse_if;
use crate::container::ContainerId;
use crate::error::{Code, Error, Result};
use crate::sandbox::Sandbox;
use crate::storage::copy_file::{Entry, Piece};

/// inode(7)
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const PERMISSIONS: u32 = 0o7777;

pub async fn copy(sandbox: Rc<Sandbox>, request: CopyFileRequest) -> Result<Empty> {
    let invalid = |field: &str| {
        let message = format!("copy file {:?}: {field}: out of range", request.path);
        Error::new(Code::InvalidArgument, message)
    };
    let number = |value: i64, field: &str| u64::try_from(value).map_err(|_| invalid(field));
    let id = |value: i32, field: &str| u32::try_from(value).map_err(|_| invalid(field));
    let (uid, gid) = (id(request.uid, "uid")?, id(request.gid, "gid")?);
    let entry = match request.file_mode & TYPE {
        0 | REGULAR => Entry::File {
            size: number(request.file_size, "file_size")?,
            offset: number(request.offset, "offset")?,
            data: request.data,
        },
        DIRECTORY => Entry::Directory,
        LINK => Entry::Link { target: request.data },
        _ => return Err(invalid("file_mode")),
    };
    let piece = Piece {
        path: request.path,
        entry,
        mode: request.file_mode & PERMISSIONS,
        directory_mode: request.dir_mode & PERMISSIONS,
        uid,
        gid,
    };
    sandbox.copy_file(piece).await?;
    Ok(Empty::new())
}

pub async fn diagnostic_data(
    sandbox: Rc<Sandbox>,
    request: GetDiagnosticDataRequest,
) -> Result<GetDiagnosticDataResponse> {
    let field = format!("log_type {:?}", request.log_type);
    refuse_if(request.log_type != "termination_log", &field)?;
    let mut answer = GetDiagnosticDataResponse::new();
    answer.data = sandbox.termination_message(&ContainerId::new(request.container_id)?).await?;
    Ok(answer)
}

pub async fn look_at_shared_mounts(
    sandbox: Rc<Sandbox>,
    _: RemoveStaleVirtiofsShareMountsRequest,
) -> Result<Empty> {
    sandbox.look_at_shared_mounts().await?;
    Ok(Empty::new())
}
