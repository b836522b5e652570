//! What there is in a guest: for a host that was away and has nothing but its connection.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hyperstart_protocol::guest::{self, ListRequest, ListResponse};

use crate::connection::Connection;
use crate::container::Container;
use crate::error::{Cause, Error, Result};
use crate::events::time;
use crate::id::{ContainerId, ExecId};
use crate::process::ExitStatus;
use crate::sandbox::Sandbox;

const OPERATION: &str = "list containers of guest";

/// What there is ([`Sandbox::list`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// All containers in the order of their ids.
    pub containers: Vec<ContainerStatus>,
    /// The number of the last event before this was true: to go on from here by [`Sandbox::events`].
    pub last_event: u64,
}

/// Where a container or a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Made, and not started.
    Created,
    /// Its program runs.
    Running,
    /// All processes of the container are frozen.
    Paused,
    /// Its init, or it, has exited.
    Stopped,
    /// A guest that is newer than this library says something else.
    Unknown,
}

/// A container, as the guest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Where it stands.
    pub state: State,
    /// Its init.
    pub init: ProcessStatus,
    /// Its execs, by their ids. One that has ended is forgotten once it was waited for and read to its end.
    pub execs: BTreeMap<ExecId, ProcessStatus>,
    /// Annotations of its OCI spec, as they are: those that the guest had room for (16 KiB).
    pub annotations: BTreeMap<String, String>,
    /// There were more.
    pub annotations_truncated: bool,
}

/// A process, as the guest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// [`State::Created`], [`State::Running`] or [`State::Stopped`].
    pub state: State,
    /// In the guest's own pid namespace; `None` once it is gone.
    pub pid: Option<u32>,
    /// How it ended, if it did.
    pub exit: Option<ExitStatus>,
    /// When its program was let go, by the guest's clock.
    pub started: Option<SystemTime>,
    /// When it exited.
    pub exited: Option<SystemTime>,
    /// It has a terminal.
    pub terminal: bool,
    /// Its standard output; with a terminal, all of its output.
    pub stdout: StreamStatus,
    /// Its standard error.
    pub stderr: StreamStatus,
    /// How many bytes its standard input has taken.
    pub input_offset: u64,
    /// Its standard input was closed.
    pub input_closed: bool,
}

/// An output of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStatus {
    /// The lowest offset that is kept.
    pub oldest: u64,
    /// That of the next byte to be written.
    pub end: u64,
    /// The last writer is gone: `end` is final.
    pub ended: bool,
}

impl Sandbox {
    /// Asks what there is: containers, their processes, and how far their streams are.
    ///
    /// # Errors
    /// [`Code::Unimplemented`](crate::Code::Unimplemented): another agent, such as Kata's.
    /// [`Code::ResourceExhausted`](crate::Code::ResourceExhausted): more than one answer holds; ask each container.
    pub async fn list(&self) -> Result<Listing> {
        let answer =
            list(self.connection(), String::new()).await.map_err(Cause::of(OPERATION, ""))?;
        let containers = answer.containers.into_iter().map(container).collect::<Result<_>>()?;
        Ok(Listing { containers, last_event: answer.last_event })
    }
}

impl Container {
    /// Asks how it is: as [`Sandbox::list`], for this container alone.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such container.
    /// [`Code::Unimplemented`](crate::Code::Unimplemented): another agent, such as Kata's.
    pub async fn status(&self) -> Result<ContainerStatus> {
        let answer = list(self.connection(), self.id().as_str().to_owned()).await;
        let answer = answer.map_err(Cause::of("ask status of container", self.id()))?;
        match <[_; 1]>::try_from(answer.containers) {
            Ok([wire]) if wire.container_id == self.id().as_str() => container(wire),
            Ok(_) | Err(_) => Err(nonsense("another container")),
        }
    }
}

async fn list(connection: &Connection, container_id: String) -> Result<ListResponse, Cause> {
    let request = ListRequest { container_id, ..Default::default() };
    connection.guest(|guest, context| async move { guest.list(context, &request).await }).await
}

fn container(wire: guest::Container) -> Result<ContainerStatus> {
    let id = ContainerId::new(&wire.container_id).map_err(|err| nonsense(err.object()))?;
    let mut processes = wire.processes.into_iter();
    let init = processes.next().filter(|process| process.exec_id.is_empty());
    let init = init.ok_or_else(|| nonsense(format_args!("container {id} without an init")))?;
    let exec = |wire: guest::Process| {
        let id = ExecId::new(&wire.exec_id).map_err(|err| nonsense(err.object()))?;
        Ok((id, process(wire)?))
    };
    Ok(ContainerStatus {
        id,
        state: state(wire.state),
        init: process(init)?,
        execs: processes.map(exec).collect::<Result<_>>()?,
        annotations: wire.annotations.into_iter().collect(),
        annotations_truncated: wire.annotations_truncated,
    })
}

fn process(mut wire: guest::Process) -> Result<ProcessStatus> {
    let state = state(wire.state);
    let exit = match (state, ExitStatus::from_wire(wire.exit_status)) {
        (State::Stopped, None) => {
            return Err(nonsense(format_args!("exit status {}", wire.exit_status)));
        }
        (State::Stopped, status) => status,
        _ => None,
    };
    let moment = |nanoseconds: u64| (nanoseconds != 0).then(|| time(nanoseconds));
    Ok(ProcessStatus {
        state,
        pid: (wire.pid != 0).then_some(wire.pid),
        exit,
        started: moment(wire.started_ns),
        exited: moment(wire.exited_ns),
        terminal: wire.terminal,
        stdout: stream(wire.stdout.take()),
        stderr: stream(wire.stderr.take()),
        input_offset: wire.input_offset,
        input_closed: wire.input_closed,
    })
}

fn stream(wire: Option<guest::StreamState>) -> StreamStatus {
    let wire = wire.unwrap_or_default();
    StreamStatus { oldest: wire.oldest, end: wire.end_offset, ended: wire.ended }
}

fn state(wire: protobuf::EnumOrUnknown<guest::State>) -> State {
    match wire.enum_value() {
        Ok(guest::State::CREATED) => State::Created,
        Ok(guest::State::RUNNING) => State::Running,
        Ok(guest::State::PAUSED) => State::Paused,
        Ok(guest::State::STOPPED) => State::Stopped,
        Ok(guest::State::STATE_UNKNOWN) | Err(_) => State::Unknown,
    }
}

fn nonsense(what: impl std::fmt::Display) -> Error {
    Error::nonsense(OPERATION, "", what)
}
