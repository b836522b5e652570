//! The commands, one file each: arguments in, a call, output out.

pub mod attach;
pub mod boot_receipt;
pub mod console;
pub mod cp;
pub mod events;
pub mod exec;
pub mod host;
pub mod image;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod pause;
pub mod ps;
pub mod rm;
pub mod run;
pub mod stats;
pub mod stop;
pub mod top;
pub mod unpause;
pub mod update;
pub mod volume;
pub mod wait;

use std::time::Duration;

/// How often a command that waits for another process looks again.
pub const POLL: Duration = Duration::from_millis(50);
