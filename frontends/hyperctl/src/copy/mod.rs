//! Files between host and container: what `hyperctl cp` does.
//!
//! ```text
//! upload:   host tree ─pack (a thread)─> channel ─> the guest's exec, which unpacks
//! download: the guest's exec, which packs ─> channel ─(a thread) unpack─> host tree
//! ```
//! Both ends unpack by `hyperstart-archive`: the guest is a stranger, and nothing that it sends is written outside of what
//! the user has named, by no other name than the user knows.

pub mod download;
mod exec;
pub mod place;
mod stream;
pub mod upload;
