//! A pod's host at work: its VM, its containers, and who asks it for something over `control.sock`.
//!
//! Everything runs on one thread, in tasks of its own: one for each connection, one for each further container. They end
//! with the pod, and what they share is counted: the VM is dropped, and so ended, after the last of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use hyperstart::{Container, ContainerId, Sandbox};
use hyperstart_vmm::Vm;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::commands::POLL;
use crate::error::{Context as _, Result};
use crate::escalation::GRACE;
use crate::output;
use crate::pod::client;
use crate::pod::contained::Contained;
use crate::pod::control::{Ended, Line, Request, socket};
use crate::pod::disks::Disks;
use crate::pod::further;
use crate::pod::store::Claim;
use crate::signals::SIGKILL;

pub struct Hosting {
    pub dir: PathBuf,
    pub vm: Vm,
    pub sandbox: Sandbox,
    pub disks: Disks,
    pub first: Rc<Contained>,
    /// Further containers that run, by id.
    pub further: RefCell<BTreeMap<String, Rc<Contained>>>,
    pub ending: Cell<bool>,
    tasks: RefCell<JoinSet<()>>,
}

impl Hosting {
    /// `container` is the pod's first one, and `claim` is its record.
    pub fn new(
        vm: Vm,
        sandbox: Sandbox,
        disks: Disks,
        container: Container,
        claim: Claim,
    ) -> Rc<Hosting> {
        let (further, ending, tasks) = (RefCell::default(), Cell::new(false), RefCell::default());
        let dir = claim.dir.clone();
        let first = Rc::new(Contained::new(container, claim));
        Rc::new(Hosting { dir, vm, sandbox, disks, first, further, ending, tasks })
    }

    /// Serves who asks, from here on.
    pub fn listen(self: &Rc<Self>) -> Result<()> {
        let path = socket(&self.dir);
        let operation = || format!("listen on {path:?}");
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err).context(operation);
            }
            Ok(()) | Err(_) => {} // one that was killed left it
        }
        let listener = UnixListener::bind(&path).context(operation)?;
        // Nobody else gets into the pod's directory either; this is for whoever opens that.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context(operation)?;
        self.spawn(Rc::clone(self).accept(listener));
        Ok(())
    }

    /// A task that ends with the pod.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {} // those that are done need no room
        tasks.spawn_local(task);
    }

    /// The container of this id, if there is one.
    pub fn contained(&self, id: &str) -> Option<Rc<Contained>> {
        if self.first.container.id().as_str() == id {
            return Some(Rc::clone(&self.first));
        }
        self.further.borrow().get(id).cloned()
    }

    /// The pod ends: its further containers are stopped as `hyperctl stop` would, and recorded.
    pub async fn end_further(&self) {
        self.ending.set(true);
        for gently in [true, false] {
            if self.further.borrow().is_empty() {
                return;
            }
            self.signal_further(gently).await;
            let until = Instant::now() + GRACE;
            while !self.further.borrow().is_empty() && Instant::now() < until {
                sleep(POLL).await;
            }
        }
    }

    /// The last word to everybody in front; then nobody is served any more.
    pub async fn close(&self, ended: Ended) {
        self.first.fronts.tell(ended).await;
        let mut tasks = self.tasks.take();
        tasks.shutdown().await;
        if let Err(err) = fs::remove_file(socket(&self.dir)) {
            log::debug!("remove control socket: {err}"); // the pod's directory is gone already
        }
    }

    async fn accept(self: Rc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = Rc::clone(&self).serve(stream);
                    self.spawn(served);
                }
                Err(err) => {
                    output::warn(format_args!("accept who asks: {err}"));
                    sleep(POLL).await; // out of descriptors, most likely
                }
            }
        }
    }

    async fn serve(self: Rc<Self>, stream: UnixStream) {
        let mut line = Line::new(stream);
        match line.hear().await {
            Ok(Some(Request::Attach { container, reader })) => {
                if let Some(contained) = self.contained(&container) {
                    contained.attach(&reader, line).await;
                }
            }
            Ok(Some(Request::Run(order))) => further::serve(self, *order, line).await,
            Ok(Some(Request::Delivered) | None) => {}
            Err(err) => line.refuse(err).await,
        }
    }

    async fn signal_further(&self, gently: bool) {
        let held: Vec<_> = self.further.borrow().values().cloned().collect();
        for contained in held {
            let stop_signal = contained.state().map(|state| state.stop_signal.clone());
            let signal = match stop_signal {
                Ok(name) if gently => client::stop_signal(&name),
                Ok(_) | Err(_) => SIGKILL,
            };
            match timeout(GRACE, contained.container.signal(signal)).await {
                Ok(Ok(())) => {}
                Ok(Err(err)) => log::debug!("{err}"), // it may have ended in this moment
                Err(_) => log::debug!("signal {signal}: the guest does not answer"),
            }
        }
    }
}

/// An id that we made, as the guest takes it.
pub fn container_id(id: &str) -> Result<ContainerId> {
    ContainerId::new(id).map_err(|err| client::guest_error(&err))
}
