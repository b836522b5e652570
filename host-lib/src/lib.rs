//! Drives a hyperstart guest: a [`Sandbox`] holds [`Container`]s, a container runs [`Process`]es.
//!
//! ```no_run
//! # async fn run() -> hyperstart::Result<()> {
//! use hyperstart::{ContainerId, ContainerOptions, Sandbox, SandboxConfig, Transport, spec};
//!
//! let sandbox = Sandbox::connect(&Transport::Vsock { cid: 3, port: 1024 }).await?;
//! sandbox.create(&SandboxConfig::default()).await?;
//! let id = ContainerId::new("web")?;
//! let args = vec!["echo".to_owned(), "helloworld".to_owned()];
//! let spec = spec::default_spec(&id, spec::default_process(args, vec![], "/", spec::user("0"), false));
//! let web = sandbox.create_container(&id, &spec, ContainerOptions::default()).await?;
//! web.start().await?;
//! println!("exit code {}", web.wait().await?.code());
//! # Ok(())
//! # }
//! ```
//!
//! The crate is thin: it starts no VM, reads no image, keeps no state but its connection. One method is one request of
//! the wire protocol, which is Kata Containers' agent API (`grpc.AgentService`) and `hyperstart.v1.Guest`; a guest that
//! is a plain kata-agent is driven just so, except for the methods that say otherwise.
//!
//! Handles are cheap to clone, share one connection, and are only names: dropping one stops nothing in the guest. The
//! connection closes with the last handle. All methods need a tokio runtime of either flavour, with its time and I/O
//! drivers enabled. A future may be dropped at any point; its request may then take place all the same.
//!
//! What the guest answers is taken for data from a stranger: sizes are bounded, numbers checked, text escaped.
#![deny(missing_docs)]

mod archive;
mod clock;
mod connection;
mod container;
mod error;
mod events;
mod id;
mod input;
mod list;
mod liveness;
mod log;
mod network;
mod output;
mod pod;
mod process;
mod processes;
mod requests;
mod sandbox;
pub mod spec;
mod stats;
mod stdio;
mod storage;
mod streams;
mod transport;
mod update;

pub use connection::ConnectOptions;
pub use container::{Container, ContainerOptions, GuestDevice};
pub use error::{Code, Error, Result};
pub use events::{Event, Events, Happened, NextEvent};
pub use id::{ContainerId, ExecId};
pub use input::InputWriter;
pub use list::{ContainerStatus, Listing, ProcessStatus, State, StreamStatus};
pub use log::LogPart;
pub use network::{Cidr, Interface, Neighbour, Route};
pub use output::{Chunk, Look, OutputAt, OutputReader};
pub use pod::PodContainer;
pub use process::{ExitStatus, Process};
pub use processes::{ProcessEntry, ProcessList};
pub use sandbox::{
    AgentVersion, BootReceipt, BootStep, GuestDetails, GuestVersion, Sandbox, SandboxConfig,
};
pub use stats::{ContainerStats, CpuStats, IoStats, MemoryStats, NetworkStats, PidsStats, Traffic};
pub use stdio::{Output, Stdin, Stream};
pub use storage::{FsGroup, ID_RANGE, Storage};
pub use transport::Transport;
