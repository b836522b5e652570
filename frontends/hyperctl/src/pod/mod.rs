//! A pod: one VM, hosted by one hyperctl process, known to all others by its directory. It has the name, and the life, of
//! its first container; further ones have a name within it (`web/side`) and a hyperctl each.
//!
//! `store` finds and enters pods, `state` is what is written there, `host` runs one from boot to power-off, `detach`
//! does so in the background, `client` talks to one that another process hosts, `output_log` keeps what it printed.
//! `further` runs one more container in a pod, by a lease of its host's (`leases`), which knows its `disks`.

pub mod client;
pub mod detach;
pub mod disks;
pub mod further;
pub mod host;
pub mod leases;
pub mod output_log;
pub mod state;
pub mod store;
