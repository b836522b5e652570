//! The wire API between a hyperstart guest and its host: messages, services, ports, limits. No I/O, no clock.
//!
//! Two services share one ttrpc connection. [`agent_ttrpc`] (`grpc.AgentService`) and [`health_ttrpc`] (`grpc.Health`)
//! are Kata Containers' agent API, exact to the field number, so that an unmodified Kata runtime drives the guest.
//! [`guest_ttrpc`] (`hyperstart.v1.Guest`) is what that API lacks. The types are generated from the files in `proto/`,
//! which say what each message means; field names are those of the wire, `OCI` and `Terminal` included.
//!
//! The message types are protobuf's lite ones. Their `Debug` is derived; even so a message belongs in no log, since it
//! may hold environment variables.
#![deny(missing_docs)]

pub mod stream;

mod generated {
    #![allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{
    agent, agent_ttrpc, csi, guest, guest_ttrpc, health, health_ttrpc, oci, types,
};
/// The answer of every call that only succeeds or fails.
pub use protobuf::well_known_types::empty::Empty;

/// The vsock port of the guest on which both services listen. Kata's `agent.server_addr` has the same default.
pub const AGENT_PORT: u32 = 1024;

/// The vsock port of the host to which the guest says [`READY_LINE`]. The kernel command line names it to the guest
/// (`hyperstart.ready=1028`); Kata uses 1024 to 1027.
pub const READY_PORT: u32 = 1028;

/// The vsock port of the guest on which a process's stream is a connection of its own: see `guest.proto`, "Streams".
pub const STREAM_PORT: u32 = 1029;

/// The name of the virtio-serial port that carries ttrpc where there is no vsock
/// (`/sys/class/virtio-ports/*/name` in the guest).
pub const SERIAL_PORT_NAME: &str = "hyperstart.agent";

/// What a guest says once it serves calls: on a connection of its own to [`READY_PORT`], or as the first bytes on its
/// virtio-serial port, before the first frame. The number is [`PROTOCOL_MAJOR`].
pub const READY_LINE: &str = "HYPERSTART READY 1\n";

/// The type of a `Device` in a `CreateContainerRequest` that is a node of the guest's own /dev (`vm_path`), or a
/// directory of such nodes: the guest puts it at `container_path`, with its own numbers and permissions, to be used as
/// `options` says (of `r`, `w`, `m`; all of them if there is none). An extension of Kata's types.
pub const GUEST_NODE: &str = "hyperstart.node";

/// The largest payload of a ttrpc frame in bytes; the header is not counted. A longer one is refused by its receiver.
pub const MAX_FRAME: usize = 4 << 20;

/// The length of a ttrpc frame's header in bytes: the payload's length and a stream id as 32-bit big-endian numbers,
/// then type and flags, a byte each.
pub const FRAME_HEADER: usize = 10;

/// The most that a guest writes to a vsock at once, in bytes: vhost-device-vsock loses writes of more than 32 KiB.
pub const MAX_VSOCK_WRITE: usize = 28 << 10;

/// Major version of `hyperstart.v1.Guest`: host and guest must have the same.
pub const PROTOCOL_MAJOR: u32 = 1;

/// Minor version of `hyperstart.v1.Guest`: grows when something is added.
pub const PROTOCOL_MINOR: u32 = 1;

/// The guest's release, as `GetGuestDetails` and `Health.Version` tell it. Free text: no runtime compares it.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of Kata's agent API, as `Health.Version` tells it.
pub const PROTOCOL_VERSION: &str = "0.0.1";
