//! Talking to a pod that another process hosts: connect, signal, stop; and how the guest's errors become ours.
//!
//! The agent is reached at the address in the pod's state. When it does not answer, the host can still be ended: by a
//! pidfd, taken while the pod's lock shows that the host lives, so that a recycled pid is never hit.

use std::path::Path;
use std::time::Duration;

use hyperstart::{BootStep, Code, ConnectOptions, Container, ContainerId, Sandbox, Transport};
use hyperstart_vmm::{AgentAddress, TransportKind};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep, timeout};

use crate::commands::POLL;
use crate::error::{CANNOT_EXECUTE, COMMAND_NOT_FOUND, Context as _, Error, Result};
use crate::pod::hosted;
use crate::pod::state::{Address, State, Status};
use crate::pod::store::Pod;
use crate::receipt::{GuestReceipt, GuestStep};
use crate::signals::{self, SIGKILL, SIGTERM};

/// A guest that is ready answers at once; this much only if it is starved.
pub const CONNECT: Duration = Duration::from_secs(10);
/// From a container's end, or its host's order to end, to the end of the host.
const POWER_OFF: Duration = Duration::from_secs(25);

pub fn address_of(address: &AgentAddress) -> Address {
    match address.clone() {
        AgentAddress::Vsock { cid, port } => Address::Vsock { cid, port },
        AgentAddress::Hybrid { path, port } => Address::Hybrid { path, port },
        AgentAddress::Unix { path } => Address::Unix { path },
    }
}

/// The transport that leads to such an address.
pub fn transport_of(address: &AgentAddress) -> &'static str {
    match address {
        AgentAddress::Vsock { .. } => TransportKind::VhostVsock.name(),
        AgentAddress::Hybrid { .. } => TransportKind::VhostUserVsock.name(),
        AgentAddress::Unix { .. } => TransportKind::Serial.name(),
    }
}

/// In host-lib's words.
pub fn transport(address: &Address) -> Transport {
    match address.clone() {
        Address::Vsock { cid, port } => Transport::Vsock { cid, port },
        Address::Hybrid { path, port } => Transport::Hybrid { path, port },
        Address::Unix { path } => Transport::Unix { path },
    }
}

/// Connects to the guest at `address`.
pub async fn reach(address: &Address) -> Result<Sandbox> {
    let transport = transport(address);
    let options = ConnectOptions { deadline: CONNECT, ..ConnectOptions::default() };
    let sandbox = Sandbox::connect_with(&transport, options).await;
    sandbox.map_err(|err| {
        guest_error(&err).hint("`hyperctl console POD` shows what the guest said last")
    })
}

/// The same, unless what is in `dir` ends before: an address that nobody serves any more may accept and stay silent.
pub async fn reach_hosted(address: &Address, dir: &Path) -> Result<Sandbox> {
    tokio::select! {
        biased;
        sandbox = reach(address) => sandbox,
        gone = gone(dir) => {
            gone?;
            let ended = Error::new("it has just ended").with_lost(true);
            Err(ended.hint("`hyperctl logs POD` shows its output"))
        }
    }
}

/// The guest of a running pod, and its container.
pub async fn connect(pod: &Pod) -> Result<(Sandbox, Container)> {
    let name = &pod.state.name;
    let address = match (&pod.state.status, &pod.state.address) {
        (Status::Running { .. }, Some(address)) => address,
        (Status::Running { .. } | Status::Booting, _) => {
            return Err(Error::new("it is still booting").hint("try again in a moment"));
        }
        (Status::Exited { exit_code, .. }, _) => {
            return Err(Error::new(format!("it has exited ({exit_code})"))
                .hint(format!("`hyperctl logs {name}` shows its output")));
        }
    };
    let sandbox = reach_hosted(address, &pod.dir).await?;
    let id = ContainerId::new(&pod.state.id).map_err(|err| guest_error(&err))?;
    let container = sandbox.container(id);
    Ok((sandbox, container))
}

/// Sends a signal to the container's own process.
pub async fn signal(pod: &Pod, signal: u32) -> Result<()> {
    let (_sandbox, container) = connect(pod).await?;
    container.signal(signal).await.map_err(|err| guest_error(&err))
}

/// The same for a container that is to end by it: one that is paused goes on, or it could not.
async fn ask_to_end(pod: &Pod, signal: u32) -> Result<()> {
    let (_sandbox, container) = connect(pod).await?;
    container.signal(signal).await.map_err(|err| guest_error(&err))?;
    match container.resume().await {
        Err(err) if err.code() != Code::FailedPrecondition => log::debug!("{err}"),
        Ok(()) | Err(_) => {} // it goes on, or was not paused
    }
    Ok(())
}

/// What a pod's guest noted of its boot: a living guest is asked; an exited pod's record has what it said.
pub async fn receipt_of(pod: &Pod) -> Result<GuestReceipt> {
    if let Some(receipt) = &pod.state.receipt {
        return Ok(receipt.clone());
    }
    let (sandbox, _container) = connect(pod).await?;
    receipt(&sandbox).await
}

/// What the guest noted of its boot.
pub async fn receipt(sandbox: &Sandbox) -> Result<GuestReceipt> {
    let receipt = sandbox.boot_receipt().await.map_err(|err| guest_error(&err))?;
    let step = |step: BootStep| GuestStep {
        name: step.name,
        monotonic_ns: u64::try_from(step.monotonic.as_nanos()).unwrap_or(u64::MAX),
    };
    Ok(GuestReceipt {
        steps: receipt.steps.into_iter().map(step).collect(),
        boot_mode: receipt.boot_mode,
        root_fstype: receipt.root_fstype,
        root_dax: receipt.root_dax,
        root_verity: receipt.root_verity,
        mem_total_bytes: receipt.mem_total_bytes,
        mem_available_bytes: receipt.mem_available_bytes,
    })
}

/// Ends the pod: its stop signal, SIGKILL after `grace`, and its host if the guest does not answer. Returns when the
/// host, and with it the VM, is gone. A pod that has exited is stopped already.
pub async fn stop(pod: &Pod, grace: Duration) -> Result<()> {
    if !pod.is_hosted()? {
        return Ok(());
    }
    if matches!(pod.state.status, Status::Booting) {
        signal_host(pod, Signal::TERM)?;
        return end(pod).await;
    }
    let gentle = stop_signal(&pod.state.stop_signal);
    for (number, patience) in [(gentle, grace), (SIGKILL, POWER_OFF)] {
        if patience.is_zero() {
            continue;
        }
        match timeout(CONNECT, ask_to_end(pod, number)).await {
            Ok(Ok(())) => {}
            // It may have ended in this moment; if it has not, the next step is harder.
            Ok(Err(err)) => log::debug!("signal {number}: {}", err.message()),
            Err(_) => log::debug!("signal {number}: the guest does not answer"),
        }
        if gone_within(pod, patience).await? {
            return Ok(());
        }
    }
    end(pod).await
}

/// The host does not see its container end, or waits for somebody in front who does not read: it is told not to; then the
/// VM is ended, which it sees; then the host, and its heir sees it.
async fn end(pod: &Pod) -> Result<()> {
    if pod.state.pod.is_some() {
        return Err(Error::new("its container does not end"));
    }
    hurry(pod)?;
    if gone_within(pod, POWER_OFF).await? {
        return Ok(());
    }
    hyperstart_vmm::end_processes(&pod.dir)?;
    if gone_within(pod, POWER_OFF).await? {
        return Ok(());
    }
    signal_host(pod, Signal::KILL)?;
    if gone_within(pod, POWER_OFF).await? {
        return Ok(());
    }
    Err(Error::new(format!("its host (pid {}) does not end", pod.state.host_pid)))
}

/// Has a pod's host end it, or go on with that without waiting for anybody. A further container has none of its own.
pub fn hurry(pod: &Pod) -> Result<()> {
    if pod.state.pod.is_some() {
        return Ok(());
    }
    signal_host(pod, Signal::TERM)
}

async fn gone_within(pod: &Pod, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    while pod.is_hosted()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(POLL).await;
    }
    Ok(true)
}

/// Waits until nothing of it is left but its record.
pub async fn gone(dir: &Path) -> Result<()> {
    while hosted::is_hosted(dir)? {
        sleep(POLL).await;
    }
    Ok(())
}

fn signal_host(pod: &Pod, signal: Signal) -> Result<()> {
    let operation = || format!("signal host of pod {:?}", pod.state.name);
    // Read anew: it may be an heir by now.
    let Ok(state) = State::load(&pod.dir) else { return Ok(()) };
    let Some(pid) = Pid::from_raw(state.host_pid) else {
        return Err(Error::new("no pid is known")).context(operation);
    };
    let host = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(host) => host,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(err) => return Err(err).context(operation),
    };
    // Asked after the pidfd was taken: the pid is the host's, if the lock is held and the record still names it.
    let same = State::load(&pod.dir).is_ok_and(|now| now.host_pid == state.host_pid);
    if !same || !hosted::is_locked(&pod.dir)? {
        return Ok(());
    }
    match pidfd_send_signal(host, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(err) => Err(err).context(operation),
    }
}

/// An image may ask for another signal; one that it misspells is not a reason not to stop it.
pub fn stop_signal(text: &str) -> u32 {
    if text.is_empty() {
        return SIGTERM;
    }
    signals::parse(text).unwrap_or(SIGTERM)
}

/// No answer: the connection was lost, or the guest is slow. What may be done twice is asked again.
pub fn may_pass(err: &hyperstart::Error) -> bool {
    matches!(err.code(), Code::Unavailable | Code::DeadlineExceeded)
}

/// An answer of the guest, or of host-lib.
pub fn guest_error(err: &hyperstart::Error) -> Error {
    Error::new(err.to_string()).with_lost(may_pass(err))
}

/// The same for a command that the user gave, with docker's exit codes. Which container or exec it was to be in are ids
/// that the user has not given and cannot use.
pub fn command_error(err: &hyperstart::Error) -> Error {
    match exit_code(err.code(), err.message()) {
        Some(COMMAND_NOT_FOUND) => Error::new(err.message())
            .with_code(COMMAND_NOT_FOUND)
            .hint("the command must be a program in the container's image"),
        Some(code) => {
            Error::new(err.message()).with_code(code).hint("the command must be an executable file")
        }
        None if may_pass(err) => guest_error(err),
        None if err.message().ends_with("it is paused") => {
            Error::new(err.message()).hint("`hyperctl unpause` lets it go on")
        }
        None => Error::new(err.message()),
    }
}

/// 127 and 126 speak of the command alone: a missing directory or user is a failure of ours to run it.
fn exit_code(code: Code, message: &str) -> Option<u8> {
    let of_command = message.contains("exec \"");
    match code {
        Code::NotFound if of_command => Some(COMMAND_NOT_FOUND),
        Code::PermissionDenied if of_command => Some(CANNOT_EXECUTE),
        _ => None, // hyperstart::Code is non-exhaustive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_exit_codes_are_of_the_command_only() {
        let missing = "exec \"foo\": ENOENT: No such file or directory";
        assert_eq!(exit_code(Code::NotFound, missing), Some(127));
        let directory = "exec \"/tmp\": EACCES: Permission denied";
        assert_eq!(exit_code(Code::PermissionDenied, directory), Some(126));
        assert_eq!(exit_code(Code::NotFound, "cwd \"/x\": ENOENT"), None);
        assert_eq!(exit_code(Code::Unavailable, "exec \"foo\": connection lost"), None);
    }

    #[test]
    fn an_image_chooses_its_stop_signal() {
        assert_eq!(stop_signal(""), SIGTERM);
        assert_eq!(stop_signal("SIGQUIT"), 3);
        assert_eq!(stop_signal("nonsense"), SIGTERM);
    }
}
