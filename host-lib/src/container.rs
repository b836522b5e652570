//! A container: its life from `create` to `remove`, and the way to its processes.
//!
//! ```text
//! create ──> created ──start──> running ──exit of its init──> stopped ──remove──> gone
//!                                │  ▲
//!                          pause ▼  │ resume
//!                               paused
//! ```
//! The guest keeps this state; a [`Container`] is only its name, and what is not possible in it the guest's answers say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperstart_protocol::agent::{
    self, CreateContainerRequest, ExecProcessRequest, PauseContainerRequest,
    RemoveContainerRequest, ResumeContainerRequest, SignalProcessRequest, StartContainerRequest,
};
use hyperstart_protocol::{GUEST_NODE, MAX_FRAME};
use oci_spec::runtime;
use protobuf::{Message, MessageField};

use crate::connection::{CALL, Connection, UNBOUNDED};
use crate::error::{Cause, Code, Error, Result};
use crate::id::{ContainerId, ExecId};
use crate::process::{ExitStatus, Process};
use crate::spec;
use crate::storage::{self, Storage};

/// What a container needs besides its OCI spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerOptions {
    /// Mounted in the guest in this order before the container is made, unmounted in reverse after it is removed.
    pub storages: Vec<Storage>,
    /// An init of the guest's is process 1 of the container, as with `docker run --init`: it passes signals on to the
    /// container's program, reaps orphans, and ends as the program does. Takes a hyperstart guest.
    pub init: bool,
    /// Devices of the guest that the container may use, beside those of its spec. Takes a hyperstart guest.
    pub devices: Vec<GuestDevice>,
}

/// A node of the guest's own /dev, whose numbers the guest knows; or a directory of such nodes, which is all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDevice {
    /// In the guest, such as `/dev/fuse`.
    pub guest_path: String,
    /// In the container.
    pub path: String,
    /// How it may be used: of `r`, `w` and `m` (mknod).
    pub access: String,
}

impl From<GuestDevice> for agent::Device {
    fn from(GuestDevice { guest_path, path, access }: GuestDevice) -> Self {
        Self {
            type_: GUEST_NODE.to_owned(),
            vm_path: guest_path,
            container_path: path,
            options: vec![access],
            ..Self::default()
        }
    }
}

/// A container of a sandbox. A clone is another name for the same container; dropping it stops nothing.
#[derive(Clone)]
pub struct Container {
    connection: Arc<Connection>,
    id: ContainerId,
    /// For a start: hooks of the spec may take as long as they are given, which the guest sees to.
    start_deadline: Option<Duration>,
}

impl Container {
    pub(crate) fn new(connection: Arc<Connection>, id: ContainerId) -> Self {
        Self { connection, id, start_deadline: CALL }
    }

    pub(crate) async fn create(
        connection: Arc<Connection>,
        id: &ContainerId,
        spec: &runtime::Spec,
        options: ContainerOptions,
    ) -> Result<Self> {
        let request = create_request(id, spec, options)?;
        check_size(&request).map_err(Cause::of("create container", id))?;
        let extension = spec::extension_of_spec(request.OCI.get_or_default());
        connection.check_extension(extension).await.map_err(Cause::of("create container", id))?;
        let hooks = request.OCI.get_or_default().Hooks.get_or_default();
        let deadline = |hooks: &[_]| if hooks.is_empty() { CALL } else { UNBOUNDED };
        let start_deadline = deadline(&hooks.StartContainer);
        let create_deadline = deadline(&hooks.CreateContainer);
        let call = connection.agent(create_deadline, |agent, context| async move {
            agent.create_container(context, &request).await
        });
        call.await.map_err(Cause::of("create container", id))?;
        Ok(Self { connection, id: id.clone(), start_deadline })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Runs what the container was made for (OCI runtime spec, "start").
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such binary, working directory or user. [`Code::PermissionDenied`]: the binary is not
    /// executable. [`Code::FailedPrecondition`]: it was started before.
    pub async fn start(&self) -> Result<()> {
        let request = StartContainerRequest {
            container_id: self.id.as_str().to_owned(),
            ..Default::default()
        };
        let call = self.connection.agent(self.start_deadline, |agent, context| async move {
            agent.start_container(context, &request).await
        });
        call.await.map_err(Cause::of("start container", &self.id))?;
        Ok(())
    }

    /// Runs one more process in the container. It is running when this returns.
    ///
    /// # Errors
    /// [`Code::AlreadyExists`]: the id is taken. [`Code::FailedPrecondition`]: the container does not run.
    /// [`Code::NotFound`]: no such container, binary, working directory or user. [`Code::PermissionDenied`]: the binary
    /// is not executable. [`Code::Unimplemented`]: `process` has a property that the wire does not carry; see
    /// [`spec`].
    pub async fn exec(&self, id: ExecId, process: &runtime::Process) -> Result<Process> {
        let request = ExecProcessRequest {
            container_id: self.id.as_str().to_owned(),
            exec_id: id.as_str().to_owned(),
            process: MessageField::some(spec::process_to_wire(process)?),
            ..Default::default()
        };
        let process = self.exec_process(id);
        check_size(&request).map_err(Cause::of("exec in container", &process))?;
        let extension = spec::extension_of_process(request.process.get_or_default());
        let checked = self.connection.check_extension(extension).await;
        checked.map_err(Cause::of("exec in container", &process))?;
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.exec_process(context, &request).await
        });
        call.await.map_err(Cause::of("exec in container", &process))?;
        Ok(process)
    }

    /// The process that the container was made for, its init.
    pub fn process(&self) -> Process {
        Process::new(Arc::clone(&self.connection), self.id.clone(), None)
    }

    /// A handle to an exec that was made before. Asks the guest nothing: whether the exec exists shows when it is used.
    pub fn exec_process(&self, id: ExecId) -> Process {
        Process::new(Arc::clone(&self.connection), self.id.clone(), Some(id))
    }

    /// Sends a signal (signal(7), 1 to 64) to the container's init; SIGKILL goes to every process of the container.
    ///
    /// As in Kata, SIGTERM to an init that has no handler for it becomes SIGKILL: PID 1 of a namespace would ignore it.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such container, or it is dead. [`Code::InvalidArgument`]: no such signal.
    pub async fn signal(&self, signal: u32) -> Result<()> {
        signal_process(&self.connection, &self.id, "", signal)
            .await
            .map_err(Cause::of("signal container", &self.id))
    }

    /// Waits until the container's init has exited. Waits for ever if it is never started.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such container. [`Code::Unavailable`]: the connection was lost.
    pub async fn wait(&self) -> Result<ExitStatus> {
        self.process().wait().await
    }

    /// Holds all processes of the container where they are (cgroup v2, "cgroup.freeze"). They stand still when this
    /// returns. A signal waits until they go on, except SIGKILL.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such container. [`Code::FailedPrecondition`]: it does not run, or is paused already.
    pub async fn pause(&self) -> Result<()> {
        let container_id = self.id.as_str().to_owned();
        let request = PauseContainerRequest { container_id, ..Default::default() };
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.pause_container(context, &request).await
        });
        call.await.map_err(Cause::of("pause container", &self.id))?;
        Ok(())
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such container. [`Code::FailedPrecondition`]: it is not paused.
    pub async fn resume(&self) -> Result<()> {
        let container_id = self.id.as_str().to_owned();
        let request = ResumeContainerRequest { container_id, ..Default::default() };
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.resume_container(context, &request).await
        });
        call.await.map_err(Cause::of("resume container", &self.id))?;
        Ok(())
    }

    /// Kills what is left of the container and removes it, its mounts and its cgroup. `timeout` is for all of that, in
    /// whole seconds, rounded up.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such container. [`Code::DeadlineExceeded`]: not within `timeout`.
    pub async fn remove(&self, timeout: Duration) -> Result<()> {
        let whole = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let seconds = u32::try_from(whole).map_err(|_| {
            Error::new(Code::InvalidArgument, "remove container", &self.id, "timeout too long")
        })?;
        let request = RemoveContainerRequest {
            container_id: self.id.as_str().to_owned(),
            // Zero would mean for ever on the wire.
            timeout: seconds.max(1),
            ..Default::default()
        };
        // The guest has the deadline; this one is for a guest that no longer answers.
        let patience =
            Some(Duration::from_secs(u64::from(seconds.max(1))) + Duration::from_secs(5));
        let call = self.connection.agent(patience, |agent, context| async move {
            agent.remove_container(context, &request).await
        });
        call.await.map_err(Cause::of("remove container", &self.id))?;
        Ok(())
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Container({})", self.id)
    }
}

pub(crate) fn create_request(
    id: &ContainerId,
    spec: &runtime::Spec,
    options: ContainerOptions,
) -> Result<CreateContainerRequest> {
    let mut wire = spec::to_wire(spec)?;
    wire.Init = options.init;
    Ok(CreateContainerRequest {
        container_id: id.as_str().to_owned(),
        exec_id: id.as_str().to_owned(),
        storages: storage::to_wire(options.storages),
        devices: options.devices.into_iter().map(Into::into).collect(),
        OCI: MessageField::some(wire),
        ..Default::default()
    })
}

/// Refuses what would not fit into a frame, by a cause that says so.
pub(crate) fn check_size(request: &impl Message) -> Result<(), Cause> {
    // Names of service and method, and the lengths, have room in what is left.
    const MOST: u64 = MAX_FRAME as u64 - 1024;
    match request.compute_size() {
        size if size > MOST => Err(Cause::too_large(size)),
        _ => Ok(()),
    }
}

/// `exec_id` empty: the container as a whole, see [`Container::signal`].
pub(crate) async fn signal_process(
    connection: &Connection,
    container: &ContainerId,
    exec_id: &str,
    signal: u32,
) -> Result<(), Cause> {
    let request = SignalProcessRequest {
        container_id: container.as_str().to_owned(),
        exec_id: exec_id.to_owned(),
        signal,
        ..Default::default()
    };
    let call = connection
        .agent(CALL, |agent, context| async move { agent.signal_process(context, &request).await });
    call.await.map(|_| ())
}
