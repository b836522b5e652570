//! A pod in one call: the sandbox, its containers, their start; all of it, or nothing is left.

use std::fs;
use std::path::Path;

use nix::unistd::sethostname;

use super::{SANDBOX_DIRECTORY, Sandbox, SandboxSpec};
use crate::container::ContainerId;
use crate::container::spec::ContainerSpec;
use crate::error::{Context, Result};
use crate::log;
use crate::storage::Storage;

/// A container to be.
pub struct NewContainer {
    pub id: ContainerId,
    pub spec: ContainerSpec,
    pub storages: Vec<Storage>,
}

impl Sandbox {
    pub async fn start_pod(&self, spec: SandboxSpec, containers: Vec<NewContainer>) -> Result<()> {
        let hostname = self.hostname();
        let result = match self.create(spec).await {
            Ok(()) => {
                let started = self.start_all(containers).await;
                if started.is_err() {
                    self.undo_create(&hostname).await;
                }
                started
            }
            Err(err) => Err(err),
        };
        result.context(|| "start pod".to_owned())
    }

    async fn start_all(&self, containers: Vec<NewContainer>) -> Result<()> {
        let mut ids = Vec::with_capacity(containers.len());
        for NewContainer { id, spec, storages } in containers {
            let created = self.create_container(&id, spec, &storages).await;
            created.context(|| format!("create container {id:?}"))?;
            ids.push(id);
        }
        for id in ids {
            let started = self.start_container(&id).await;
            started.context(|| format!("start container {id:?}"))?;
        }
        Ok(())
    }

    /// Takes back a sandbox with all that is in it. What cannot be removed is said on the console: the error that the
    /// host gets is the first one.
    async fn undo_create(&self, hostname: &str) {
        self.remove_containers().await;
        self.remove_storages().await;
        self.undo_set_up(hostname);
    }

    /// What is set up before the storages.
    pub(super) fn undo_set_up(&self, hostname: &str) {
        self.pids.take(); // they end with it
        let directory = Path::new(SANDBOX_DIRECTORY);
        for result in [fs::remove_file(directory.join("resolv.conf")), fs::remove_dir(directory)] {
            if let Err(err) = result {
                log::debug!("remove {directory:?}: {err}"); // there is none, or a storage is still in it
            }
        }
        if let Err(errno) = sethostname(hostname) {
            log::warn!("set hostname {hostname:?}: {errno}");
        }
    }
}
