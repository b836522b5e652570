//! How a container comes to be: its cgroup, then its first process in it; or nothing of both.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::{major, minor, stat};
use tokio::sync::Mutex;

use super::child::{self, FirstSpec};
use super::device_rules::{self, GuestRoot};
use super::process::{self, Unfinished};
use super::spec::{CapabilitySet, ContainerSpec, Namespace};
use super::{
    Cgroup, Container, ContainerId, Phase, Process, TerminationLog, Traits, guest_devices, hooks,
    namespaces, rootfs,
};
use crate::error::{Code, Context, Error, Result};
use crate::reaper::Reaper;
use crate::report::{self, Listener};
use crate::stdio::Sizes;

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
