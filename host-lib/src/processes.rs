//! The processes in a container, as ps(1) would show them: its init, the execs, and their children.

use std::time::Duration;

use hyperstart_protocol::guest::ListProcessesRequest;
use hyperstart_protocol::guest::list_processes_response::Entry;

use crate::container::Container;
use crate::error::{Cause, Error, Result, printable};

/// More than a guest lists.
const MOST: usize = 4096;

/// The processes in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessList {
    /// In the order of their pids.
    pub processes: Vec<ProcessEntry>,
    /// There were more than a guest lists (4096).
    pub truncated: bool,
}

/// One process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEntry {
    /// In the guest's own pid namespace.
    pub pid: u32,
    /// In the container's.
    pub container_pid: u32,
    /// Of its parent, in the guest's own pid namespace; 0: none that can be seen.
    pub parent_pid: u32,
    /// Its real user id, as the guest has it.
    pub uid: u32,
    /// The letter of proc_pid_stat(5): `R`, `S`, `D`, `Z`, `T` and so on.
    pub state: char,
    /// What of it is in memory, in bytes.
    pub resident_bytes: u64,
    /// The processor time that it has used.
    pub cpu: Duration,
    /// When it was started, since the guest's boot.
    pub started: Duration,
    /// Its command line, at most 4 KiB; that of a dead one is its name.
    pub command: String,
}

impl Container {
    /// Lists the processes in the container. Takes a hyperstart guest.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such container.
    /// [`Code::Unimplemented`](crate::Code::Unimplemented): another agent, such as Kata's.
    pub async fn processes(&self) -> Result<ProcessList> {
        const OPERATION: &str = "list processes of container";
        let container_id = self.id().as_str().to_owned();
        let request = ListProcessesRequest { container_id, ..Default::default() };
        let call = self
            .connection()
            .guest(|guest, context| async move { guest.list_processes(context, &request).await });
        let answer = call.await.map_err(Cause::of(OPERATION, self.id()))?;
        let count = answer.processes.len();
        if count > MOST {
            return Err(Error::nonsense(OPERATION, self.id(), format_args!("{count} processes")));
        }
        let processes = answer.processes.into_iter().map(entry).collect();
        Ok(ProcessList { processes, truncated: answer.truncated })
    }
}

fn entry(entry: Entry) -> ProcessEntry {
    ProcessEntry {
        pid: entry.pid,
        container_pid: entry.container_pid,
        parent_pid: entry.parent_pid,
        uid: entry.uid,
        state: entry.state.chars().next().filter(char::is_ascii_graphic).unwrap_or('?'),
        resident_bytes: entry.resident_bytes,
        cpu: Duration::from_nanos(entry.cpu_ns),
        started: Duration::from_nanos(entry.started_ns),
        command: printable(&entry.command),
    }
}
