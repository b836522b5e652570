//! A line to a process of a pod, made again when it breaks: the host at its other end may be killed, and its heir serves
//! the guest's serial line after it. Over vsock no host is in between.
//!
//! What is asked over it is asked again when an answer did not come, so only what may be done twice is: reads and writes
//! by offset, waits, looks.

use std::cell::RefCell;
use std::path::PathBuf;

use hyperstart::{ContainerId, ExecId, Process, Sandbox};
use tokio::time::sleep;

use crate::commands::POLL;
use crate::error::{Error, Result};
use crate::pod::client;
use crate::pod::hosted;
use crate::pod::state::Address;
use crate::pod::store::Pod;

pub struct Link {
    /// Of the pod, or of the further container.
    dir: PathBuf,
    address: Address,
    container: ContainerId,
    exec: Option<ExecId>,
    sandbox: RefCell<Option<Sandbox>>,
}

impl Link {
    /// To the own process of a pod's container, which must run.
    pub fn to(pod: &Pod) -> Result<Link> {
        let Some(address) = pod.state.address.clone() else {
            return Err(Error::new("its guest has no address").with_lost(true));
        };
        let container = ContainerId::new(&pod.state.id);
        let container = container.map_err(|err| client::guest_error(&err))?;
        let (dir, sandbox) = (pod.dir.clone(), RefCell::default());
        Ok(Link { dir, address, container, exec: None, sandbox })
    }

    /// To an exec instead.
    pub fn exec(self, exec: ExecId) -> Link {
        Link { exec: Some(exec), ..self }
    }

    /// Asks until there is an answer, or the pod is over: that is the one error which is marked as lost.
    pub async fn call<T>(
        &self,
        ask: impl AsyncFn(&Process) -> hyperstart::Result<T>,
    ) -> Result<hyperstart::Result<T>> {
        loop {
            if let Ok(sandbox) = self.connected().await {
                match ask(&self.process(&sandbox)).await {
                    Err(err) if client::may_pass(&err) => {
                        log::debug!("{err}");
                        self.sandbox.take();
                    }
                    answer => return Ok(answer),
                }
            }
            if !hosted::is_hosted(&self.dir)? {
                return Err(Error::new("the pod is gone").with_lost(true));
            }
            sleep(POLL).await;
        }
    }

    /// Asks once, what must not be done twice or is soon out of date.
    pub async fn once<T>(
        &self,
        ask: impl AsyncFn(&Process) -> hyperstart::Result<T>,
    ) -> Result<hyperstart::Result<T>> {
        let sandbox = self.connected().await?;
        Ok(ask(&self.process(&sandbox)).await)
    }

    /// The container that the process is in.
    pub async fn container(&self) -> Result<hyperstart::Container> {
        Ok(self.connected().await?.container(self.container.clone()))
    }

    /// The process is an exec.
    pub fn is_exec(&self) -> bool {
        self.exec.is_some()
    }

    async fn connected(&self) -> Result<Sandbox> {
        let sandbox = self.sandbox.borrow().clone();
        if let Some(sandbox) = sandbox {
            return Ok(sandbox);
        }
        let sandbox = client::reach_hosted(&self.address, &self.dir).await?;
        self.sandbox.replace(Some(sandbox.clone()));
        Ok(sandbox)
    }

    fn process(&self, sandbox: &Sandbox) -> Process {
        let container = sandbox.container(self.container.clone());
        match &self.exec {
            None => container.process(),
            Some(exec) => container.exec_process(exec.clone()),
        }
    }
}
