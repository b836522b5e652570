//! Pulls from a registry as Debian packages it, and from servers that mean no good. All on this machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says where"
)]

mod docker_registry;
mod hostile;
mod hostile_resume;
#[allow(dead_code, reason = "shared with hyperctl's tests, which use other parts of it")]
mod support;
