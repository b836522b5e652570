//! A further container in a pod: `run --pod`. The pod's host makes it, keeps its log and removes it, so that whoever asked
//! may be killed; an heir goes on with it as with the first.
//!
//! ```text
//! claim ─ disk ─ create ─ start ─┬─ log, exit ─ delivered ─ remove ─ record ─ disk let go
//!    └── who asked is gone: undone │
//!                  an heir comes in ┘
//! ```
//! The pod ends with its first container, and this one is stopped then.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::slice;
use std::time::Duration;

use hyperstart::Code;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::error::{Context as _, Error, Result};
use crate::image::Image;
use crate::layers;
use crate::output;
use crate::pod::client;
use crate::pod::contained::{Contained, Log};
use crate::pod::control::{Answer, Ended, Line, Request};
use crate::pod::disks::{self, Attached};
use crate::pod::failure::{AFTERMATH, give_way};
use crate::pod::hosting::{Hosting, container_id};
use crate::pod::name;
use crate::pod::output_log::{Ends, Writer};
use crate::pod::state::{State, Status};
use crate::pod::store::{Claim, Pod, Store};
use crate::session;
use crate::signals::Signals;
use crate::spec::{Container, Root};
use crate::terminal::Size;
use crate::time;

/// For the guest to take it down when it has ended.
const REMOVE: Duration = Duration::from_secs(10);

/// A further container that is asked for.
#[derive(Debug, Deserialize, Serialize)]
pub struct Order {
    /// The pod's name, id, or the beginning of an id.
    pub pod: String,
    pub name: Option<String>,
    pub container: Container,
    /// Digest of its image, if that is in the store.
    pub images: Vec<String>,
    pub interactive: bool,
    /// Who will be in front: the name of a reader.
    pub reader: Option<String>,
    /// Of the terminal in front.
    pub size: Option<Size>,
    /// No record stays when it has ended.
    pub remove: bool,
}

/// Has the pod's host run it, from as many of its image's layers as the pod has room for; gives its record once it runs.
pub async fn ask(
    mut order: Order,
    image: Image,
    store: &Store,
    signals: &mut Signals,
) -> Result<Pod> {
    let operation = format!("run {:?} in pod {:?}", order.container.label, order.pod);
    let made = async {
        let pod = store.find_running(&order.pod)?;
        order.container.root = Root::Image { layers: fitting(image, &pod)? };
        let mut line = Line::connect(&pod.dir).await?;
        line.say(&Request::Run(Box::new(order))).await?;
        match line.hear().await? {
            Some(Answer::Started { id }) => store.find(&id),
            Some(Answer::Ended(ended)) => Err(ended.refusal()),
            None => Err(Error::new("the pod's host was killed, or has ended")),
        }
    };
    let made = tokio::select! {
        made = made => made,
        signal = signals.next_ending() => Err(Error::interrupted(signal)),
    };
    made.context(|| operation)
}

/// The image's layers as they are, if the pod has them or places for them.
fn fitting(mut image: Image, pod: &Pod) -> Result<Vec<PathBuf>> {
    let there = disks::Look::at(&pod.dir)?;
    let slots = usize::try_from(pod.state.vm.slots).unwrap_or(usize::MAX);
    let room = slots.saturating_sub(there.plugged);
    layers::fit(slice::from_mut(&mut image), |layer| there.has(layer), room)?;
    Ok(image.layers)
}

/// Makes and runs one, as its pod's host.
pub async fn serve(hosting: Rc<Hosting>, order: Order, mut line: Line) {
    let mut made = Made::default();
    let begun = tokio::select! {
        begun = begin(&hosting, &order, &mut made) => begun,
        heard = line.hear::<Request>() => {
            drop(heard);
            Err(Error::new("nobody waits for it any more"))
        }
    };
    let contained = match begun {
        Ok(contained) => contained,
        Err(err) => {
            made.undo(&hosting).await;
            return line.refuse(err).await;
        }
    };
    let id = contained.container.id().as_str().to_string();
    // Whoever asked may be gone: then it runs all the same, and `ps` shows it.
    if let Err(err) = line.say(&Answer::Started { id }).await {
        log::debug!("tell of a further container: {}", err.message());
    }
    drop(line);
    let log = match contained.dir() {
        Some(dir) => Log::new(Writer::create(&dir)),
        None => return,
    };
    follow(hosting, contained, log, Ends::default()).await;
}

/// What there is of one that is being made.
#[derive(Default)]
struct Made {
    claim: Option<Claim>,
    attached: Vec<Attached>,
    container: Option<hyperstart::Container>,
    contained: Option<Rc<Contained>>,
}

impl Made {
    async fn undo(self, hosting: &Hosting) {
        if let Some(contained) = &self.contained {
            hosting.further.borrow_mut().remove(contained.container.id().as_str());
            drop(contained.take());
        }
        if let Some(container) = &self.container {
            remove(container).await;
        }
        drop(self.claim);
        hosting.disks.release(&hosting.vm, &self.attached).await;
    }
}

fn disks_of(state: &State) -> Vec<Attached> {
    state.attached.iter().chain(&state.disks).cloned().collect()
}

async fn begin(hosting: &Rc<Hosting>, order: &Order, made: &mut Made) -> Result<Rc<Contained>> {
    if hosting.ending.get() {
        return Err(Error::new("the pod is ending"));
    }
    let Root::Image { layers } = &order.container.root else {
        return Err(Error::new("its root is no image"));
    };
    let mut container = order.container.clone();
    container.find_mounts_in(&hosting.first.state()?.mounts)?;
    let store = Store::open()?;
    let pod = hosting.first.state()?.id.clone();
    let (_, claim) = store.claim_further(&pod, |pod, id| describe(order, pod, id))?;
    let id = container_id(&claim.state.id)?;
    made.claim = Some(claim);
    let (attached, volumes) = attach(hosting, &container, layers, made).await?;
    let mut storages = container.storages(&id, &attached)?;
    let root = storages.last().map(|root| root.mount_point.clone()).unwrap_or_default();
    storages.extend(container.mounts.storages(&id, &volumes));
    let shares_pids = hosting.first.state()?.share_pid;
    let spec = container.spec_for(&id, &root, shares_pids);
    let options = container.flags.options(storages);
    made.container = Some(hosting.sandbox.container(id.clone())); // also one that is half made when we give up
    let created = hosting.sandbox.create_container(&id, &spec, options).await;
    let created = created.map_err(|err| client::guest_error(&err))?;
    let Some(claim) = made.claim.take() else { return Err(Error::new("it has no record")) };
    let contained = Rc::new(Contained::new(created, claim));
    made.contained = Some(Rc::clone(&contained));
    contained.fronts.hold().await?;
    let tty = order.container.tty();
    session::prepare(&contained.process, tty, order.interactive, order.size).await?;
    let id = id.as_str().to_string();
    hosting.further.borrow_mut().insert(id, Rc::clone(&contained));
    contained.container.start().await.map_err(|err| client::command_error(&err))?;
    contained.edit(|state| state.status = Status::Running { since: time::unix_millis() })?;
    Ok(contained)
}

/// Its image's layers, and the disks of its volumes: in the record before the guest hears of them.
async fn attach(
    hosting: &Hosting,
    container: &Container,
    layers: &[PathBuf],
    made: &mut Made,
) -> Result<(Vec<Attached>, Vec<Attached>)> {
    for layer in layers {
        made.attached.push(hosting.disks.acquire(&hosting.vm, layer).await?);
    }
    let (attached, mut volumes) = (made.attached.clone(), Vec::new());
    for disk in container.mounts.disks() {
        let attached = hosting.disks.acquire_disk(&hosting.vm, disk).await?;
        made.attached.push(attached.clone());
        volumes.push(attached);
    }
    if let Some(claim) = &mut made.claim {
        claim.state.attached.clone_from(&attached);
        claim.state.mounts.clone_from(&container.mounts.record);
        claim.state.disks.clone_from(&volumes);
        claim.save()?;
    }
    Ok((attached, volumes))
}

fn describe(order: &Order, pod: &State, id: String) -> State {
    let name = order.name.clone().unwrap_or_else(|| name::invent(&order.container.label, &id));
    let name = format!("{}/{name}", pod.name);
    State {
        pod: Some(pod.name.clone()),
        process: Some(order.container.process.clone()),
        stop_signal: order.container.stop_signal.clone(),
        address: pod.address.clone(),
        console: pod.console.clone(),
        steps: pod.steps.clone(),
        remove: order.remove,
        readers: order.reader.iter().cloned().collect(),
        images: order.images.clone(),
        ..State::new(id, name, order.container.label.clone(), pod.vm.clone())
    }
}

/// From its start, or its takeover, to its record.
async fn follow(hosting: Rc<Hosting>, contained: Rc<Contained>, log: Log, ends: Ends) {
    let outcome = contained.run_to_end(log, ends).await;
    if let Err(err) = &outcome {
        sleep(AFTERMATH).await; // a VM that ends is seen to
        give_way(&hosting.vm, err);
    }
    if outcome.is_ok() {
        contained.delivered().await;
    }
    remove(&contained.container).await;
    let attached = contained.state().map(|state| disks_of(&state)).unwrap_or_default();
    hosting.disks.release(&hosting.vm, &attached).await;
    contained.fronts.tell(Ended::of(&outcome, String::new())).await;
    if let Some(mut claim) = contained.take() {
        let outcome = match outcome {
            Err(err) if err.is_lost() => Err(Error::new("the pod ended before its container")),
            outcome => outcome,
        };
        if !claim.state.remove {
            claim.state.exited(&outcome);
            if let Err(err) = claim.keep() {
                output::warn(err.message());
            }
        }
    }
    hosting.further.borrow_mut().remove(contained.container.id().as_str());
}

async fn remove(container: &hyperstart::Container) {
    match container.remove(REMOVE).await {
        Ok(()) => {}
        Err(err) if err.code() == Code::NotFound => {}
        Err(err) => log::debug!("{err}"), // the VM is going, or is gone
    }
}

/// The further containers that a killed host has left, each in our hands.
pub fn left(pod: &Path) -> Vec<Claim> {
    let Ok(store) = Store::open() else { return Vec::new() };
    let mut left = Vec::new();
    for dir in Store::further(pod) {
        match store.inherit(&dir) {
            Ok(claim) if matches!(claim.state.status, Status::Exited { .. }) => {
                if let Err(err) = claim.keep() {
                    output::warn(err.message());
                }
            }
            Ok(claim) => left.push(claim),
            Err(err) => output::warn(err.message()), // half made: the next look removes it
        }
    }
    left
}

/// Goes on with one that a killed host has left. One that did not run is removed: who asked for it was told.
pub async fn go_on(hosting: Rc<Hosting>, mut claim: Claim) {
    let Ok(id) = container_id(&claim.state.id) else { return };
    let container = hosting.sandbox.container(id.clone());
    if claim.state.status == Status::Booting {
        remove(&container).await;
        let attached = disks_of(&claim.state);
        drop(claim);
        hosting.disks.release(&hosting.vm, &attached).await;
        return;
    }
    claim.state.host_pid = rustix::process::getpid().as_raw_nonzero().get();
    let (log, ends) = Log::resume(Writer::resume(&claim.dir));
    let contained = Rc::new(Contained::new(container, claim));
    hosting.further.borrow_mut().insert(id.as_str().to_string(), Rc::clone(&contained));
    if let Err(err) = contained.edit(|_| ()) {
        output::warn(err.message());
    }
    follow(hosting, contained, log, ends).await;
}
