//! New limits for a container that is there already.

use hyperstart_protocol::agent::UpdateContainerRequest;
use oci_spec::runtime::LinuxResources;
use protobuf::MessageField;

use crate::connection::CALL;
use crate::container::Container;
use crate::error::{Cause, Result};
use crate::spec;

impl Container {
    /// Changes what the container may use, as `linux.resources` of the OCI runtime specification has it: what is not in
    /// `resources` stays as it is, and -1 takes a limit away.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such container.
    /// [`Code::InvalidArgument`](crate::Code::InvalidArgument): a limit that cannot be, such as memory below what is used
    /// where the spec asks for that check. [`Code::Unimplemented`](crate::Code::Unimplemented): a property that the wire
    /// does not carry or the guest cannot change; the message names it.
    pub async fn update(&self, resources: &LinuxResources) -> Result<()> {
        const OPERATION: &str = "update container";
        let resources = spec::resources_to_wire(resources)?;
        let extension = spec::extension_of_resources(&resources);
        let checked = self.connection().check_extension(extension).await;
        checked.map_err(Cause::of(OPERATION, self.id()))?;
        let request = UpdateContainerRequest {
            container_id: self.id().as_str().to_owned(),
            resources: MessageField::some(resources),
            ..Default::default()
        };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.update_container(context, &request).await
        });
        call.await.map_err(Cause::of(OPERATION, self.id()))?;
        Ok(())
    }
}
