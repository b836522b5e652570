//! What happens in a guest, told once and in order, over any number of connections.
//!
//! The guest numbers its events and keeps the last of them; a client goes on after the number that it knows. So a lost
//! connection loses nothing, and what came while nobody listened is told, or counted.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use hyperstart_protocol::guest::event::Kind;
use hyperstart_protocol::guest::{self, EventsRequest, EventsResponse};

use crate::connection::UNBOUNDED;
use crate::error::{Cause, Code, Error, Result, printable};
use crate::id::{ContainerId, ExecId};
use crate::process::ExitStatus;
use crate::sandbox::Sandbox;

const OPERATION: &str = "read events of guest";

/// The guest's events from a number on; see [`Sandbox::events`].
#[derive(Debug)]
pub struct Events {
    sandbox: Sandbox,
    /// The last that was given out, or was lost.
    after: u64,
    /// Asked for, and not given out yet.
    ahead: VecDeque<guest::Event>,
}

/// What [`Events::next`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextEvent {
    /// An event. Their numbers have no gaps, but for those that are told as lost.
    Event(Event),
    /// So many events happened that the guest no longer keeps. What they told is found by [`Sandbox::list`].
    Lost(u64),
}

/// Something that happened in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number: from 1, one more for each event of this guest.
    pub sequence: u64,
    /// When, by the guest's clock.
    pub time: SystemTime,
    /// What happened.
    pub what: Happened,
}

/// What an [`Event`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happened {
    /// The container was made.
    ContainerCreated(ContainerId),
    /// Its program was let go.
    ContainerStarted(ContainerId),
    /// All its processes were frozen.
    ContainerPaused(ContainerId),
    /// They go on.
    ContainerResumed(ContainerId),
    /// It is gone.
    ContainerRemoved(ContainerId),
    /// An exec runs.
    ExecStarted(ContainerId, ExecId),
    /// A process has exited, and all that it wrote can be read. No exec id: the container's init.
    ProcessExited(ContainerId, Option<ExecId>, ExitStatus),
    /// The kernel has killed a process of the container for want of memory.
    Oom(ContainerId),
    /// A device came: its path below the guest's /sys.
    DeviceAdded(String),
    /// A device went.
    DeviceRemoved(String),
    /// The guest is short of memory, so that tasks wait for it: the guest's /proc/pressure/memory.
    LowMemory(String),
    /// A guest that is newer than this library has told something by this number.
    Other(i32),
}

impl Events {
    pub(crate) fn new(sandbox: Sandbox, after: u64) -> Self {
        Self { sandbox, after, ahead: VecDeque::new() }
    }

    /// The number of the last event that [`Events::next`] has given out: where another client may go on.
    pub fn last(&self) -> u64 {
        self.after
    }

    /// Waits for the next event. Dropping the future loses none.
    ///
    /// When the connection is lost it is made anew, with the options it was first made with, if it was made by
    /// [`Sandbox::connect`].
    ///
    /// # Errors
    /// [`Code::Unavailable`]: the connection was lost, and cannot be made again; a later call tries again.
    /// [`Code::Unimplemented`]: another agent, such as Kata's. [`Code::Internal`]: an answer that makes no sense.
    pub async fn next(&mut self) -> Result<NextEvent> {
        while self.ahead.is_empty() {
            let answer = match self.ask().await {
                Err(err) if err.code() == Code::Unavailable => {
                    self.sandbox = self.sandbox.reconnected().await.ok_or(err)??;
                    continue;
                }
                answer => answer?,
            };
            if answer.events.is_empty() {
                return Err(Error::nonsense(OPERATION, "", "no event"));
            }
            self.ahead = answer.events.into();
            if answer.lost > 0 {
                self.after = self.after.checked_add(answer.lost).ok_or_else(|| {
                    Error::nonsense(OPERATION, "", format_args!("{} lost", answer.lost))
                })?;
                return Ok(NextEvent::Lost(answer.lost));
            }
        }
        let Some(wire) = self.ahead.pop_front() else {
            return Err(Error::nonsense(OPERATION, "", "no event"));
        };
        let event = event(wire)?;
        if self.after.checked_add(1) != Some(event.sequence) {
            let (after, sequence) = (self.after, event.sequence);
            self.ahead.clear();
            return Err(Error::nonsense(OPERATION, "", format_args!("{sequence} after {after}")));
        }
        self.after = event.sequence;
        Ok(NextEvent::Event(event))
    }

    async fn ask(&self) -> Result<EventsResponse> {
        let request = EventsRequest { after: self.after, ..Default::default() };
        let call = self.sandbox.connection().guest_within(UNBOUNDED, |guest, context| async move {
            guest.events(context, &request).await
        });
        call.await.map_err(Cause::of(OPERATION, ""))
    }
}

impl Sandbox {
    /// Reads the guest's events after the number `after`, over as many connections as it takes. 0: all that are kept;
    /// [`Listing::last_event`](crate::Listing::last_event): from there on. Asks the guest nothing yet.
    pub fn events(&self, after: u64) -> Events {
        Events::new(self.clone(), after)
    }
}

pub(crate) fn time(nanoseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

fn event(wire: guest::Event) -> Result<Event> {
    let container = || ContainerId::new(&wire.container_id).map_err(|err| nonsense(&err));
    let exec = || ExecId::new(&wire.exec_id).map_err(|err| nonsense(&err));
    let detail = || printable(&wire.detail);
    let what = match wire.kind.enum_value() {
        Ok(Kind::CONTAINER_CREATED) => Happened::ContainerCreated(container()?),
        Ok(Kind::CONTAINER_STARTED) => Happened::ContainerStarted(container()?),
        Ok(Kind::CONTAINER_PAUSED) => Happened::ContainerPaused(container()?),
        Ok(Kind::CONTAINER_RESUMED) => Happened::ContainerResumed(container()?),
        Ok(Kind::CONTAINER_REMOVED) => Happened::ContainerRemoved(container()?),
        Ok(Kind::EXEC_STARTED) => Happened::ExecStarted(container()?, exec()?),
        Ok(Kind::PROCESS_EXITED) => {
            let exec = if wire.exec_id.is_empty() { None } else { Some(exec()?) };
            Happened::ProcessExited(container()?, exec, exit_status(wire.exit_status)?)
        }
        Ok(Kind::OOM) => Happened::Oom(container()?),
        Ok(Kind::DEVICE_ADDED) => Happened::DeviceAdded(detail()),
        Ok(Kind::DEVICE_REMOVED) => Happened::DeviceRemoved(detail()),
        Ok(Kind::LOW_MEMORY) => Happened::LowMemory(detail()),
        Ok(Kind::KIND_UNKNOWN) => Happened::Other(0),
        Err(number) => Happened::Other(number),
    };
    Ok(Event { sequence: wire.sequence, time: time(wire.time_ns), what })
}

fn exit_status(status: i32) -> Result<ExitStatus> {
    ExitStatus::from_wire(status)
        .ok_or_else(|| Error::nonsense(OPERATION, "", format_args!("exit status {status}")))
}

fn nonsense(err: &Error) -> Error {
    Error::nonsense(OPERATION, "", format_args!("id {}", err.object()))
}
