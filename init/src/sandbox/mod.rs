//! The sandbox: this guest and all that is in it. It owns the containers, the storages and what watches them, and is
//! the only one that knows them all: it takes a path from one part and gives it to the next.
//!
//! Every method is one request, told in domain types. No borrow of a table lives over an await: a request looks up,
//! lets go, and waits.

mod containers;
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
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use nix::unistd::sethostname;
use rustix::system::uname;
use tokio::sync::Notify;

pub use files::Family;

use crate::boot::Receipt;
use crate::config::Config;
use crate::container::{Container, ContainerId, SharedPids};
use crate::error::{Code, Context, Error, Result};
use crate::events::Events;
use crate::log;
use crate::network::Network;
use crate::oom::OomWatch;
use crate::reaper::Reaper;
use crate::storage::{Storage, Storages};
use crate::swap::Swaps;
use crate::uevent::Uevents;
pub use output::{OutputName, Read};
use sources::Flow;
pub use start_pod::NewContainer;

/// What belongs to all containers, beside the directories of each.
const SANDBOX_DIRECTORY: &str = "/run/kata-containers/sandbox";

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
            result = self.storages.watch(&self.reaper) => result,
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
        self.remove_containers().await; // the machine ends all the same, and with it the rest
        self.swaps.remove_all(&self.reaper).await;
        self.remove_storages().await;
        self.stop.notify_one();
        Ok(())
    }

    /// Those of the sandbox's own, which is then as if it had not been created.
    async fn remove_storages(&self) {
        let mount_points = self.created.borrow_mut().take().unwrap_or_default();
        self.storages.remove_all(&mount_points, &self.reaper).await;
        self.storages.remove_shared(&self.reaper).await;
    }

    /// Waits for the next container that lost a process to the OOM killer.
    pub async fn next_oom(&self) -> ContainerId {
        self.oom.next().await
    }

    /// Takes back what [`Self::next_oom`] has said to one who did not hear it.
    pub fn give_back_oom(&self, id: ContainerId) {
        self.oom.give_back(id);
    }
}

fn write_resolv_conf(lines: &[String]) -> Result<()> {
    let directory = Path::new(SANDBOX_DIRECTORY);
    fs::create_dir_all(directory).context(|| format!("make directory {directory:?}"))?;
    let file = directory.join("resolv.conf");
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write(&file, text).context(|| format!("write {file:?}"))
}
