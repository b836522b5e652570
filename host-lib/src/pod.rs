//! A pod in one call: the sandbox and its containers, made and started in one round trip; all of it, or nothing.

use std::sync::Arc;
use std::time::Duration;

use hyperstart_protocol::guest::StartPodRequest;
use oci_spec::runtime;
use protobuf::MessageField;

use crate::connection::UNBOUNDED;
use crate::container::{Container, ContainerOptions, check_size, create_request};
use crate::error::{Cause, Result};
use crate::id::ContainerId;
use crate::sandbox::{Sandbox, SandboxConfig};
use crate::spec;

const OPERATION: &str = "start pod";

/// How long the sandbox may take, and each container.
const EACH: Duration = Duration::from_secs(60);

/// A container of a pod to be.
#[derive(Clone, Debug, PartialEq)]
pub struct PodContainer {
    /// Its id.
    pub id: ContainerId,
    /// What it is made of, as in [`Sandbox::create_container`].
    pub spec: runtime::Spec,
    /// What it needs besides.
    pub options: ContainerOptions,
}

impl Sandbox {
    /// Makes the sandbox and the containers in this order, and starts them in this order, in one round trip. When
    /// anything fails, nothing of it is left, the sandbox included, and the message says which container it was.
    ///
    /// # Errors
    /// As [`Sandbox::create`], [`Sandbox::create_container`] and [`Container::start`].
    /// [`Code::Unimplemented`](crate::Code::Unimplemented): another agent, such as Kata's; nothing was made.
    /// [`Code::InvalidArgument`](crate::Code::InvalidArgument): more than 64 containers.
    pub async fn start_pod(
        &self,
        config: &SandboxConfig,
        containers: Vec<PodContainer>,
    ) -> Result<Vec<Container>> {
        let ids: Vec<ContainerId> = containers.iter().map(|pod| pod.id.clone()).collect();
        let mut request = StartPodRequest {
            sandbox: MessageField::some(config.clone().into()),
            ..Default::default()
        };
        let mut has_hooks = false;
        for PodContainer { id, spec, options } in containers {
            let container = create_request(&id, &spec, options)?;
            let wire = container.OCI.get_or_default();
            let extension = spec::extension_of_spec(wire);
            let checked = self.connection().check_extension(extension).await;
            checked.map_err(Cause::of(OPERATION, &id))?;
            has_hooks |= wire.Hooks.is_some();
            request.containers.push(container);
        }
        check_size(&request).map_err(Cause::of(OPERATION, ""))?;
        // Hooks may take as long as they are given, which the guest sees to.
        let calls = u32::try_from(2 * ids.len() + 1).unwrap_or(u32::MAX);
        let deadline = if has_hooks { UNBOUNDED } else { Some(EACH.saturating_mul(calls)) };
        let call = self.connection().guest_within(deadline, |guest, context| async move {
            guest.start_pod(context, &request).await
        });
        call.await.map_err(Cause::of(OPERATION, ""))?;
        let made = |id| Container::new(Arc::clone(self.connection()), id);
        Ok(ids.into_iter().map(made).collect())
    }
}
