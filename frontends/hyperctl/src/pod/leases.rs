//! Further containers of a pod, as its host sees them: one connection each, which lasts as long as the container may.
//!
//! ```text
//! another hyperctl                            the pod's host
//!   {"id", "image", "stop_signal"} ────────>  finds the image's disk, or plugs it in
//!   creates and runs the container  <───────  {"joined": where it is} or {"refused": why}
//!   … the connection stays open …
//!   ends, or is killed ─────EOF────────────>  removes what is left of the container, lets the disk go
//!                                   <─EOF───
//! ```
//! So a container never outlives the hyperctl that it belongs to, and that one's death is not the pod's. What the two
//! say is a line of JSON each; the containers themselves are driven over the guest's own address.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::{Future, poll_fn};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use hyperstart::{Code, ContainerId, Sandbox};
use hyperstart_vmm::Vm;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use crate::commands::POLL;
use crate::error::{Context as _, Error, Result};
use crate::escalation::GRACE;
use crate::output;
use crate::pod::client;
use crate::pod::disks::{Attached, Disks};
use crate::pod::store::Store;
use crate::signals::SIGKILL;

/// The longest line that either side takes.
const MAX_LINE: u64 = 64 << 10;
/// For a container's removal, when its hyperctl is gone.
const REMOVE: Duration = Duration::from_secs(10);

/// What a further container needs of the pod's host.
#[derive(Debug, Deserialize, Serialize)]
pub struct Join {
    pub id: String,
    pub image: PathBuf,
    pub stop_signal: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Joined(Attached),
    Refused { message: String, hint: Option<String> },
}

/// A container's hold on its pod, for as long as this lives.
pub struct Lease {
    pub attached: Attached,
    stream: BufReader<UnixStream>,
}

impl Lease {
    /// Gives it back, and waits until the pod's host has cleaned up.
    pub async fn give_back(mut self) {
        if self.stream.shutdown().await.is_ok()
            && timeout(GRACE, closed(&mut self.stream)).await.is_err()
        {
            output::warn("the pod's host does not take its lease back");
        }
    }
}

/// Asks the pod in `dir` to take a further container.
pub async fn join(dir: &Path, join: &Join) -> Result<Lease> {
    let operation = || "ask the pod's host".to_string();
    let stream = UnixStream::connect(socket(dir)).await.context(operation)?;
    let mut stream = BufReader::new(stream);
    write_line(&mut stream, join).await.context(operation)?;
    match read_line(&mut stream).await.context(operation)? {
        Answer::Joined(attached) => Ok(Lease { attached, stream }),
        Answer::Refused { message, hint } => Err(match hint {
            Some(hint) => Error::new(message).hint(hint),
            None => Error::new(message),
        }),
    }
}

/// What the leases of a pod have in common.
pub struct Pod<'a> {
    vm: &'a Vm,
    sandbox: &'a Sandbox,
    disks: &'a Disks,
    /// Container id and stop signal.
    held: RefCell<BTreeMap<String, String>>,
    ending: Cell<bool>,
}

impl<'a> Pod<'a> {
    pub fn new(vm: &'a Vm, sandbox: &'a Sandbox, disks: &'a Disks) -> Pod<'a> {
        Pod { vm, sandbox, disks, held: RefCell::default(), ending: Cell::new(false) }
    }
}

pub struct Leases<'a> {
    pod: &'a Pod<'a>,
    listener: UnixListener,
    path: PathBuf,
    /// One for each connection.
    tasks: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

impl<'a> Leases<'a> {
    pub fn listen(dir: &Path, pod: &'a Pod<'a>) -> Result<Leases<'a>> {
        let path = socket(dir);
        let operation = || format!("listen on {path:?}");
        let listener = UnixListener::bind(&path).context(operation)?;
        // Nobody else gets into the pod's directory either; this is for whoever opens that.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context(operation)?;
        Ok(Leases { pod, listener, path, tasks: Vec::new() })
    }

    /// Serves whoever comes, for ever. It may be given up and taken up again.
    pub async fn serve(&mut self) -> Infallible {
        let Leases { pod, listener, tasks, .. } = self;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => tasks.push(Box::pin(pod.hold(stream))),
                    Err(err) => {
                        output::warn(format_args!("accept a further container: {err}"));
                        sleep(POLL).await; // out of descriptors, most likely
                    }
                },
                () = poll_all(tasks) => {}
            }
        }
    }

    /// The pod ends: its further containers are stopped as `hyperctl stop` would.
    pub async fn end(&mut self) {
        let pod = self.pod;
        pod.ending.set(true);
        for gently in [true, false] {
            if pod.held.borrow().is_empty() {
                return;
            }
            pod.signal_all(gently).await;
            tokio::select! {
                never = self.serve() => match never {},
                () = pod.is_empty() => {}
                () = sleep(GRACE) => {}
            }
        }
    }
}

impl Drop for Leases<'_> {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_file(&self.path) {
            log::debug!("remove {:?}: {err}", self.path); // the pod's directory is gone already
        }
    }
}

/// Polls all of them and drops those that are done; never ready itself.
async fn poll_all(tasks: &mut Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    poll_fn(|context| {
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        Poll::Pending
    })
    .await
}

impl Pod<'_> {
    /// One lease, from the request to what is left after it.
    async fn hold(&self, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        let (join, attached) = match self.admit(&mut stream).await {
            Ok(admitted) => admitted,
            Err(err) => {
                let (message, hint, _) = err.into_parts();
                if let Err(err) = write_line(&mut stream, &Answer::Refused { message, hint }).await
                {
                    log::debug!("refuse a further container: {err}"); // whoever asked is gone
                }
                return;
            }
        };
        self.held.borrow_mut().insert(join.id.clone(), join.stop_signal.clone());
        if write_line(&mut stream, &Answer::Joined(attached.clone())).await.is_ok() {
            closed(&mut stream).await;
        }
        self.clean_up(&join.id).await;
        self.held.borrow_mut().remove(&join.id);
        self.disks.release(self.vm, &attached).await;
    }

    async fn admit(&self, stream: &mut BufReader<UnixStream>) -> Result<(Join, Attached)> {
        let join: Join = read_line(stream).await?;
        if self.ending.get() {
            return Err(Error::new("the pod is ending"));
        }
        let attached = self.disks.acquire(self.vm, &join.image).await?;
        Ok((join, attached))
    }

    /// A hyperctl that ended in order has left nothing in the guest and a record at most; one that was killed, both.
    async fn clean_up(&self, id: &str) {
        let Ok(id) = ContainerId::new(id) else { return }; // then the guest has none of that name
        match self.sandbox.container(id).remove(REMOVE).await {
            Ok(()) => {}
            Err(err) if err.code() == Code::NotFound => {}
            Err(err) => output::warn(format_args!("{err}")),
        }
        if let Err(err) = Store::open().and_then(|store| store.list()) {
            output::warn(err.message()); // it is looking that removes what is stale
        }
    }

    async fn signal_all(&self, gently: bool) {
        let held = self.held.borrow().clone();
        for (id, stop_signal) in held {
            let Ok(id) = ContainerId::new(id) else { continue };
            let signal = if gently { client::stop_signal(&stop_signal) } else { SIGKILL };
            let container = self.sandbox.container(id);
            match timeout(GRACE, container.signal(signal)).await {
                Ok(Ok(())) => {}
                Ok(Err(err)) => log::debug!("{err}"), // it may have ended in this moment
                Err(_) => log::debug!("signal {signal}: the guest does not answer"),
            }
        }
    }

    async fn is_empty(&self) {
        while !self.held.borrow().is_empty() {
            sleep(POLL).await;
        }
    }
}

/// Nothing more is said after the request; the end is what counts.
async fn closed(stream: &mut BufReader<UnixStream>) {
    let mut ignored = [0; 64];
    while let Ok(1..) = stream.read(&mut ignored).await {}
}

async fn write_line(stream: &mut BufReader<UnixStream>, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(stream.write_all(&line).await?)
}

async fn read_line<T: for<'a> Deserialize<'a>>(stream: &mut BufReader<UnixStream>) -> Result<T> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(Error::new("it has closed the connection"));
    }
    Ok(serde_json::from_slice(&line)?)
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}
