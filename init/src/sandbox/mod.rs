//! The sandbox: this guest and all that is in it. It owns the containers, the storages and what watches them, and is
//! the only one that knows them all: it takes a path from one part and gives it to the next.
//!
//! Every method is one request, told in domain types. No borrow of a table lives over an await: a request looks up,
//! lets go, and waits.

mod files;
mod list;
mod machine;
mod network;
mod output;
mod resources;
mod sources;
mod start_pod;
mod volumes;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::unistd::sethostname;
use rustix::system::uname;
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

pub use files::Family;

use crate::boot::Receipt;
use crate::config::Config;
use crate::container::spec::{ContainerSpec, ProcessSpec};
use crate::container::{Container, ContainerId, ExecId, Process, Reservation, SharedPids};
use crate::error::{Code, Context, Error, Result};
use crate::events::{Events, What};
use crate::log;
use crate::network::Network;
use crate::oom::OomWatch;
use crate::reaper::{ExitStatus, Reaper};
use crate::stdio::Sizes;
use crate::storage::{Storage, Storages};
use crate::swap::Swaps;
use crate::uevent::Uevents;
pub use output::{OutputName, Read};
use sources::Flow;
pub use start_pod::NewContainer;

/// One directory a container, as Kata lays it out; storages are mounted inside.
const CONTAINERS: &str = "/run/kata-containers";
const SANDBOX_DIRECTORY: &str = "/run/kata-containers/sandbox";

/// For the last exits of a container that is gone to be told.
const EXITS_DEADLINE: Duration = Duration::from_secs(5);

pub struct Sandbox {
    pub config: Config,
    pub receipt: RefCell<Receipt>,
    reaper: Reaper,
    uevents: Uevents,
    oom: OomWatch,
    events: Rc<Events>,
    device_events: Flow,
    watches_pressure: Cell<bool>,
    storages: Storages,
    swaps: Swaps,
    /// How often metrics were asked for.
    scrapes: Cell<u64>,
    network: Network,
    /// Process 1 of the pid namespace that containers share, if they do.
    pids: RefCell<Option<Rc<SharedPids>>>,
    /// Mounts of the sandbox's own; none: the host has not created the sandbox yet.
    created: RefCell<Option<Vec<PathBuf>>>,
    containers: RefCell<BTreeMap<ContainerId, Entry>>,
    /// Ids whose create or remove is under way.
    reserved: RefCell<BTreeSet<ContainerId>>,
    stopping: Cell<bool>,
    stop: Notify,
}

#[derive(Clone)]
struct Entry {
    container: Rc<Container>,
    mount_points: Vec<PathBuf>,
}

pub struct SandboxSpec {
    pub id: String,
    pub hostname: String,
    pub dns: Vec<String>,
    /// Its containers may share a pid namespace.
    pub shares_pids: bool,
    pub storages: Vec<Storage>,
}

impl Sandbox {
    pub fn new(config: Config, receipt: Receipt) -> Result<Self> {
        let events = Rc::new(Events::default());
        Ok(Self {
            config,
            receipt: RefCell::new(receipt),
            reaper: Reaper::default(),
            uevents: Uevents::listen()?,
            oom: OomWatch::new(Rc::clone(&events))?,
            events,
            device_events: Flow::new(Instant::now()),
            watches_pressure: Cell::new(false),
            storages: Storages::default(),
            swaps: Swaps::default(),
            scrapes: Cell::default(),
            network: Network::default(),
            pids: RefCell::default(),
            created: RefCell::default(),
            containers: RefCell::default(),
            reserved: RefCell::default(),
            stopping: Cell::new(false),
            stop: Notify::new(),
        })
    }

    /// Whether its containers share a pid namespace.
    pub fn shares_pids(&self) -> bool {
        self.pids.borrow().is_some()
    }

    /// That of the guest, which containers share unless they have their own.
    pub fn hostname(&self) -> String {
        uname().nodename().to_string_lossy().into_owned()
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    pub fn uevents(&self) -> &Uevents {
        &self.uevents
    }

    /// What goes on beside the requests, until the host destroys the sandbox. An error here is the guest's end.
    pub async fn run(&self) -> Result<()> {
        tokio::select! {
            result = self.reaper.run() => result,
            result = self.uevents.run(|change| self.device_changed(change)) => result,
            result = self.oom.run() => result,
            () = self.stop.notified() => Ok(()),
        }
    }

    pub async fn create(&self, spec: SandboxSpec) -> Result<()> {
        if self.created.borrow().is_some() {
            return Err(Error::new(Code::AlreadyExists, "create sandbox: there is one already"));
        }
        *self.created.borrow_mut() = Some(Vec::new()); // at once: a second create may come while this one waits
        let hostname = self.hostname();
        match self.set_up(&spec).await {
            Ok(mount_points) => {
                *self.created.borrow_mut() = Some(mount_points);
                log::info!("sandbox {:?} created", spec.id);
                Ok(())
            }
            Err(err) => {
                self.undo_set_up(&hostname);
                *self.created.borrow_mut() = None;
                Err(err).context(|| format!("create sandbox {:?}", spec.id))
            }
        }
    }

    async fn set_up(&self, spec: &SandboxSpec) -> Result<Vec<PathBuf>> {
        if !spec.hostname.is_empty() {
            sethostname(&spec.hostname).context(|| format!("set hostname {:?}", spec.hostname))?;
        }
        if spec.shares_pids {
            *self.pids.borrow_mut() = Some(Rc::new(SharedPids::start(&self.reaper).await?));
        }
        if !spec.dns.is_empty() {
            write_resolv_conf(&spec.dns)?;
        }
        self.storages
            .add_all(&spec.storages, &self.uevents, self.config.hotplug_timeout, &self.reaper)
            .await
    }

    /// Removes what is left, then lets the machine end once this request is answered.
    pub async fn destroy(&self) -> Result<()> {
        self.stopping.set(true);
        self.remove_containers(Duration::from_secs(5)).await; // the machine ends all the same, and with it the rest
        self.swaps.remove_all(&self.reaper).await;
        let mount_points = self.created.borrow_mut().take();
        if let Some(mount_points) = mount_points {
            self.storages.remove_all(&mount_points, &self.reaper).await;
        }
        self.stop.notify_one();
        Ok(())
    }

    async fn remove_containers(&self, deadline: Duration) {
        let ids: Vec<ContainerId> = self.containers.borrow().keys().cloned().collect();
        for id in ids {
            if let Err(err) = self.remove_container(&id, Some(deadline)).await {
                log::warn!("remove container {id:?}: {err}");
            }
        }
    }

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

    /// Waits for the next container that lost a process to the OOM killer.
    pub async fn next_oom(&self) -> ContainerId {
        self.oom.next().await
    }

    /// Takes back what [`Self::next_oom`] has said to one who did not hear it.
    pub fn give_back_oom(&self, id: ContainerId) {
        self.oom.give_back(id);
    }

    fn container(&self, id: &ContainerId) -> Result<Rc<Container>> {
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

fn write_resolv_conf(lines: &[String]) -> Result<()> {
    let directory = Path::new(SANDBOX_DIRECTORY);
    fs::create_dir_all(directory).context(|| format!("make directory {directory:?}"))?;
    let file = directory.join("resolv.conf");
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write(&file, text).context(|| format!("write {file:?}"))
}
