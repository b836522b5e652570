//! The sandbox's network: what the host declares of it, told to the kernel.

#![allow(dead_code, unused_imports)] // statistics come to use them

mod counters;

pub use counters::{Counters, counters, counters_of};
