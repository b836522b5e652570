//! The sandbox's network: what the host declares of it, told to the kernel.

mod counters;

pub use counters::{Counters, counters, counters_of};
