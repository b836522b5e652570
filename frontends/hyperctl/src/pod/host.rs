//! Hosting: from an order to a running container, and from its end to nothing left. `run` in front and `run -d` both
//! come here; they differ in what the session is connected to and in who hears that it started.
//!
//! ```text
//! claim ─ launch ─ ready ─ connect ─ create sandbox ─ create container ─ start ─ session ─ receipt ─ power off ─ exited
//!         └── a signal, a dead VM or an error in here ends all of it ──┘        └── a dead VM is the pod's end ──┘
//! ```
//! The VM is a value in this process: whatever way a function here returns, dropping it kills QEMU and removes its
//! files. The pod's own directory goes with the claim, or stays as the record of an exited pod.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyperstart::spec::take_host_hooks;
use hyperstart::{Container as Guest, ContainerId, Process, Sandbox, SandboxConfig};
use hyperstart_vmm::{Disk, Exit, Machine, Share, Vm};
use tokio::time::timeout;

use crate::error::{Context as _, Error, Result};
use crate::hooks::Hooks;
use crate::output;
use crate::pod::client;
use crate::pod::disks::Disks;
use crate::pod::leases::{self, Leases};
use crate::pod::output_log::Writer;
use crate::pod::state::{State, Status, Vm as VmDescription};
use crate::pod::store::{Claim, Store};
use crate::progress;
use crate::receipt::{self, Stopwatch};
use crate::session::{Log, Session};
use crate::signals::Signals;
use crate::spec::{Container, ROOTFS_TAG, Root};
use crate::time;

/// What the guest gets to sync and power off; then the VM is killed.
const POWER_OFF: Duration = Duration::from_secs(10);
/// From the first symptom of a dead VM to the fact.
const AFTERMATH: Duration = Duration::from_millis(500);
/// What the receipt of a container that has ended may cost.
const RECEIPT: Duration = Duration::from_secs(2);

/// A pod that is asked for, with all that could be wrong about the words already refused.
pub struct Order {
    pub name: Option<String>,
    pub machine: Machine,
    pub vm: VmDescription,
    pub container: Container,
    /// Images for further containers, attached from the start.
    pub images: Vec<PathBuf>,
    /// The pod's containers see each other's processes.
    pub share_pid: bool,
    pub interactive: bool,
    /// The container's streams are ours; else they go to the log alone.
    pub attached: bool,
    /// No record stays when it has ended.
    pub remove: bool,
    /// For the guest to get ready.
    pub deadline: Duration,
}

/// A pod whose container is about to start.
struct Booted {
    vm: Vm,
    sandbox: Sandbox,
    container: Guest,
    process: Process,
    disks: Disks,
    hooks: Rc<Hooks>,
}

/// Runs the pod to its end; the value is the container's exit code. `started` hears when the container runs.
pub async fn host(
    order: Order,
    store: &Store,
    signals: &mut Signals,
    started: impl FnOnce(&State) -> Result<()>,
) -> Result<u8> {
    let mut claim = store.claim(|id| describe(&order, id))?;
    if !order.attached {
        output::say_into(&claim.dir.join("host.log"))?;
    }
    let hooks = Rc::new(order.container.hooks(&claim.state.id));
    let outcome = run(&order, &hooks, &mut claim, signals, started).await;
    hooks.after_delete().await;
    finish(&order, store, claim, outcome)
}

fn describe(order: &Order, id: String) -> State {
    let name = order.name.clone().unwrap_or_else(|| invent_name(&order.container.label, &id));
    State {
        process: Some(order.container.process.clone()),
        stop_signal: order.container.stop_signal.clone(),
        share_pid: order.share_pid,
        ..State::new(id, name, order.container.label.clone(), order.vm.clone())
    }
}

/// `busybox-3f2a`: what it is, and enough of the id to be unique in practice; a clash is refused like any other.
pub fn invent_name(label: &str, id: &str) -> String {
    let base = label.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let base = base.strip_suffix(".erofs").unwrap_or(base);
    let base: String = base.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let digits: String = id.chars().take(4).collect();
    if base.is_empty() { format!("pod-{digits}") } else { format!("{base}-{digits}") }
}

async fn run(
    order: &Order,
    hooks: &Rc<Hooks>,
    claim: &mut Claim,
    signals: &mut Signals,
    started: impl FnOnce(&State) -> Result<()>,
) -> Result<u8> {
    let operation = format!("run {:?}", order.container.label);
    let stopwatch = Stopwatch::start();
    let boot = progress::during("starting the VM", boot(order, hooks, claim, &stopwatch));
    let booted = tokio::select! {
        booted = boot => booted.context(|| operation)?,
        signal = signals.next_ending() => return Err(Error::interrupted(operation, signal)),
    };
    let session = Session {
        process: &booted.process,
        container: Some(&booted.container),
        tty: order.container.tty(),
        interactive: order.interactive,
        attached: order.attached,
        log: Some(RefCell::new(Log::new(Writer::create(&claim.dir)))),
        first_output: Cell::new(None),
    };
    let pod = leases::Pod::new(&booted.vm, &booted.sandbox, &booted.disks);
    let mut leases = Leases::listen(&claim.dir, &pod)?;
    let outcome = live(&booted, &session, &mut leases, claim, &stopwatch, signals, started).await;
    let outcome = outcome.context(|| format!("run {:?}", order.container.label));
    if outcome.is_ok() {
        tokio::select! {
            () = leases.end() => {}
            _ = signals.next_ending() => {}
            _ = booted.vm.wait() => {}
        }
    }
    drop(leases);
    if let Some(at) = session.first_output.get() {
        claim.state.steps.push(stopwatch.step_at(receipt::OUTPUT, at));
    }
    if !order.remove && outcome.is_ok() {
        keep_receipt(claim, &booted.sandbox).await;
    }
    tokio::select! {
        () = power_off(&booted) => {}
        // The user has seen the end already and will not wait: the VM is killed when it is dropped.
        _ = signals.next_ending() => {}
    }
    outcome
}

/// Up to a container that is created, with its process held before its first instruction.
async fn boot(
    order: &Order,
    hooks: &Rc<Hooks>,
    claim: &mut Claim,
    stopwatch: &Stopwatch,
) -> Result<Booted> {
    let mut steps = Vec::new();
    let mut step = |name: &str| steps.push(stopwatch.step(name));
    let mut machine = order.machine.clone();
    attach(&mut machine, &order.container.root);
    machine.shares.extend(order.container.binds.shares(&claim.dir)?);
    let image = |path: &PathBuf| Disk { path: path.clone(), read_only: true };
    machine.disks.extend(order.images.iter().map(image));
    let vm = Vm::launch(&machine, &claim.dir).await.map_err(|err| vm_error(&err))?;
    claim.state.console = Some(vm.console_log().to_path_buf());
    claim.state.vm.transport = Some(client::transport_of(vm.address()).into());
    claim.save()?;
    step("vmm");
    vm.ready(order.deadline).await.map_err(|err| vm_error(&err))?;
    step(receipt::READY);
    let created = tokio::select! {
        created = create(order, hooks, claim, &vm, &mut step) => created,
        err = failure(&vm) => Err(err),
    };
    let created = explained(&vm, created).await?;
    claim.state.steps = steps;
    let (sandbox, container, process, disks) = created;
    Ok(Booted { vm, sandbox, container, process, disks, hooks: Rc::clone(hooks) })
}

async fn create(
    order: &Order,
    hooks: &Hooks,
    claim: &mut Claim,
    vm: &Vm,
    step: &mut impl FnMut(&str),
) -> Result<(Sandbox, Guest, Process, Disks)> {
    let id = claim.state.id.clone();
    let address = client::address_of(vm.address());
    let sandbox = client::reach(&address).await?;
    step("connected");
    let hostname = order.container.flags.identity.hostname.clone().unwrap_or_else(|| id.clone());
    let shared_pid = order.share_pid;
    let config = SandboxConfig { id: id.clone(), hostname, shared_pid, ..Default::default() };
    sandbox.create(&config).await.map_err(|err| client::guest_error(&err))?;
    step("sandbox");
    let id = ContainerId::new(&id).map_err(|err| client::guest_error(&err))?;
    let own = order.container.root.image();
    let disks = Disks::of(vm, id.as_str(), own.into_iter().chain(&order.images))?;
    let attached = match own {
        Some(path) => Some(disks.acquire(vm, path).await?),
        None => None,
    };
    let mut storages = order.container.storages(&id, attached.as_ref())?;
    let root = storages.last().map(|root| root.mount_point.clone()).unwrap_or_default();
    storages.extend(order.container.binds.storages());
    let mut spec = order.container.spec_for(&id, &root, order.share_pid);
    take_host_hooks(&mut spec); // the same that `hooks` runs
    hooks.before_create(vm.pid()).await?;
    let options = order.container.flags.options(storages);
    let container = sandbox.create_container(&id, &spec, options).await;
    let container = container.map_err(|err| client::guest_error(&err))?;
    step("created");
    claim.state.address = Some(address);
    let process = container.process();
    Ok((sandbox, container, process, disks))
}

/// From the start of the container to its end, or the VM's.
async fn live(
    booted: &Booted,
    session: &Session<'_>,
    leases: &mut Leases<'_>,
    claim: &mut Claim,
    stopwatch: &Stopwatch,
    signals: &mut Signals,
    started: impl FnOnce(&State) -> Result<()>,
) -> Result<u8> {
    let run = async {
        let _raw = session.prepare().await?;
        let start = booted.container.start().await;
        start.map_err(|err| client::command_error(&err))?;
        claim.state.steps.push(stopwatch.step("started"));
        claim.state.status = Status::Running { since: time::unix_millis() };
        claim.save()?;
        booted.hooks.after_start(booted.vm.pid()).await;
        started(&claim.state)?;
        session.run(signals).await
    };
    let outcome = tokio::select! {
        biased; // a VM that ends because its container did is told by the container
        outcome = run => outcome,
        err = failure(&booted.vm) => Err(err),
        never = leases.serve() => match never {},
    };
    explained(&booted.vm, outcome).await
}

/// Asks for the boot receipt while there is somebody to ask. A record without one is still a record.
async fn keep_receipt(claim: &mut Claim, sandbox: &Sandbox) {
    if let Ok(Ok(receipt)) = timeout(RECEIPT, client::receipt(sandbox)).await {
        claim.state.receipt = Some(receipt);
    }
}

/// Ends the guest in order, so that what it wrote to shared directories arrives; or else kills it.
async fn power_off(booted: &Booted) {
    // Whether it says yes or is gone already: the shutdown below waits for the fact, and enforces it.
    if let Ok(Err(err)) = timeout(POWER_OFF, booted.sandbox.destroy()).await {
        log::debug!("destroy sandbox: {err}");
    }
    log::debug!("vm: qemu {}", booted.vm.shutdown(POWER_OFF).await);
}

/// What stays of the pod: nothing, or the record that `ps -a`, `logs` and `inspect` read.
fn finish(order: &Order, store: &Store, mut claim: Claim, outcome: Result<u8>) -> Result<u8> {
    let ran = claim.state.status != Status::Booting;
    if order.remove || !ran {
        return outcome; // dropped, and so removed
    }
    claim.state.exited(&outcome);
    store.keep(claim)?;
    outcome
}

/// What the container's root needs from the VM.
fn attach(machine: &mut Machine, root: &Root) {
    match root {
        Root::Image { path } => {
            machine.disks.push(Disk { path: path.clone(), read_only: true });
        }
        Root::Directory { path } => machine.shares.push(Share {
            path: path.clone(),
            tag: ROOTFS_TAG.into(),
            read_only: false,
        }),
    }
}

fn vm_error(err: &hyperstart_vmm::Error) -> Error {
    Error::new(err.to_string())
}

/// Waits until the VM ends or can no longer be reached, and says which.
async fn failure(vm: &Vm) -> Error {
    let broken = tokio::select! {
        exit = vm.wait() => return ended(vm, exit),
        broken = vm.broken() => vm_error(&broken),
    };
    match timeout(AFTERMATH, vm.wait()).await {
        Ok(exit) => ended(vm, exit),
        Err(_) => broken,
    }
}

/// A call that found the guest out of reach is a symptom: an end of the VM says more.
async fn explained<T>(vm: &Vm, outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(err) if err.is_lost() => match timeout(AFTERMATH, failure(vm)).await {
            Ok(cause) => Err(cause),
            Err(_) => Err(err),
        },
        outcome => outcome,
    }
}

/// The VM ended and nobody asked it to. The kernel's own words, if it had any, say more than QEMU's exit.
fn ended(vm: &Vm, exit: Exit) -> Error {
    match vm.console().panic() {
        Some(panic) => Error::new(format!("the guest kernel panicked: {panic}")),
        None => Error::new(format!("the VM ended before its container: qemu {exit}")),
    }
    .hint("`hyperctl console POD` shows the guest's last words, unless it was run with --rm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invented_name_says_what_it_is() {
        assert_eq!(invent_name("busybox", "3f2a9c000000"), "busybox-3f2a");
        assert_eq!(invent_name("/images/my_app.erofs", "3f2a9c000000"), "myapp-3f2a");
        assert_eq!(invent_name("/bundles/one/", "3f2a9c000000"), "one-3f2a");
        assert_eq!(invent_name("/", "3f2a9c000000"), "pod-3f2a");
    }
}
