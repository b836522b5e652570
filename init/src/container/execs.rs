//! The processes that join a container, by the ids that the host gave them.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::libc::EBUSY;

use super::child::{self, ExecSpec};
use super::process::{self, Process, SET_UP_DEADLINE, Unfinished};
use super::scheduling::RunsOn;
use super::spec::ProcessSpec;
use super::{Container, ExecId, Reservation, State, namespaces, stopped};
use crate::error::{Code, Context, Error, Result};
use crate::reaper::Reaper;
use crate::report;
use crate::sys::process::Child;

/// Execs that have ended and that somebody may still ask for.
const ENDED_EXECS_MOST: usize = 4096;

impl Container {
    /// Runs a further process in the container.
    pub async fn exec(&self, exec_id: ExecId, spec: ProcessSpec, reaper: &Reaper) -> Result<()> {
        if self.state() != State::Running {
            return Err(self.wrong_state());
        }
        self.add_exec(exec_id, self.spawn_exec(spec, reaper)).await
    }

    /// Keeps what `spawn` makes under an id that is free.
    pub(super) async fn add_exec(
        &self,
        exec_id: ExecId,
        spawn: impl Future<Output = Result<Process>>,
    ) -> Result<()> {
        let reservation = self.reserve(exec_id)?;
        self.check_ended_execs()?;
        let process = match spawn.await {
            // Its namespaces have ended with the first process, and each call says so in its own way.
            Err(_) if self.first.has_ended() => return Err(stopped()),
            process => process?,
        };
        self.execs.borrow_mut().insert(reservation.id.clone(), Rc::new(process));
        Ok(())
    }

    fn reserve(&self, exec_id: ExecId) -> Result<Reservation<'_, ExecId>> {
        if exec_id.to_string() == self.id.as_str() {
            return Err(Error::new(Code::AlreadyExists, "that is the id of the container's init"));
        }
        let taken = || Error::new(Code::AlreadyExists, "there is one already");
        if self.execs.borrow().contains_key(&exec_id) {
            return Err(taken());
        }
        Reservation::of(&self.reserved, exec_id).ok_or_else(taken)
    }

    async fn spawn_exec(&self, spec: ProcessSpec, reaper: &Reaper) -> Result<Process> {
        let (ours, childs) = process::streams(spec.terminal, self.sizes)?;
        let (listener, report) = report::channel()?;
        let first = self.first.pidfd().try_clone_to_owned()?;
        let initial = spec.cpu_affinity.initial.clone();
        let execution = self.execution.clone();
        let in_user_namespace = self.traits.in_user_namespace;
        let spec =
            ExecSpec { process: spec, execution, first, in_user_namespace, stdio: childs, report };
        let runs_on = initial.as_ref().map(RunsOn::new).transpose();
        let runs_on = runs_on.context(|| "process.execCPUAffinity.initial".to_owned())?;
        let child = self.clone_exec(spec).context(|| "clone".to_owned())?;
        drop(runs_on);
        let process =
            Unfinished::new(child, reaper).ready(&listener, ours, Some(SET_UP_DEADLINE)).await?;
        process::executed(&listener).await?;
        process.mark_started();
        Ok(process)
    }

    fn clone_exec(&self, spec: ExecSpec) -> Result<Child> {
        let mut spec = Some(spec);
        let first = self.first.pidfd();
        self.in_cgroup(|cgroup| namespaces::clone_beside(first, cgroup, child::exec, &mut spec))
    }

    /// A container that has handed controllers on below its cgroup takes no process there any more (EBUSY; cgroup-v2,
    /// "No Internal Process Constraint"): then the new one goes to where the first has gone.
    pub(super) fn in_cgroup(
        &self,
        mut clone: impl FnMut(BorrowedFd<'_>) -> io::Result<Child>,
    ) -> Result<Child> {
        match clone(self.cgroup.as_fd()) {
            Err(err) if err.raw_os_error() == Some(EBUSY) => {
                Ok(clone(self.first.cgroup()?.as_fd())?)
            }
            child => Ok(child?),
        }
    }

    /// A host that never asks for what its execs have written has lost count.
    fn check_ended_execs(&self) -> Result<()> {
        let execs = self.execs.borrow();
        let ended = || execs.values().filter(|exec| exec.status().is_some()).count();
        if execs.len() < ENDED_EXECS_MOST || ended() < ENDED_EXECS_MOST {
            return Ok(());
        }
        let message = format!("{ENDED_EXECS_MOST} have ended and were not read to their end");
        Err(Error::new(Code::ResourceExhausted, message))
    }
}
