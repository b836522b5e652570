//! The guest's own log, at an offset.

use std::rc::Rc;

use hyperstart_protocol::guest::{ReadLogRequest, ReadLogResponse};

use super::up_to;
use crate::error::Result;
use crate::log;
use crate::sandbox::Sandbox;

pub async fn read(_: Rc<Sandbox>, request: ReadLogRequest) -> Result<ReadLogResponse> {
    let most = up_to(log::KEPT, request.length);
    let ring = log::ring();
    let part = if request.no_wait {
        ring.read(request.offset, most)?
    } else {
        ring.wait_read(request.offset, most).await?
    };
    let mut answer = ReadLogResponse::new();
    answer.offset = part.offset;
    answer.data = part.data;
    Ok(answer)
}
