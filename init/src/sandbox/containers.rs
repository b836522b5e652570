//! The containers of the sandbox: their lives, and those of their processes.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use super::{Entry, Sandbox};
use crate::container::spec::{ContainerSpec, ProcessSpec};
use crate::container::{Archive, Container, ContainerId, ExecId, Process, Reservation};
use crate::error::{Code, Context, Error, Result};
use crate::events::What;
use crate::log;
use crate::reaper::ExitStatus;
use crate::stdio::Sizes;
use crate::storage::Storage;

/// One directory a container, as Kata lays it out; storages are mounted inside.
const CONTAINERS: &str = "/run/kata-containers";

/// How long the processes of a container may take to go, once they are killed, where no request says it.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// For the last exits of a container that is gone to be told.
const EXITS_DEADLINE: Duration = Duration::from_secs(5);

impl Sandbox {
    pub async fn create_container(
        &self,
        id: &ContainerId,
        spec: ContainerSpec,
        storages: &[Storage],
    ) -> Result<()> {
        if self.stopping.get() {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("create container {id:?}: the sandbox is being destroyed"),
            ));
        }
        let _reservation = self.reserve(id)?;
        if self.containers.borrow().contains_key(id) {
            return Err(Error::new(
                Code::AlreadyExists,
                format!("create container {id:?}: there is one already"),
            ));
        }
        let added = self.storages.add_all(
            storages,
            &self.uevents,
            self.config.hotplug_timeout,
            &self.reaper,
        );
        let mount_points = match added.await {
            Ok(mount_points) => mount_points,
            Err(err) => {
                self.release(id, &[]).await; // the directory that the first were mounted in
                return Err(err);
            }
        };
        let sizes = Sizes::of(&self.config);
        let pids = self.pids.borrow().clone();
        let pids = pids.as_ref().map(|pids| pids.as_fd());
        match Container::create(id.clone(), spec, pids, sizes, &self.reaper).await {
            Ok(container) => {
                self.containers.borrow_mut().insert(id.clone(), Entry { container, mount_points });
                self.events.publish(What::ContainerCreated(id.clone()));
                self.tell_exit(id, None)?;
                log::info!("container {id:?} created");
                Ok(())
            }
            Err(err) => {
                self.release(id, &mount_points).await;
                Err(err)
            }
        }
    }

    pub async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let container = self.container(id)?;
        container.start().await?;
        self.receipt.borrow_mut().mark_once("first_container");
        self.events.publish(What::ContainerStarted(id.clone()));
        self.oom.add(id.clone(), container.cgroup().path())
    }

    /// Kills what is left of it; `timeout` bounds the wait for its processes to go, none waits for as long as it takes.
    pub async fn remove_container(
        &self,
        id: &ContainerId,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let _reservation = self.reserve(id)?;
        let Entry { container, mount_points } = self.entry(id)?;
        self.oom.look(id); // a kill that is not told by now has no cgroup to be read from
        container.remove(timeout).await?;
        self.oom.remove(id);
        self.containers.borrow_mut().remove(id);
        self.release(id, &mount_points).await;
        exits_told(&container).await;
        self.events.publish(What::ContainerRemoved(id.clone()));
        log::info!("container {id:?} removed");
        Ok(())
    }

    pub async fn exec(&self, id: &ContainerId, exec_id: ExecId, spec: ProcessSpec) -> Result<()> {
        self.container(id)?.exec(exec_id.clone(), spec, &self.reaper).await?;
        self.tell_exec(id, exec_id)
    }

    /// Begins to pack or unpack files of a container's, as an exec.
    pub async fn archive(&self, id: &ContainerId, exec_id: ExecId, archive: Archive) -> Result<()> {
        self.container(id)?.archive(exec_id.clone(), archive, &self.reaper).await?;
        self.tell_exec(id, exec_id)
    }

    fn tell_exec(&self, id: &ContainerId, exec_id: ExecId) -> Result<()> {
        self.events.publish(What::ExecStarted(id.clone(), exec_id.clone()));
        self.tell_exit(id, Some(exec_id))
    }

    /// Publishes a process's exit when it comes.
    fn tell_exit(&self, id: &ContainerId, exec_id: Option<ExecId>) -> Result<()> {
        let process = self.process(id, exec_id.as_ref())?;
        let (events, id) = (Rc::clone(&self.events), id.clone());
        spawn_local(async move {
            let status = process.ended().await;
            events.publish(What::ProcessExited(id, exec_id, status));
        });
        Ok(())
    }

    pub async fn signal(
        &self,
        id: &ContainerId,
        exec_id: Option<&ExecId>,
        signal: i32,
    ) -> Result<()> {
        self.container(id)?
            .signal(exec_id, signal)
            .context(|| format!("signal {signal} to container {id:?}"))
    }

    /// Waits for a process's exit. What it wrote stays readable until it is read to its end or the container goes.
    pub async fn wait(&self, id: &ContainerId, exec_id: Option<&ExecId>) -> Result<ExitStatus> {
        let process = self.process(id, exec_id)?;
        let status = process.ended().await;
        process.waited.set(true);
        self.forget_if_done(id, exec_id, &process);
        Ok(status)
    }

    pub fn process(&self, id: &ContainerId, exec_id: Option<&ExecId>) -> Result<Rc<Process>> {
        self.container(id)?.process(exec_id)
    }

    pub(super) async fn remove_containers(&self) {
        let ids: Vec<ContainerId> = self.containers.borrow().keys().cloned().collect();
        for id in ids {
            if let Err(err) = self.remove_container(&id, Some(REMOVE_DEADLINE)).await {
                log::warn!("remove container {id:?}: {err}");
            }
        }
    }

    pub(super) fn container(&self, id: &ContainerId) -> Result<Rc<Container>> {
        Ok(self.entry(id)?.container)
    }

    fn entry(&self, id: &ContainerId) -> Result<Entry> {
        let not_found = || Error::new(Code::NotFound, format!("container {id:?}: not found"));
        self.containers.borrow().get(id).cloned().ok_or_else(not_found)
    }

    fn reserve(&self, id: &ContainerId) -> Result<Reservation<'_, ContainerId>> {
        if self.created.borrow().is_none() {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("container {id:?}: no sandbox was created"),
            ));
        }
        Reservation::of(&self.reserved, id.clone()).ok_or_else(|| {
            let message = format!("container {id:?}: another create or remove of it is under way");
            Error::new(Code::AlreadyExists, message)
        })
    }

    /// Gives back what the container's mounts were, and its directory where nothing is left in it.
    async fn release(&self, id: &ContainerId, mount_points: &[PathBuf]) {
        self.storages.remove_all(mount_points, &self.reaper).await;
        let directory = Path::new(CONTAINERS).join(id.as_str());
        if let Err(err) = fs::remove_dir(&directory) {
            log::debug!("remove {directory:?}: {err}"); // there is none, or another storage is still in it
        }
    }
}

/// Exits are published by tasks of their own: what comes after the last of them waits for it. They were killed, and their
/// cgroup is empty; one that has got out of it is not waited for.
async fn exits_told(container: &Container) {
    let (first, execs) = container.processes();
    let ended = async {
        for process in execs.iter().map(|(_, process)| process).chain([&first]) {
            process.ended().await;
        }
    };
    timeout(EXITS_DEADLINE, ended).await.ok();
    yield_now().await;
}
