//! What a container may use, and what it has used.

use nix::unistd::Pid;

use super::Sandbox;
use crate::container::spec::Resources;
use crate::container::{Container, ContainerId, ProcessEntry, Stats};
use crate::error::{Context, Result};
use crate::events::What;
use crate::network::{self, Counters};

impl Sandbox {
    /// What its cgroup has used, and what went through its network.
    pub fn stats(&self, id: &ContainerId) -> Result<(Stats, Vec<Counters>)> {
        let operation = || format!("stats of container {id:?}");
        let container = self.container(id)?;
        Ok((container.stats().context(operation)?, interfaces(&container).context(operation)?))
    }

    /// The processes in it, and whether there are more than can be listed.
    pub async fn list_processes(&self, id: &ContainerId) -> Result<(Vec<ProcessEntry>, bool)> {
        let container = self.container(id)?;
        let listed = container.list_processes(&self.reaper).await;
        listed.context(|| format!("list processes of container {id:?}"))
    }

    pub async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let container = self.container(id)?;
        let updated = container.update(resources, &self.reaper).await;
        updated.context(|| format!("update container {id:?}"))
    }

    pub async fn pause(&self, id: &ContainerId) -> Result<()> {
        let container = self.container(id)?;
        container.pause().await.context(|| format!("pause container {id:?}"))?;
        self.events.publish(What::ContainerPaused(id.clone()));
        Ok(())
    }

    pub async fn resume(&self, id: &ContainerId) -> Result<()> {
        let container = self.container(id)?;
        container.resume().await.context(|| format!("resume container {id:?}"))?;
        self.events.publish(What::ContainerResumed(id.clone()));
        Ok(())
    }
}

/// Those of the sandbox, or those of a network of the container's own for as long as its first process lives.
fn interfaces(container: &Container) -> Result<Vec<Counters>> {
    let (first, _) = container.processes();
    match (container.owns_network(), first.pid()) {
        (false, _) => network::counters(),
        // An error: it ends right now.
        (true, Some(pid)) => Ok(network::counters_of(Pid::from_raw(pid)).unwrap_or_default()),
        (true, None) => Ok(Vec::new()),
    }
}
