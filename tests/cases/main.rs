//! Every test that boots a guest, in one binary: linking is what costs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed test panics

mod boot;
mod bundle;
mod concurrency;
mod conformance;
mod copy_file;
mod escape;
mod escape_agent;
mod escape_devices;
mod escape_host;
mod escape_kernel;
mod escape_mounts;
mod escape_process;
mod exec;
mod failure;
mod freeze;
#[path = "harness.rs"]
mod harness_itself;
mod hooks;
mod hotplug;
mod hotplug_cpu;
mod hyperctl;
mod hyperctl_flags;
mod iptables;
mod lifecycle;
mod metrics;
mod mount_kinds;
mod mounts;
mod namespaces;
mod pod;
mod process;
mod propagation;
mod protocol;
mod refusal;
mod resources;
mod seccomp;
mod stats;
mod stdio;
mod storage;
mod swap;
mod undo;
mod update;
mod userns;
mod view;
mod volumes;
