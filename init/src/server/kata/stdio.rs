//! The streams of a process, a request a chunk.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    CloseStdinRequest, ReadStreamRequest, ReadStreamResponse, TtyWinResizeRequest,
    WriteStreamRequest, WriteStreamResponse,
};

use super::ids;
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::{OutputName, Sandbox};
use crate::stdio::Which;

/// WriteStdin waits while the pipe is full: a caller that goes away takes what it had not written yet with it.
pub async fn write_stdin(
    sandbox: Rc<Sandbox>,
    request: WriteStreamRequest,
) -> Result<WriteStreamResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let process = sandbox.process(&id, exec_id.as_ref())?;
    if request.data.is_empty() {
        process.stdio.input.close(); // how runtime-rs closes it
    } else {
        process.stdio.input.append(&request.data).await.context(|| format!("container {id:?}"))?;
    }
    let mut answer = WriteStreamResponse::new();
    answer.len = u32::try_from(request.data.len()).unwrap_or(u32::MAX); // a frame holds no more than 4 MiB
    Ok(answer)
}

pub async fn read_stdout(
    sandbox: Rc<Sandbox>,
    request: ReadStreamRequest,
) -> Result<ReadStreamResponse> {
    read(sandbox, request, Which::Stdout).await
}

pub async fn read_stderr(
    sandbox: Rc<Sandbox>,
    request: ReadStreamRequest,
) -> Result<ReadStreamResponse> {
    read(sandbox, request, Which::Stderr).await
}

pub async fn read(
    sandbox: Rc<Sandbox>,
    request: ReadStreamRequest,
    which: Which,
) -> Result<ReadStreamResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let max = usize::try_from(request.len).unwrap_or(usize::MAX); // stdio bounds it
    let mut answer = ReadStreamResponse::new();
    let name = OutputName { id: &id, exec_id: exec_id.as_ref(), which };
    answer.data = sandbox.read_next(name, max).await?;
    Ok(answer)
}

pub async fn close_stdin(sandbox: Rc<Sandbox>, request: CloseStdinRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    sandbox.process(&id, exec_id.as_ref())?.stdio.input.close();
    Ok(Empty::new())
}

pub async fn resize(sandbox: Rc<Sandbox>, request: TtyWinResizeRequest) -> Result<Empty> {
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
