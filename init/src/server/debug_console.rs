//! `agent.debug_console`: a root shell in the guest for the host, on a vsock port of its own (`agent.debug_console_vport`),
//! in images that carry a shell. Never without the parameter, and never in the default image.

use std::rc::Rc;

use tokio::io::{copy, split};
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio_vsock::VsockListener;

use super::vsock::{self, ShortWrites};
use crate::error::{Context, Result};
use crate::log;
use crate::offload::shell;
use crate::sandbox::Sandbox;

/// Opens it if it is asked for and there is something to run.
pub fn open(sandbox: &Rc<Sandbox>) -> Result<()> {
    let Some(port) = sandbox.config.debug_console else { return Ok(()) };
    if !shell::is_there() {
        log::warn!(
            "kernel parameter agent.debug_console: the image has no /bin/sh (image-builder --debug-shell makes one that has)"
        );
        return Ok(());
    }
    let listener = vsock::listen(port)?;
    log::warn!("debug console: the host has a root shell on vsock port {port}");
    spawn_local(serve(listener, Rc::clone(sandbox)));
    Ok(())
}

async fn serve(listener: VsockListener, sandbox: Rc<Sandbox>) {
    loop {
        let client = vsock::next_of_host(&listener).await;
        let sandbox = Rc::clone(&sandbox);
        spawn_local(async move {
            if let Err(err) = converse(client, &sandbox).await {
                log::warn!("debug console: {err}");
            }
        });
    }
}

/// Carries bytes until one side is gone, and then ends the shell if it is not the one that is.
async fn converse(client: ShortWrites, sandbox: &Sandbox) -> Result<()> {
    let (ours, theirs) = UnixStream::pair().context(|| "socketpair".to_owned())?;
    let (child, exit) = sandbox.debug_shell(theirs.into_std()?)?;
    let (mut from_client, mut to_client) = split(client);
    let (mut from_shell, mut to_shell) = split(ours);
    // Whichever ends first: an end that is told by a half-close would be lost on some devices.
    let ended = tokio::select! {
        ended = copy(&mut from_shell, &mut to_client) => ended,
        ended = copy(&mut from_client, &mut to_shell) => ended,
    };
    if let Err(err) = ended {
        log::debug!("debug console: {err}"); // the client is gone
    }
    if exit.status().is_none() {
        // It may have ended between the two, and then hears nothing.
        child.kill().unwrap_or_default();
    }
    exit.wait().await;
    Ok(())
}
