//! Starts the VM of a hyperstart sandbox, and explains why when it does not start.
//!
//! This crate is the only place that knows QEMU. A caller says what the VM is ([`Machine`]), launches it
//! ([`Vm::launch`]), waits until the guest says that it is ready ([`Vm::ready`]) and then talks to it over the byte
//! transport at [`Vm::address`]. It knows nothing of containers, images or the agent's API.
//!
//! ```no_run
//! # async fn example() -> hyperstart_vmm::Result<()> {
//! use hyperstart_vmm::{Boot, Machine, Vm, boot};
//!
//! let machine = Machine::new("target/guest/vmlinux", Boot::Initrd("target/guest/initrd.img".into()));
//! let vm = Vm::launch(&machine, std::path::Path::new("/run/hyperstart/pods/web")).await?;
//! vm.ready(boot::DEFAULT_DEADLINE).await?;
//! println!("the agent listens at {:?}", vm.address());
//! # Ok(())
//! # }
//! ```
//!
//! What is promised: every wait has a deadline; every failure to boot has an error variant of its own that names the
//! object and the next step; and whatever dies first (QEMU, a daemon, the caller, even by SIGKILL), no process, socket
//! or temporary file is left, unless the machine is to outlive its owner for an heir ([`Machine::outlives_owner`],
//! [`Vm::adopt`]). How: children get SIGKILL when the caller dies ([`process`]), and a guardian removes what
//! was on disk ([`rundir`]). `Vm` must live inside a tokio runtime with I/O and time enabled.

pub mod accel;
pub mod boot;
pub mod console;
pub mod error;
mod guest_files;
mod helper;
mod instance;
mod kept;
mod line;
pub mod machine;
mod mark;
pub mod mux;
mod plan;
mod plug;
pub mod process;
mod program;
pub mod qemu;
pub mod qmp;
pub mod root;
pub mod rundir;
pub mod serial;
pub mod virtiofs;
pub mod vm;
pub mod vsock;

pub use accel::Accel;
pub use error::{Error, Result};
pub use kept::{end_processes, end_remains};
pub use machine::{
    Boot, Disk, Machine, MachineKind, Network, Nic, PmemKind, Share, ShareKind, TransportKind,
};
pub use plug::Plugged;
pub use process::Exit;
pub use qemu::DiskDevice;
pub use rundir::{Heir, RunDir};
pub use vm::{AgentAddress, Vm};
