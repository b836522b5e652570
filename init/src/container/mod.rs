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
mod create;
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
use std::rc::Rc;
use std::time::Duration;

use nix::libc::{SIGKILL, SIGTERM};
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

use crate::error::{Code, Error, Result};
use crate::reaper::ExitStatus;
use crate::report::Listener;
use crate::stdio::Sizes;
use spec::{Annotations, Execution};

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
