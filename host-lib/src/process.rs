//! A process in a container: a container's init or an exec. Its exit, its signals, its terminal, its three streams.

use std::fmt;
use std::sync::Arc;

use hyperstart_protocol::agent::{TtyWinResizeRequest, WaitProcessRequest};

use crate::connection::{CALL, Connection, UNBOUNDED};
use crate::container::signal_process;
use crate::error::{Cause, Error, Result};
use crate::id::{ContainerId, ExecId};
use crate::stdio::{Output, Stdin, Stream};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// None: what is no exit status.
    pub(crate) fn from_wire(status: i32) -> Option<Self> {
        u8::try_from(status).map(Self).ok()
    }

    /// The exit code, or 128 + the number of the signal that killed it, as a shell reports it (POSIX sh, 2.8.2).
    pub fn code(self) -> u8 {
        self.0
    }

    /// The code is 0.
    pub fn success(self) -> bool {
        self.0 == 0
    }
}

/// A process of a container. A clone is another name for the same process; dropping it stops nothing.
///
/// Its `Display` is `"container"` for an init, `"container"/"exec"` for an exec.
#[derive(Clone)]
pub struct Process {
    connection: Arc<Connection>,
    container: ContainerId,
    exec: Option<ExecId>,
}

impl Process {
    pub(crate) fn new(
        connection: Arc<Connection>,
        container: ContainerId,
        exec: Option<ExecId>,
    ) -> Self {
        Self { connection, container, exec }
    }

    /// The container it runs in.
    pub fn container_id(&self) -> &ContainerId {
        &self.container
    }

    /// Its id, unless it is its container's init.
    pub fn exec_id(&self) -> Option<&ExecId> {
        self.exec.as_ref()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The init goes by its container's id on the wire. (An empty id names it too, but means the container to signals.)
    pub(crate) fn wire_id(&self) -> String {
        self.exec.as_ref().map_or(self.container.as_str(), ExecId::as_str).to_owned()
    }

    pub(crate) fn wire_container(&self) -> String {
        self.container.as_str().to_owned()
    }

    /// Waits until the process has exited.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such process. [`Code::Unavailable`](crate::Code::Unavailable): the
    /// connection was lost. [`Code::Internal`](crate::Code::Internal): the guest answered what is no exit status.
    pub async fn wait(&self) -> Result<ExitStatus> {
        let request = WaitProcessRequest {
            container_id: self.wire_container(),
            exec_id: self.wire_id(),
            ..Default::default()
        };
        let call = self.connection.agent(UNBOUNDED, |agent, context| async move {
            agent.wait_process(context, &request).await
        });
        let status = call.await.map_err(Cause::of("wait for process", self))?.status;
        ExitStatus::from_wire(status).ok_or_else(|| {
            Error::nonsense("wait for process", self, format_args!("exit status {status}"))
        })
    }

    /// Sends a signal (signal(7), 1 to 64) to this process alone.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound): no such process, or it is dead.
    pub async fn signal(&self, signal: u32) -> Result<()> {
        signal_process(&self.connection, &self.container, &self.wire_id(), signal)
            .await
            .map_err(Cause::of("signal process", self))
    }

    /// Sets the size of the process's terminal in characters (ioctl_tty(2), TIOCSWINSZ).
    ///
    /// # Errors
    /// [`Code::Unavailable`](crate::Code::Unavailable): it has no terminal (Kata's code for it).
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let request = TtyWinResizeRequest {
            container_id: self.wire_container(),
            exec_id: self.wire_id(),
            row: rows.into(),
            column: columns.into(),
            ..Default::default()
        };
        let call = self.connection.agent(CALL, |agent, context| async move {
            agent.tty_win_resize(context, &request).await
        });
        call.await.map_err(Cause::of("resize terminal of process", self))?;
        Ok(())
    }

    /// Writes to the process's standard input. Shutting it down closes the input; dropping it does not.
    pub fn stdin(&self) -> Stdin {
        Stdin::new(self.clone())
    }

    /// Reads the process's standard output; with a terminal, all of its output.
    ///
    /// One reader at a time: two would share the bytes between them.
    pub fn stdout(&self) -> Output {
        Output::new(self.clone(), Stream::Stdout)
    }

    /// Reads the process's standard error, which ends at once where there is a terminal. One reader at a time.
    pub fn stderr(&self) -> Output {
        Output::new(self.clone(), Stream::Stderr)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            Some(exec) => write!(f, "{}/{exec}", self.container),
            None => write!(f, "{}", self.container),
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({self})")
    }
}
