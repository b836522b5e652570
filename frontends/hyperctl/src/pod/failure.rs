//! What a VM's end, or its being out of reach, is for the pod's host: told by its cause, or a reason to give way.

use std::time::Duration;

use hyperstart_vmm::{Error as VmError, Exit, Vm};
use rustix::process::{Signal, getpid, kill_process};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::output;

/// From the first symptom of a dead VM to the fact.
pub const AFTERMATH: Duration = Duration::from_millis(500);

/// Waits until the VM ends or can no longer be reached, and says which.
pub async fn failure(vm: &Vm) -> Error {
    let broken = tokio::select! {
        exit = vm.wait() => return ended(vm, exit),
        broken = vm.broken() => broken,
    };
    match timeout(AFTERMATH, vm.wait()).await {
        Ok(exit) => ended(vm, exit),
        // A line can be made again.
        Err(_) => {
            let lost = matches!(broken, VmError::Transport { .. });
            Error::from(broken).with_lost(lost)
        }
    }
}

/// A call that found the guest out of reach is a symptom: an end of the VM says more.
pub async fn explained<T>(vm: &Vm, outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(err) if err.is_lost() => match timeout(AFTERMATH, failure(vm)).await {
            Ok(cause) => Err(cause),
            Err(_) => Err(err),
        },
        outcome => outcome,
    }
}

/// The VM ended and nobody asked it to. The kernel's own words, if it had any, say more than QEMU's exit.
fn ended(vm: &Vm, exit: Exit) -> Error {
    match vm.console().panic() {
        Some(panic) => Error::new(format!("the guest kernel panicked: {panic}")),
        None => Error::new(format!("the VM ended before its container: qemu {exit}")),
    }
    .hint("`hyperctl console POD` shows the guest's last words, unless it was run with --rm")
}

/// Out of reach is not gone. What an heir does is all that can be done: everything anew, for as long as the VM lives; so
/// this process ends as a killed one does, and its guardian starts one. Returns if `err` says something else.
pub fn give_way(vm: &Vm, err: &Error) {
    if !err.is_lost() || vm.has_ended() {
        return;
    }
    output::warn(format_args!("{}; another host takes over", err.message()));
    if let Err(err) = kill_process(getpid(), Signal::KILL) {
        output::warn(format_args!("give way: {err}")); // cannot be
    }
}
