//! What makes a guest that was cloned a guest of its own: its time, its random numbers.

use std::time::SystemTime;

use hyperstart_protocol::agent::{ReseedRandomDevRequest, SetGuestDateTimeRequest};

use crate::connection::CALL;
use crate::error::{Cause, Code, Error, Result};
use crate::sandbox::Sandbox;

impl Sandbox {
    /// Sets the guest's clock, to the microsecond (`SetGuestDateTime`).
    ///
    /// # Errors
    /// [`Code::InvalidArgument`]: a time that the guest's kernel does not take: before 1970 or the guest's boot, or
    /// after the year 2200.
    pub async fn set_time(&self, time: SystemTime) -> Result<()> {
        const OPERATION: &str = "set clock of guest";
        let wrong = |cause: &str| Error::new(Code::InvalidArgument, OPERATION, "", cause);
        let since =
            time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| wrong("before 1970"))?;
        let request = SetGuestDateTimeRequest {
            Sec: i64::try_from(since.as_secs()).map_err(|_| wrong("too far away"))?,
            Usec: since.subsec_micros().into(),
            ..Default::default()
        };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.set_guest_date_time(context, &request).await
        });
        call.await.map_err(Cause::of(OPERATION, ""))?;
        Ok(())
    }

    /// Has the guest's random numbers begin anew from `seed`, which nobody else may know (`ReseedRandomDev`). For a guest
    /// that was, until now, the same machine as another.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`]: an empty seed, or one of more than 4096 bytes.
    pub async fn reseed(&self, seed: &[u8]) -> Result<()> {
        let request = ReseedRandomDevRequest { data: seed.to_owned(), ..Default::default() };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.reseed_random_dev(context, &request).await
        });
        call.await.map_err(Cause::of("reseed random numbers of guest", ""))?;
        Ok(())
    }
}
