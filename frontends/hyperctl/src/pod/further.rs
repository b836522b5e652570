//! A further container in a pod that another hyperctl hosts: `run --pod`.
//!
//! ```text
//! claim ─ join (a lease of the pod's host) ─ connect ─ create ─ start ─ session ─ remove ─ exited ─ lease given back
//! ```
//! The pod ends with its first container, and this one is stopped then. It ends when its hyperctl does, however that
//! is: the lease is a connection, and the pod's host removes what is left when it breaks.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hyperstart::{Container as Guest, ContainerId, Sandbox};

use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::client;
use crate::pod::host::invent_name;
use crate::pod::leases::{self, Join, Lease};
use crate::pod::output_log::Writer;
use crate::pod::state::{State, Status};
use crate::pod::store::{Claim, Pod, Store};
use crate::session::{Log, Session};
use crate::signals::Signals;
use crate::spec::{Container, Root};
use crate::time;

/// For the guest to take it down when it has ended.
const REMOVE: Duration = Duration::from_secs(10);

/// A further container that is asked for.
pub struct Order {
    /// The pod's name, id, or the beginning of an id.
    pub pod: String,
    pub name: Option<String>,
    pub container: Container,
    pub interactive: bool,
    pub attached: bool,
    /// No record stays when it has ended.
    pub remove: bool,
}

/// Runs the container to its end; the value is its exit code. `started` hears when it runs.
pub async fn run(
    order: Order,
    store: &Store,
    signals: &mut Signals,
    started: impl FnOnce(&State) -> Result<()>,
) -> Result<u8> {
    let operation = || format!("run {:?} in pod {:?}", order.container.label, order.pod);
    let (pod, mut claim) =
        store.claim_further(&order.pod, |pod, id| describe(&order, pod, id)).context(operation)?;
    if !order.attached {
        output::say_into(&claim.dir.join("host.log"))?;
    }
    let made = tokio::select! {
        made = make(&order, &pod, &claim) => made,
        signal = signals.next_ending() => return Err(Error::interrupted(operation(), signal)),
    };
    let made = explained(&pod, made).await.context(operation)?;
    let outcome = live(&order, &made, &mut claim, signals, started).await;
    let outcome = explained(&pod, outcome).await.context(operation);
    if let Err(err) = made.container.remove(REMOVE).await {
        log::debug!("{err}"); // the pod's host tries again when the lease ends, and says so
    }
    let ended = finish(&order, store, &pod, claim, outcome);
    made.lease.give_back().await;
    ended
}

fn describe(order: &Order, pod: &State, id: String) -> State {
    let name = order.name.clone().unwrap_or_else(|| invent_name(&order.container.label, &id));
    let name = format!("{}/{name}", pod.name);
    State {
        pod: Some(pod.name.clone()),
        process: Some(order.container.process.clone()),
        stop_signal: order.container.stop_signal.clone(),
        address: pod.address.clone(),
        console: pod.console.clone(),
        steps: pod.steps.clone(),
        ..State::new(id, name, order.container.label.clone(), pod.vm.clone())
    }
}

/// A container that is created and not started.
struct Made {
    container: Guest,
    _sandbox: Sandbox,
    lease: Lease,
}

async fn make(order: &Order, pod: &Pod, claim: &Claim) -> Result<Made> {
    let Root::Image { path } = &order.container.root else {
        return Err(Error::new("a bundle's directory cannot be shared with a VM that runs")
            .hint("make an image of it: `image-builder container`"));
    };
    let Some(address) = &pod.state.address else { return Err(Error::new("it is still booting")) };
    let join = Join {
        id: claim.state.id.clone(),
        image: path.clone(),
        stop_signal: claim.state.stop_signal.clone(),
    };
    let lease = leases::join(&pod.dir, &join).await?;
    let sandbox = client::reach(address).await?;
    let id = ContainerId::new(&claim.state.id).map_err(|err| client::guest_error(&err))?;
    let storages = order.container.storages(&id, Some(&lease.attached))?;
    let root = storages.last().map(|root| root.mount_point.clone()).unwrap_or_default();
    let spec = order.container.spec_for(&id, &root, pod.state.share_pid);
    let options = order.container.flags.options(storages);
    let container = sandbox.create_container(&id, &spec, options).await;
    let container = container.map_err(|err| client::guest_error(&err))?;
    Ok(Made { container, _sandbox: sandbox, lease })
}

async fn live(
    order: &Order,
    made: &Made,
    claim: &mut Claim,
    signals: &mut Signals,
    started: impl FnOnce(&State) -> Result<()>,
) -> Result<u8> {
    let process = made.container.process();
    let session = Session {
        process: &process,
        container: Some(&made.container),
        tty: order.container.tty(),
        interactive: order.interactive,
        attached: order.attached,
        log: Some(RefCell::new(Log::new(Writer::create(&claim.dir)))),
        first_output: Cell::new(None),
    };
    let _raw = session.prepare().await?;
    made.container.start().await.map_err(|err| client::command_error(&err))?;
    claim.state.status = Status::Running { since: time::unix_millis() };
    claim.save()?;
    started(&claim.state)?;
    session.run(signals).await
}

/// A guest that is out of reach is one whose pod has ended, mostly.
async fn explained<T>(pod: &Pod, outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(err) if err.is_lost() && client::is_gone(pod).await? => {
            Err(Error::new("the pod ended before its container"))
        }
        outcome => outcome,
    }
}

/// What stays of it: nothing, or the record that `ps -a`, `logs` and `inspect` read for as long as the pod's.
fn finish(
    order: &Order,
    store: &Store,
    pod: &Pod,
    mut claim: Claim,
    outcome: Result<u8>,
) -> Result<u8> {
    let ran = claim.state.status != Status::Booting;
    if order.remove || !ran || !pod.is_hosted()? {
        return outcome; // dropped, and so removed
    }
    claim.state.exited(&outcome);
    store.keep(claim)?;
    outcome
}
