//! Streams by offset, a request a chunk.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::guest::{
    DeleteExecRequest, Output as WireOutput, ReadOutputRequest, ReadOutputResponse,
    ReleaseReaderRequest, WriteInputRequest, WriteInputResponse,
};
use protobuf::EnumOrUnknown;

use super::super::kata::ids;
use super::up_to;
use crate::container::{ContainerId, ExecId};
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::{OutputName, Read, Sandbox};
use crate::stdio::{READ_MAX, Start, Which, reader_named};

pub async fn read(sandbox: Rc<Sandbox>, request: ReadOutputRequest) -> Result<ReadOutputResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let name =
        OutputName { id: &id, exec_id: exec_id.as_ref(), which: which_output(request.output)? };
    let read = Read {
        reader: reader_named(&request.reader)?,
        start: Start { offset: request.offset, or_oldest: request.or_oldest },
        most: up_to(READ_MAX, request.length),
        waits: !request.no_wait,
    };
    let chunk = sandbox.read_output(name, read).await?;
    let mut answer = ReadOutputResponse::new();
    answer.offset = chunk.offset;
    answer.data = chunk.data;
    answer.end = chunk.end;
    Ok(answer)
}

pub async fn release_reader(sandbox: Rc<Sandbox>, request: ReleaseReaderRequest) -> Result<Empty> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let name =
        OutputName { id: &id, exec_id: exec_id.as_ref(), which: which_output(request.output)? };
    let reader = reader_named(&request.reader)?
        .ok_or_else(|| Error::new(Code::InvalidArgument, "reader: missing"))?;
    sandbox.release_reader(&name, &reader)?;
    Ok(Empty::new())
}

/// It waits while the pipe is full: a caller that goes away takes what was not written yet with it.
pub async fn write_input(
    sandbox: Rc<Sandbox>,
    request: WriteInputRequest,
) -> Result<WriteInputResponse> {
    let (id, exec_id) = ids(&request.container_id, &request.exec_id)?;
    let process = sandbox.process(&id, exec_id.as_ref())?;
    let input = &process.stdio.input;
    input
        .write_at(request.offset, &request.data, request.close)
        .await
        .context(|| format!("container {id:?}"))?;
    let mut answer = WriteInputResponse::new();
    answer.offset = input.offset();
    Ok(answer)
}

pub async fn delete_exec(sandbox: Rc<Sandbox>, request: DeleteExecRequest) -> Result<Empty> {
    let id = ContainerId::new(&request.container_id)?;
    if request.exec_id == request.container_id {
        let message = format!("delete exec of container {id:?}: exec_id names its init");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    sandbox.delete_exec(&id, &ExecId::new(&request.exec_id)?)?;
    Ok(Empty::new())
}

fn which_output(wire: EnumOrUnknown<WireOutput>) -> Result<Which> {
    match wire.enum_value() {
        Ok(WireOutput::STDOUT) => Ok(Which::Stdout),
        Ok(WireOutput::STDERR) => Ok(Which::Stderr),
        Err(number) => {
            Err(Error::new(Code::InvalidArgument, format!("output {number}: no such output")))
        }
    }
}
