//! A pod: one VM with one container, hosted by one hyperctl process, known to all others by its directory.
//!
//! `store` finds and enters pods, `state` is what is written there, `host` runs one from boot to power-off, `detach`
//! does so in the background, `client` talks to one that another process hosts, `output_log` keeps what it printed.

pub mod client;
pub mod detach;
pub mod host;
pub mod output_log;
pub mod state;
pub mod store;
