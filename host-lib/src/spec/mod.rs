//! OCI runtime specs: the default one of a container, and the way of any into the wire's form.
//!
//! The wire's form is Kata's (`grpc.Spec`), and knows fewer properties than the OCI runtime specification. The others
//! go in extensions of it, to a hyperstart guest only: for another agent they are refused by name
//! ([`Code::Unimplemented`]), and so is what nothing can carry; nothing is left out in silence. JSON properties that the
//! OCI specification does not define are ignored when a config.json is read, as its section "Extensibility" asks.
//!
//! [`Code::Unimplemented`]: crate::Code::Unimplemented

mod default;
mod extension;
mod hooks;
mod reader;
mod seccomp;
mod wire;

#[cfg(test)]
mod tests;

pub use default::{default_process, default_spec, map_ids, user};
pub(crate) use extension::{
    CAPABILITY as EXTENSIONS, of_process as extension_of_process,
    of_resources as extension_of_resources, of_spec as extension_of_spec,
};
pub use hooks::{HostHooks, take_host_hooks};
pub use seccomp::default_seccomp;
pub(crate) use wire::{process_to_wire, resources_to_wire, to_wire};
