//! Containers: what the OCI runtime-spec calls one, and the verbs of its life.
//!
//! ```text
//!           create              start                  its first process exits
//! (nothing) ------> Created ------------> Running ------------------------------> Stopped(status)
//!                      \______________________ killed __________________________/
//! ```
//! A running one may be paused and resumed (`freeze.rs`).
//!
//! `create` sets everything up and holds the first process at a gate before its execve; `start` opens the gate. A
//! create that fails leaves nothing: no cgroup, no process, and no mount, since those live in the child's namespace.
//! That a container has stopped is never stored: the reaper knows it. Errors say what went wrong; the sandbox says
//! with which request.

mod archive;
mod cgroup;
mod child;
mod copy_up;
mod detached;
mod device_rules;
mod devices;
mod execs;
mod freeze;
mod fs_context;
mod guest_devices;
mod hidden;
mod hooks;
mod id;
mod limits;
mod mount_options;
mod mounts;
mod namespaces;
mod process;
mod process_one;
mod processes;
mod program;
mod reservation;
mod rlimits;
mod rootfs;
mod scheduling;
mod seccomp;
pub mod spec;
mod stats;
mod sysctls;
mod terminal;
mod termination_log;
mod tree;
mod update;
mod user;
mod user_namespace;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::libc::{SIGKILL, SIGTERM};
use rustix::fs::{major, minor, stat};
use tokio::sync::Mutex;
use tokio::time::timeout;

pub use archive::{Archive, Direction};
pub use cgroup::{Cgroup, normalised as normalised_cgroup_path};
pub use id::{ContainerId, ExecId};
pub use mount_options::{Extent, MountOptions, propagation_named};
pub use mounts::plan as plan_mounts;
pub use process::Process;
pub use process_one::SharedPids;
pub use processes::Entry as ProcessEntry;
pub use reservation::Reservation;
pub use rlimits::from_name as rlimit_named;
#[cfg(test)]
pub use seccomp::tests::answer as seccomp_answer;
pub use seccomp::{
    Action, Comparison, Condition, Filter as SeccompFilter, FilterFlags, Rule, Seccomp,
    syscall_named,
};
pub use stats::{Cpu, Disk, Hugepages, Memory, Stats, Usage};
pub use sysctls::{Own as OwnSysctls, check as check_sysctl};
pub use termination_log::TerminationLog;
pub use user::capability_named;

use crate::error::{Code, Context, Error, Result};
use crate::reaper::{ExitStatus, Reaper};
use crate::report::{self, Listener};
use crate::stdio::Sizes;
use child::FirstSpec;
use device_rules::GuestRoot;
use process::Unfinished;
use spec::{Annotations, CapabilitySet, ContainerSpec, Execution, Namespace};

pub struct Container {
    id: ContainerId,
    cgroup: Cgroup,
    execution: Execution,
    traits: Traits,
    annotations: Annotations,
    /// Of its processes' streams.
    sizes: Sizes,
    termination_log: TerminationLog,
    first: Rc<Process>,
    phase: RefCell<Phase>,
    /// Its processes are frozen, or are about to be.
    paused: Cell<bool>,
    /// Held while its cgroup is changed: one pause, resume or update at a time.
    changing: Mutex<()>,
    execs: RefCell<BTreeMap<ExecId, Rc<Process>>>,
    /// Ids of execs that are being set up.
    reserved: RefCell<BTreeSet<ExecId>>,
}

/// What of its spec matters later.
#[derive(Debug, Clone, Copy)]
struct Traits {
    /// Its first process is process 1 of a pid namespace, and the others end with it.
    owns_pids: bool,
    /// It has a network namespace of its own, and shares none with the sandbox.
    owns_network: bool,
    /// Its first process passes signals on.
    has_init: bool,
    /// It is in a user namespace, its own or one of others.
    in_user_namespace: bool,
    may_mknod: bool,
    /// Its device rules are the guest's own: its spec has none.
    has_default_device_rules: bool,
}

/// How far the host has brought it.
enum Phase {
    Created(Listener),
    Started,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    Stopped(ExitStatus),
}

impl Container {
    /// Sets all up; the first process then waits to be started.
    /// `shared_pid` is a pidfd of process 1 of the sandbox's pid namespace, if it shares one.
    pub async fn create(
        id: ContainerId,
        mut spec: ContainerSpec,
        shared_pid: Option<BorrowedFd<'_>>,
        sizes: Sizes,
        reaper: &Reaper,
    ) -> Result<Rc<Self>> {
        let traits = Traits {
            owns_pids: spec.namespaces.pid == Namespace::New,
            owns_network: spec.namespaces.network != Namespace::Sandbox,
            has_init: spec.init,
            in_user_namespace: spec.namespaces.user.is_some(),
            may_mknod: spec.process.capabilities.bounding.contains(CapabilitySet::MKNOD),
            has_default_device_rules: spec.resources.device_rules.is_empty(),
        };
        let cgroup = Cgroup::create(&id, spec.cgroup_path.as_deref(), &spec.resources)?;
        let execution = spec.execution.clone();
        let termination_log = TerminationLog::of(&spec);
        let annotations = std::mem::take(&mut spec.annotations);
        match Self::set_up(&id, &cgroup, spec, shared_pid, sizes, reaper).await {
            Ok((first, gate)) => Ok(Rc::new(Self {
                id,
                cgroup,
                execution,
                traits,
                annotations,
                sizes,
                termination_log,
                first: Rc::new(first),
                phase: RefCell::new(Phase::Created(gate)),
                paused: Cell::new(false),
                changing: Mutex::new(()),
                execs: RefCell::default(),
                reserved: RefCell::default(),
            })),
            Err(err) => {
                let err = if cgroup.lost_to_oom() { out_of_memory(&err) } else { err };
                if let Err(left) = cgroup.remove().await {
                    log::warn!("{left}"); // the error that the host gets is the first one
                }
                Err(err)
            }
        }
    }

    async fn set_up(
        id: &ContainerId,
        cgroup: &Cgroup,
        mut spec: ContainerSpec,
        shared_pid: Option<BorrowedFd<'_>>,
        sizes: Sizes,
        reaper: &Reaper,
    ) -> Result<(Process, Listener)> {
        guest_devices::resolve(&mut spec)?;
        rootfs::share_guest_mounts(&spec.root, &spec.mounts)?;
        cgroup.limit_io(&spec.resources, reaper).await?;
        let rules =
            device_rules::complete(&spec.devices, &spec.resources.device_rules, guest_root()?);
        let (ours, childs) = process::streams(spec.process.terminal, sizes)?;
        let (listener, report) = report::channel()?;
        let deadline = hooks::deadline(spec.hooks.as_deref());
        let namespaces = spec.namespaces.clone();
        let spec = FirstSpec { id: id.clone(), container: spec, stdio: childs, report };
        let child =
            namespaces::clone_first(&namespaces, shared_pid, cgroup.as_fd(), child::first, spec)?;
        let first = Unfinished::new(child, reaper).ready(&listener, ours, deadline).await?;
        // Until here the rules would have been in our own way: nodes were made. No program of the container's runs yet.
        cgroup.enforce_device_rules(&rules)?;
        Ok((first, listener))
    }

    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// The first process, and the execs by their ids.
    pub fn processes(&self) -> (Rc<Process>, Vec<(ExecId, Rc<Process>)>) {
        let execs = self.execs.borrow();
        let execs = execs.iter().map(|(exec_id, process)| (exec_id.clone(), Rc::clone(process)));
        (Rc::clone(&self.first), execs.collect())
    }

    pub fn termination_log(&self) -> &TerminationLog {
        &self.termination_log
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    pub fn state(&self) -> State {
        match (self.first.status(), &*self.phase.borrow()) {
            (Some(status), _) => State::Stopped(status),
            (None, Phase::Created(_)) => State::Created,
            (None, Phase::Started) if self.paused.get() => State::Paused,
            (None, Phase::Started) => State::Running,
        }
    }

    /// Whether the sandbox's network is not its own.
    pub fn owns_network(&self) -> bool {
        self.traits.owns_network
    }

    /// Lets the first process go, and waits until it runs its program.
    pub async fn start(&self) -> Result<()> {
        if self.state() != State::Created {
            return Err(self.wrong_state());
        }
        let Phase::Created(gate) = self.phase.replace(Phase::Started) else {
            return Err(self.wrong_state());
        };
        gate.go()?;
        process::executed(&gate).await?;
        self.first.mark_started();
        Ok(())
    }

    /// The first process, or the one of that exec.
    pub fn process(&self, exec_id: Option<&ExecId>) -> Result<Rc<Process>> {
        let Some(exec_id) = exec_id else { return Ok(Rc::clone(&self.first)) };
        let execs = self.execs.borrow();
        execs.get(exec_id).cloned().ok_or_else(|| {
            let message = format!("exec {exec_id:?} in container {:?}: process not found", self.id);
            Error::new(Code::NotFound, message)
        })
    }

    /// Signals one process. SIGKILL to the first means all; so does a SIGTERM that would do nothing to it, since
    /// process 1 of a pid namespace is spared the default action of signals (pid_namespaces(7)).
    pub fn signal(&self, exec_id: Option<&ExecId>, signal: i32) -> Result<()> {
        let process = self.process(exec_id)?;
        if process.status().is_some() {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        let is_first = exec_id.is_none();
        let Traits { owns_pids, has_init, .. } = self.traits;
        let is_spared = signal == SIGTERM && owns_pids && !has_init;
        if is_first && (signal == SIGKILL || is_spared && !process.takes(SIGTERM)?) {
            return self.cgroup.kill();
        }
        process.signal(signal)
    }

    /// Drops an exec that has ended.
    pub fn forget_process(&self, exec_id: &ExecId) {
        self.execs.borrow_mut().remove(exec_id);
    }

    /// Kills what is left of it, waits for its first process (without a timeout for as long as it takes) and removes
    /// its cgroup. It may be called again after a failure.
    pub async fn remove(&self, deadline: Option<Duration>) -> Result<()> {
        if self.first.status().is_none() || !self.traits.owns_pids {
            self.cgroup.kill()?; // in a pid namespace of others, some may have outlived the first
        }
        let exit = self.first.ended();
        match deadline {
            None => drop(exit.await),
            Some(deadline) => drop(timeout(deadline, exit).await.map_err(|_| {
                Error::new(Code::DeadlineExceeded, format!("still running after {deadline:?}"))
            })?),
        }
        self.cgroup.remove().await
    }

    fn wrong_state(&self) -> Error {
        match self.state() {
            State::Created => Error::new(Code::FailedPrecondition, "it was not started"),
            State::Running => Error::new(Code::FailedPrecondition, "it is running"),
            State::Paused => Error::new(Code::FailedPrecondition, "it is paused"),
            State::Stopped(_) => stopped(),
        }
    }
}

fn stopped() -> Error {
    Error::new(Code::FailedPrecondition, "it has stopped")
}

/// The set-up is done within the container's own limit, and may be too much for it.
fn out_of_memory(err: &Error) -> Error {
    Error::new(Code::ResourceExhausted, format!("linux.resources.memory.limit is too small: {err}"))
}

/// The block device that the guest's root is on, if it is on one.
fn guest_root() -> Result<GuestRoot> {
    let device = stat("/").context(|| "stat \"/\"".to_owned())?.st_dev;
    let numbers = (major(device), minor(device));
    Ok((numbers.0 != 0).then_some(numbers)) // major 0 is no device: ramfs, overlayfs, …
}
