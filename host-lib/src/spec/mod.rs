//! OCI runtime specs: the default one of a container, and the way of any into the wire's form.
//!
//! The wire's form (`grpc.Spec`, Kata's) knows fewer properties than the OCI runtime specification. One that it cannot
//! carry is refused by its name ([`Code::Unimplemented`]) and never left out in silence: `umask`, `scheduler`,
//! `ioPriority` and `execCPUAffinity` of a process, `timeOffsets`, `netDevices`, `memoryPolicy` and `personality` of
//! `linux`, id mappings of a mount, and a few more. JSON properties that the OCI specification does not define are
//! ignored when a config.json is read, as its section "Extensibility" asks.
//!
//! [`Code::Unimplemented`]: crate::Code::Unimplemented

mod default;
mod reader;
mod wire;

#[cfg(test)]
mod tests;

pub use default::{default_process, default_spec, user};
pub(crate) use wire::{process_to_wire, to_wire};
