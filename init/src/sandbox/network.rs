//! The sandbox's network, for those requests that need more of the sandbox than that.

use super::Sandbox;
use crate::error::Result;
use crate::network::{Interface, InterfaceSpec, Network};

impl Sandbox {
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Makes an interface what `spec` says, once its device is there.
    pub async fn update_interface(&self, spec: InterfaceSpec) -> Result<Interface> {
        self.network.update_interface(spec, &self.uevents, self.config.hotplug_timeout).await
    }
}
