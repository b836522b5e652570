//! Every test that boots a guest, in one binary: linking is what costs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed test panics

mod boot;
mod exec;
mod failure;
mod hyperctl;
mod lifecycle;
mod protocol;
mod stdio;
mod view;
