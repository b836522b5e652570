//! A pod: one VM, hosted by one hyperctl process, known to all others by its directory. It has the name, and the life, of
//! its first container; further ones have a name within it (`web/side`).
//!
//! `store` finds and enters pods by `name`, `hosted` says whether anybody hosts one, `state` is what is written there,
//! `output_log` what it printed, which `log_reader` reads. `detach` starts a host; `host` is one from boot to power-off (or
//! to the VM's `failure`), `heir` the next when it is killed; `hosting` is what both have in hand: the containers
//! (`contained`, `further`), its `disks`, who is in front (`fronts`) and who asks (`control`). `client` talks to a pod that
//! another process hosts, over a `link` if it is for long; `follow` reads output, `front` shows it.

pub mod client;
pub mod contained;
pub mod control;
pub mod detach;
pub mod disks;
pub mod failure;
pub mod follow;
pub mod front;
pub mod fronts;
pub mod further;
pub mod heir;
pub mod host;
pub mod hosted;
pub mod hosting;
pub mod link;
pub mod log_reader;
pub mod name;
pub mod output_log;
pub mod state;
pub mod store;
