//! A process's input by offset: for a client that loses its connection and sends again what may not have arrived.

use hyperstart_protocol::guest::WriteInputRequest;

use crate::connection::UNBOUNDED;
use crate::error::{Cause, Result};
use crate::process::Process;

impl Process {
    /// Writes to its standard input at an offset, and says how much that has taken in all. What it took before is
    /// skipped, so the same may be sent again; to close it again is no error. Takes a guest with the capability
    /// `output-offsets`.
    ///
    /// # Errors
    /// [`Code::OutOfRange`](crate::Code::OutOfRange): there is a gap before it.
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition): it is closed.
    /// [`Code::NotFound`](crate::Code::NotFound): no such process.
    pub async fn write_input(&self, offset: u64, bytes: &[u8], close: bool) -> Result<u64> {
        let request = WriteInputRequest {
            container_id: self.wire_container(),
            exec_id: self.wire_id(),
            offset,
            data: bytes.to_vec(),
            close,
            ..Default::default()
        };
        let call = self.connection().guest_within(UNBOUNDED, |guest, context| async move {
            guest.write_input(context, &request).await
        });
        Ok(call.await.map_err(Cause::of("write input of process", self))?.offset)
    }
}
