//! The guest's packet filter, by the tools of an image that carries them.

use std::rc::Rc;

use hyperstart_protocol::agent::{
    GetIPTablesRequest, GetIPTablesResponse, SetIPTablesRequest, SetIPTablesResponse,
};

use crate::error::Result;
use crate::sandbox::{Family, Sandbox};

pub async fn get(sandbox: Rc<Sandbox>, request: GetIPTablesRequest) -> Result<GetIPTablesResponse> {
    let mut answer = GetIPTablesResponse::new();
    answer.data = sandbox.packet_filter(family(request.is_ipv6)).await?;
    Ok(answer)
}

pub async fn set(sandbox: Rc<Sandbox>, request: SetIPTablesRequest) -> Result<SetIPTablesResponse> {
    let mut answer = SetIPTablesResponse::new();
    answer.data = sandbox.set_packet_filter(family(request.is_ipv6), &request.data).await?;
    Ok(answer)
}

fn family(is_ipv6: bool) -> Family {
    if is_ipv6 { Family::V6 } else { Family::V4 }
}
