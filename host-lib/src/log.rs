//! The guest's own log.

use hyperstart_protocol::guest::ReadLogRequest;

use crate::connection::{CALL, UNBOUNDED};
use crate::error::{Cause, Error, Result};
use crate::sandbox::Sandbox;

const OPERATION: &str = "read log of guest";

/// A part of the guest's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Of the first byte: higher than was asked for if that is no longer kept.
    pub offset: u64,
    /// Whole lines if `offset` is a line's, as they are: nothing is made safe to print.
    pub data: Vec<u8>,
}

impl LogPart {
    /// The offset of what comes behind.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }
}

impl Sandbox {
    /// Reads what the guest has logged from `offset` on, be it nothing. It keeps the last 64 KiB.
    ///
    /// # Errors
    /// [`Code::OutOfRange`](crate::Code::OutOfRange): the log ends before `offset`.
    /// [`Code::Unimplemented`](crate::Code::Unimplemented): another agent, such as Kata's.
    pub async fn log(&self, offset: u64) -> Result<LogPart> {
        read(self, offset, true).await
    }

    /// As [`Sandbox::log`], once there is at least one byte.
    ///
    /// # Errors
    /// As [`Sandbox::log`].
    pub async fn next_log(&self, offset: u64) -> Result<LogPart> {
        read(self, offset, false).await
    }
}

async fn read(sandbox: &Sandbox, offset: u64, no_wait: bool) -> Result<LogPart> {
    let request = ReadLogRequest { offset, no_wait, ..Default::default() };
    let deadline = if no_wait { CALL } else { UNBOUNDED };
    let call = sandbox.connection().guest_within(deadline, |guest, context| async move {
        guest.read_log(context, &request).await
    });
    let answer = call.await.map_err(Cause::of(OPERATION, ""))?;
    if answer.offset < offset || !no_wait && answer.data.is_empty() {
        let length = answer.data.len();
        let what = format_args!("{length} bytes at {} for {offset}", answer.offset);
        return Err(Error::nonsense(OPERATION, "", what));
    }
    Ok(LogPart { offset: answer.offset, data: answer.data })
}
