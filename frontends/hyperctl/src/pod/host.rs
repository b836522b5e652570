//! Hosting: from an order to a running container, and from its end to nothing left. Every pod has a host, which is a
//! process of its own, and `run` in front is attached to it (see `front`).
//!
//! ```text
//! claim ─ launch ─ ready ─ connect ─ create sandbox ─ create container ─ start ─┬─ log, exit ─ delivered ─ power off ─ exited
//!         └── a signal, a dead VM or an error in here ends all of it ──┘        │  └── a dead VM is the pod's end ──┘
//!                                                       an heir comes in here ──┘
//! ```
//! Killed before the start, a host leaves what its heir ends and removes; killed after it, what its heir goes on with
//! (see `heir`). What it has to say goes into `host.log`, and at the end to whoever is in front.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyperstart::spec::take_host_hooks;
use hyperstart::{Container as Guest, Sandbox, SandboxConfig};
use hyperstart_vmm::{Disk, Machine, Share, ShareKind, Vm, end_remains};
use tokio::time::timeout;

use crate::error::{Context as _, Error, Result};
use crate::escalation::{Escalation, Step};
use crate::hooks::Hooks;
use crate::layers;
use crate::output;
use crate::pod::client;
use crate::pod::contained::Log;
use crate::pod::control::Ended;
use crate::pod::disks::{Attached, Disks};
use crate::pod::failure::{explained, failure, give_way};
use crate::pod::hosting::{Hosting, container_id};
use crate::pod::name;
use crate::pod::output_log::{Ends, Writer};
use crate::pod::state::{State, Status, Vm as VmDescription};
use crate::pod::store::{Claim, Store};
use crate::receipt::{self, Stopwatch};
use crate::session;
use crate::signals::{Event, Signals};
use crate::spec::{Container, ROOTFS_TAG, Root};
use crate::terminal::Size;
use crate::time;

/// What the guest gets to sync and power off; then the VM is killed.
const POWER_OFF: Duration = Duration::from_secs(10);
/// What the receipt of a container that has ended may cost.
const RECEIPT: Duration = Duration::from_secs(2);
/// In the pod's directory: what its hosts have to say.
pub const HOST_LOG: &str = "host.log";

/// A pod that is asked for, with all that could be wrong about the words already refused.
pub struct Order {
    pub name: Option<String>,
    pub machine: Machine,
    pub vm: VmDescription,
    pub container: Container,
    /// Layers of images for further containers, attached from the start.
    pub layers: Vec<PathBuf>,
    /// Digests of the images in the store that all these are of.
    pub images: Vec<String>,
    /// The pod's containers see each other's processes.
    pub share_pid: bool,
    pub interactive: bool,
    /// Who will be in front: the name of a reader.
    pub reader: Option<String>,
    /// Of the terminal in front.
    pub size: Option<Size>,
    /// No record stays when it has ended.
    pub remove: bool,
    /// For the guest to get ready.
    pub deadline: Duration,
}

impl Order {
    /// What the VM is started with, each once.
    fn attached_layers(&self) -> Vec<PathBuf> {
        layers::each_once(self.container.root.layers().iter().chain(&self.layers))
    }
}

/// Runs the pod to its end; the value is the container's exit code. `started` hears when the container runs.
pub async fn host(
    order: Order,
    store: &Store,
    signals: &mut Signals,
    started: impl FnOnce(&State) -> Result<()>,
) -> Result<u8> {
    let operation = || format!("run {:?}", order.container.label);
    let claim = RefCell::new(store.claim(|id| describe(&order, id))?);
    output::say_into(&claim.borrow().dir.join(HOST_LOG))?;
    let hooks = order.container.hooks(&claim.borrow().state.id);
    let stopwatch = Stopwatch::start();
    let booted = tokio::select! {
        booted = boot(&order, &hooks, &claim, &stopwatch) => booted,
        signal = signals.next_ending() => Err(Error::interrupted(signal)),
    };
    let booted = match booted.context(operation) {
        Ok(booted) => booted,
        Err(err) => {
            hooks.after_delete().await;
            return Err(err); // the claim goes, and with it all that there is
        }
    };
    let hosting = booted.hosting(claim.into_inner());
    let run = async {
        start(&order, &hosting, &hooks, &stopwatch).await?;
        started(&*hosting.first.state()?)?;
        let log = Log::new(Writer::create(&hosting.dir));
        hosting.first.run_to_end(log, Ends::default()).await
    };
    let outcome = live(&hosting, signals, run).await.context(operation);
    if let Some(at) = hosting.first.first_output.get() {
        let step = stopwatch.step_at(receipt::OUTPUT, at);
        hosting.first.edit(|state| state.steps.push(step))?;
    }
    finish(hosting, &hooks, signals, outcome).await
}

fn describe(order: &Order, id: String) -> State {
    let name = order.name.clone().unwrap_or_else(|| name::invent(&order.container.label, &id));
    State {
        process: Some(order.container.process.clone()),
        stop_signal: order.container.stop_signal.clone(),
        share_pid: order.share_pid,
        remove: order.remove,
        readers: order.reader.iter().cloned().collect(),
        images: order.images.clone(),
        mounts: order.container.mounts.record.clone(),
        ..State::new(id, name, order.container.label.clone(), order.vm.clone())
    }
}

/// A pod whose container is about to start.
struct Booted {
    vm: Vm,
    sandbox: Sandbox,
    container: Guest,
    disks: Disks,
}

impl Booted {
    fn hosting(self, claim: Claim) -> Rc<Hosting> {
        Hosting::new(self.vm, self.sandbox, self.disks, self.container, claim)
    }
}

/// Up to a container that is created, with its process held before its first instruction.
async fn boot(
    order: &Order,
    hooks: &Hooks,
    claim: &RefCell<Claim>,
    stopwatch: &Stopwatch,
) -> Result<Booted> {
    let mut steps = Vec::new();
    let mut step = |name: &str| steps.push(stopwatch.step(name));
    let dir = claim.borrow().dir.clone();
    let mut machine = order.machine.clone();
    machine.outlives_owner = true;
    attach(&mut machine, order);
    machine.shares.extend(order.container.binds.shares(&dir)?);
    let first_volume = machine.disks.len();
    machine.disks.extend(order.container.mounts.disks().cloned());
    let volumes = first_volume..machine.disks.len();
    let vm = Vm::launch(&machine, &dir).await?;
    edit(claim, |state| {
        state.console = Some(vm.console_log().to_path_buf());
        state.vm.transport = Some(client::transport_of(vm.address()).into());
    })?;
    step("vmm");
    vm.ready(order.deadline).await?;
    step(receipt::READY);
    let created = tokio::select! {
        created = create(order, hooks, claim, &vm, volumes, &mut step) => created,
        err = failure(&vm) => Err(err),
    };
    let (sandbox, container, disks) = explained(&vm, created).await?;
    claim.borrow_mut().state.steps = steps;
    Ok(Booted { vm, sandbox, container, disks })
}

fn edit(claim: &RefCell<Claim>, change: impl FnOnce(&mut State)) -> Result<()> {
    let mut claim = claim.borrow_mut();
    change(&mut claim.state);
    claim.save()
}

async fn create(
    order: &Order,
    hooks: &Hooks,
    claim: &RefCell<Claim>,
    vm: &Vm,
    volumes: Range<usize>,
    step: &mut impl FnMut(&str),
) -> Result<(Sandbox, Guest, Disks)> {
    let (id, dir) = (claim.borrow().state.id.clone(), claim.borrow().dir.clone());
    let address = client::address_of(vm.address());
    let sandbox = client::reach(&address).await?;
    step("connected");
    let hostname = order.container.flags.identity.hostname.clone().unwrap_or_else(|| id.clone());
    let shared_pid = order.share_pid;
    let config = SandboxConfig { id: id.clone(), hostname, shared_pid, ..Default::default() };
    sandbox.create(&config).await.map_err(|err| client::guest_error(&err))?;
    step("sandbox");
    let id = container_id(&id)?;
    let disks = Disks::of(vm, &dir, id.as_str(), &order.attached_layers())?;
    let mut attached = Vec::new();
    for layer in order.container.root.layers() {
        attached.push(disks.acquire(vm, layer).await?);
    }
    let mut storages = order.container.storages(&id, &attached)?;
    let root = storages.last().map(|root| root.mount_point.clone()).unwrap_or_default();
    storages.extend(order.container.binds.storages());
    let devices = volumes.filter_map(|index| vm.disk_device(index));
    let volumes: Vec<Attached> = devices.map(|device| Attached::of(device, &id)).collect();
    storages.extend(order.container.mounts.storages(&id, &volumes));
    let mut spec = order.container.spec_for(&id, &root, order.share_pid);
    take_host_hooks(&mut spec); // the same that `hooks` runs
    edit(claim, |state| {
        state.hooks = hooks.due(); // from here on, whoever hosts it then
        state.attached = attached;
        state.address = Some(address);
    })?;
    hooks.before_create(vm.pid()).await?;
    let options = order.container.flags.options(storages);
    let container = sandbox.create_container(&id, &spec, options).await;
    let container = container.map_err(|err| client::guest_error(&err))?;
    step("created");
    Ok((sandbox, container, disks))
}

/// Lets the container run, with what must be so before its first byte.
async fn start(
    order: &Order,
    hosting: &Rc<Hosting>,
    hooks: &Hooks,
    stopwatch: &Stopwatch,
) -> Result<()> {
    let first = &hosting.first;
    first.fronts.hold().await?;
    session::prepare(&first.process, order.container.tty(), order.interactive, order.size).await?;
    hosting.listen()?;
    first.container.start().await.map_err(|err| client::command_error(&err))?;
    let step = stopwatch.step("started");
    first.edit(|state| {
        state.steps.push(step);
        state.status = Status::Running { since: time::unix_millis() };
    })?;
    hooks.after_start(hosting.vm.pid()).await;
    Ok(())
}

/// From the start of the container to its end and everybody's having its output, or to the VM's end.
pub async fn live(
    hosting: &Rc<Hosting>,
    signals: &mut Signals,
    run: impl Future<Output = Result<u8>>,
) -> Result<u8> {
    let outcome = tokio::select! {
        biased; // a VM that ends because its container did is told by the container
        outcome = run => outcome,
        err = failure(&hosting.vm) => Err(err),
        err = control(hosting, signals) => Err(err),
    };
    let outcome = explained(&hosting.vm, outcome).await;
    if let Err(err) = &outcome {
        give_way(&hosting.vm, err);
    }
    if outcome.is_ok() {
        tokio::select! {
            () = hosting.first.delivered() => {}
            _ = signals.next_ending() => {}
            _ = hosting.vm.wait() => {}
        }
        tokio::select! {
            () = hosting.end_further() => {}
            _ = signals.next_ending() => {}
            _ = hosting.vm.wait() => {}
        }
    }
    outcome
}

/// Acts on signals. Returns only when the container cannot be ended by one.
async fn control(hosting: &Hosting, signals: &mut Signals) -> Error {
    let mut escalation = Escalation::new(false);
    loop {
        let now = tokio::time::Instant::now;
        let step = tokio::select! {
            event = signals.next() => match event {
                Event::Forward(signal) => escalation.signal(signal, now()),
                Event::Resize => Step::Ignore,
            },
            () = time::at(escalation.deadline()) => escalation.overdue(now()),
        };
        match step {
            Step::Send(signal) => {
                let container = &hosting.first.container;
                session::send(signal, async || container.signal(signal).await).await;
            }
            Step::Ignore => {}
            Step::GiveUp => return session::unkillable(),
        }
    }
}

/// From the container's end to nothing left but its record: the guest is ended in order, hooks run, and everybody in
/// front is told.
pub async fn finish(
    hosting: Rc<Hosting>,
    hooks: &Hooks,
    signals: &mut Signals,
    outcome: Result<u8>,
) -> Result<u8> {
    let ran = hosting.first.state()?.status != Status::Booting;
    let keeps = ran && !hosting.first.state()?.remove;
    if keeps && outcome.is_ok() {
        keep_receipt(&hosting).await?;
    }
    if outcome.is_ok() {
        tokio::select! {
            () = power_off(&hosting) => {}
            // The user has seen the end already and will not wait: the VM is killed when it is dropped.
            _ = signals.next_ending() => {}
        }
    }
    hosting.vm.kill();
    hosting.vm.wait().await;
    hosting.first.edit(|state| state.hooks = None)?; // run once, be it not to their ends
    hooks.after_delete().await;
    if let Err(err) = &outcome {
        log::debug!("{}", err.message());
    }
    hosting.close(Ended::of(&outcome, output::said())).await;
    let (dir, claim) = (hosting.dir.clone(), hosting.first.take());
    drop(hosting);
    if let Err(err) = end_remains(&dir) {
        output::warn(err);
    }
    let Some(mut claim) = claim else { return outcome };
    if keeps {
        claim.state.exited(&outcome);
        claim.keep()?;
    }
    outcome
}

/// Asks for the boot receipt while there is somebody to ask. A record without one is still a record.
async fn keep_receipt(hosting: &Hosting) -> Result<()> {
    if let Ok(Ok(receipt)) = timeout(RECEIPT, client::receipt(&hosting.sandbox)).await {
        hosting.first.edit(|state| state.receipt = Some(receipt))?;
    }
    Ok(())
}

/// Ends the guest in order, so that what it wrote to shared directories arrives; or else kills it.
async fn power_off(hosting: &Hosting) {
    // Whether it says yes or is gone already: the shutdown below waits for the fact, and enforces it.
    if let Ok(Err(err)) = timeout(POWER_OFF, hosting.sandbox.destroy()).await {
        log::debug!("destroy sandbox: {err}");
    }
    log::debug!("vm: qemu {}", hosting.vm.shutdown(POWER_OFF).await);
}

/// What the roots of containers need from the VM.
fn attach(machine: &mut Machine, order: &Order) {
    let layer = |path| Disk { path, read_only: true };
    machine.disks.extend(order.attached_layers().into_iter().map(layer));
    if let Root::Directory { path } = &order.container.root {
        let (kind, tag) = (ShareKind::NineP, ROOTFS_TAG.into());
        machine.shares.push(Share { kind, path: path.clone(), tag, read_only: false });
    }
}
