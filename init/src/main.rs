//! The PID 1 of a hyperstart guest: brings the guest up, then serves the host until it says stop.
//!
//! One thread runs it all: an event loop on which nothing blocks. The order below is the boot; each step is said on
//! the console before it is done, so that the last line names what a boot hangs on.

mod boot;
mod clock;
mod config;
mod container;
mod error;
mod events;
mod hotplug;
mod idmap;
mod log;
mod loopback;
mod metrics;
mod network;
mod offload;
mod oom;
mod pci;
mod pressure;
mod random;
mod reaper;
mod report;
mod sandbox;
mod server;
mod stdio;
mod storage;
mod swap;
mod sys;
mod textfile;
mod uevent;
mod volumes;

use std::rc::Rc;

use crate::boot::Receipt;
use crate::config::Config;
use crate::error::{Context, Result};
use crate::sandbox::Sandbox;

fn main() {
    if let Err(err) = boot::require_pid_1() {
        log::write_line(&format!("error: {err}"));
        return; // and the machine is not ours to stop
    }
    match bring_up_and_serve(Receipt::start()) {
        Ok(()) => boot::power_off(),
        Err(err) => boot::fail(&err),
    }
}

fn bring_up_and_serve(mut receipt: Receipt) -> Result<()> {
    boot::step("root");
    boot::make_root_pivotable()?;
    boot::step("mounts");
    boot::mount_filesystems()?;
    receipt.mark("mounts");
    let config = Config::read()?;
    log::init(config.log_level);
    for name in &config.ignored {
        log::warn!("kernel parameter {name}: not honoured by this guest, see docs/kernel.md");
    }
    boot::step("cgroups");
    boot::delegate_cgroups()?;
    boot::raise_limits()?;
    boot::step("loopback");
    loopback::bring_up()?;
    boot::run_event_loop(async move {
        boot::step("listen");
        let sandbox = Rc::new(Sandbox::new(config, receipt)?);
        server::serve(sandbox).await
    })
    .context(|| "serve".to_owned())
}
