//! What makes a guest that was cloned a guest of its own: its time, its random numbers.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{ReseedRandomDevRequest, SetGuestDateTimeRequest};

use crate::error::Result;
use crate::sandbox::Sandbox;
use crate::{clock, random};

pub async fn set_time(_: Rc<Sandbox>, request: SetGuestDateTimeRequest) -> Result<Empty> {
    clock::set(request.Sec, request.Usec)?;
    Ok(Empty::new())
}

pub async fn reseed(_: Rc<Sandbox>, request: ReseedRandomDevRequest) -> Result<Empty> {
    random::reseed(&request.data)?;
    Ok(Empty::new())
}
