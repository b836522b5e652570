//! The machine that the guest is: processors, memory and swap that the host plugs in, and what it tells of itself.

use std::path::Path;
use std::rc::Rc;

use tokio::task::spawn_local;
use tokio::time::timeout;

use super::Sandbox;
use crate::error::{Code, Context, Error, Result};
use crate::hotplug::{self, Cpus};
use crate::log;
use crate::metrics::{ContainerFigures, Text};
use crate::network;
use crate::storage;

/// Containers that a scrape tells of.
const CONTAINERS_MOST: usize = 512;

impl Sandbox {
    /// Brings online what is plugged in. With `wait` it answers when `cpus` processors are online; without, what comes
    /// later is brought online as it comes. Either ends with the time that a device may take to appear.
    pub async fn online(self: &Rc<Self>, cpus: u32, memory: bool, wait: bool) -> Result<()> {
        let operation = || format!("online {cpus} CPUs");
        let Cpus { possible, .. } = Cpus::count()?;
        if cpus > possible {
            let message = format!("nb_cpus {cpus}: this guest can have {possible}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        hotplug::bring_online(memory, &self.reaper).await.context(operation)?;
        if wait {
            return self.wait_for_cpus(cpus).await.context(operation);
        }
        let Cpus { online, .. } = Cpus::count()?;
        let (sandbox, more) = (Rc::clone(self), cpus.max(online.saturating_add(1)));
        spawn_local(async move {
            if let Err(err) = sandbox.wait_for_cpus(more).await {
                log::debug!("online CPUs: {err}"); // there may be no more to come
            }
        });
        Ok(())
    }

    async fn wait_for_cpus(&self, cpus: u32) -> Result<()> {
        let come = async {
            loop {
                let count = Cpus::count()?;
                if count.online >= cpus {
                    return Ok(());
                }
                if count.present > count.online {
                    hotplug::bring_online(false, &self.reaper).await?;
                    continue;
                }
                self.uevents.next().await;
            }
        };
        match timeout(self.config.hotplug_timeout, come).await {
            Ok(come) => come,
            Err(_elapsed) => {
                let Cpus { online, .. } = Cpus::count()?;
                let seconds = self.config.hotplug_timeout.as_secs();
                let message = format!("{online} are online after {seconds} s");
                Err(Error::new(Code::DeadlineExceeded, message))
            }
        }
    }

    pub async fn probe_memory(&self, addresses: &[u64]) -> Result<()> {
        hotplug::probe_memory(addresses, &self.reaper).await
    }

    /// Swaps on the disk at a PCI path.
    pub async fn add_swap(&self, pci_path: &str) -> Result<()> {
        let timeout = self.config.hotplug_timeout;
        let disk = storage::wait_for_disk(pci_path, &self.uevents, timeout, &self.reaper).await;
        let disk = disk.context(|| "add swap".to_owned())?;
        self.swaps.add(Path::new(&disk), &self.reaper).await
    }

    /// Swaps on a device or file of the guest's.
    pub async fn add_swap_path(&self, path: &Path) -> Result<()> {
        if path.starts_with("/dev") {
            let device = self.uevents.wait_for_path(path, self.config.hotplug_timeout).await;
            device.context(|| "add swap".to_owned())?;
        }
        self.swaps.add(path, &self.reaper).await
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> Result<String> {
        self.scrapes.set(self.scrapes.get() + 1);
        let mut text = Text::default();
        text.agent(self.scrapes.get());
        text.guest(&network::counters()?);
        let containers = self.list(None)?;
        let figures = containers.iter().take(CONTAINERS_MOST).map(|container| {
            let [cpu_ns, memory_bytes, pids] = container.figures();
            ContainerFigures { id: container.id().to_string(), cpu_ns, memory_bytes, pids }
        });
        text.containers(&figures.collect::<Vec<_>>());
        Ok(text.into_string())
    }
}
