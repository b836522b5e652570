//! What a VM test stands on: a guest that boots, a payload that runs in it, and an end that finds what was left behind.
//!
//! ```text
//! Vm::boot ──> vm.start("web", &Run::probe(["view"])) ──> web.finish() ──> vm.shutdown()
//!    │                                                                        │
//!    └ a deadline for all of it; the console is printed if it fails           └ kernel log, zombies, mounts, exit
//! ```
//! The tests speak through the host library, as users of it do; where they must speak what no library would, there is
//! [`raw`]. They are plain functions and the library is asynchronous, so a [`Vm`] has a runtime of its own, on the test's
//! own thread, and each call runs on it until it is done or the test's deadline has passed.
//!
//! Guest files are taken as they are in `target/guest`; without them a test fails and says how to make them. libtest
//! runs as many tests at a time as there are processors, and so as many VMs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed test panics
#![allow(clippy::print_stderr)] // and says on stderr what its guest said

pub mod api;
pub mod bundle;
pub mod capabilities;
pub mod command;
pub mod container;
pub mod disk;
pub mod edit;
pub mod facts;
pub mod guest;
pub mod image;
pub mod inspect;
pub mod mountinfo;
pub mod namespaces;
pub mod network;
pub mod raw;
pub mod stream;
pub mod terminal;
pub mod vm;
pub mod volume;

pub use capabilities::add_capabilities;
pub use container::{Finished, Run, Running};
pub use facts::Facts;
pub use namespaces::{list_namespace, unlist_namespace};
pub use vm::{Mode, Vm, VmConfig};

/// How long a test waits for anything, a whole test included, unless it says otherwise: a net for what hangs. VMs run
/// translated, on a machine that others use, so it is no measure of anything.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// The bytes that `probe write` writes.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..251).cycle().take(bytes).collect()
}

/// SHA-256 as `probe sum` writes it.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
