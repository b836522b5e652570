//! hyperctl: containers, each in a VM of its own, without a daemon.
//!
//! One thread and one current-thread runtime: QEMU is started from the main thread and is told by the kernel when that
//! thread ends (PR_SET_PDEATHSIG), so the thread that starts it must be the one that lives as long as we do.

mod bars;
mod binds;
mod cli;
mod commands;
mod config;
mod copy;
mod detach_keys;
mod error;
mod escalation;
mod flags;
mod guest;
mod happening;
mod hooks;
mod image;
mod image_volumes;
mod layers;
mod lines;
mod live;
mod logging;
mod machine;
mod meter;
mod moment;
mod mounts;
mod output;
mod pod;
mod progress;
mod receipt;
mod session;
mod several;
mod signals;
mod spec;
mod terminal;
mod time;
mod units;
mod volume;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::error::{Context as _, OUR_FAILURE, Result};

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return explain_usage(&err),
    };
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            if !err.is_silent() {
                output::say(&err);
            }
            ExitCode::from(err.code())
        }
    }
}

fn run(command: cli::Command) -> Result<u8> {
    logging::init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the event loop".into())?;
    let outcome = runtime.block_on(command.run());
    // A thread may still sit in a read of standard input, which only the user's next key would end.
    runtime.shutdown_background();
    outcome
}

/// clap's own text; `--help` is no failure, and everything else is ours (docker says 125 too).
fn explain_usage(err: &clap::Error) -> ExitCode {
    let wanted = matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if let Err(err) = err.print() {
        drop(err); // whoever asked is gone
    }
    ExitCode::from(if wanted { 0 } else { OUR_FAILURE })
}
