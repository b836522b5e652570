//! A pod in one call: understood as a whole before anything of it is made.

use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::guest::StartPodRequest;

use super::super::{kata, oci};
use crate::error::{Code, Context, Error, Result};
use crate::sandbox::Sandbox;

/// One call's containers at the most.
const MOST: usize = 64;

pub async fn start_pod(sandbox: Rc<Sandbox>, request: StartPodRequest) -> Result<Empty> {
    let count = request.containers.len();
    if count > MOST {
        let message = format!("start pod: {count} containers, more than {MOST}");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let spec = kata::sandbox::understood(request.sandbox.unwrap_or_default())
        .context(|| "start pod: sandbox".to_owned())?;
    let named = (!spec.hostname.is_empty()).then(|| spec.hostname.clone());
    let shared = oci::Shared {
        hostname: named.unwrap_or_else(|| sandbox.hostname()),
        pid: spec.shares_pids,
    };
    let understood = |(at, request)| {
        kata::container::understood(request, &shared)
            .context(|| format!("start pod: containers[{at}]"))
    };
    let containers = request.containers.into_iter().enumerate().map(understood);
    sandbox.start_pod(spec, containers.collect::<Result<_>>()?).await?;
    Ok(Empty::new())
}
