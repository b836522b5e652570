//! Whether what is in a pod's directory is hosted. The kernel is asked (a lock is held), not a pid that may be another's
//! by now: `lock` is the host's, `guard` that of the guardian who stands by for when the host is killed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hyperstart_vmm::{Heir, rundir};

use crate::error::{Context as _, Result};
use crate::pod::state::{State, Status};

/// Of a pod: its further containers.
pub const CONTAINERS: &str = "containers";

/// The directory of the pod that a further container's directory is in; another's is its own.
pub fn pod_dir(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.ends_with(CONTAINERS) => parent.parent().unwrap_or(dir),
        Some(_) | None => dir,
    }
}

/// Whether what is in this directory is still to end.
pub fn is_hosted(dir: &Path) -> Result<bool> {
    if is_locked(dir)? {
        return Ok(true);
    }
    let Ok(state) = State::load(dir) else { return is_locked(dir) };
    if matches!(state.status, Status::Exited { .. }) {
        return is_locked(dir);
    }
    let pod = pod_dir(dir);
    if !is_locked(pod)? && !is_guarded(pod)? && is_running(pod) {
        appoint_heir(pod)?;
    }
    // A further container without its pod is a record that nobody will end; one that never ran goes with its host.
    Ok(dir.exists() && (is_locked(pod)? || is_guarded(pod)? || is_running(pod)))
}

/// Whether a process hosts it in this moment. Asked by a shared lock, so that two who ask at once do not take each other
/// for the host.
pub fn is_locked(dir: &Path) -> Result<bool> {
    let path = dir.join("lock");
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(err).context(|| format!("open {path:?}")),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(err)) => Err(err).context(|| format!("lock {path:?}")),
    }
}

/// Whether a guardian stands by for it.
pub fn is_guarded(dir: &Path) -> Result<bool> {
    Ok(rundir::is_guarded(dir)?)
}

/// Whether its record says that it runs.
pub fn is_running(dir: &Path) -> bool {
    State::load(dir).is_ok_and(|state| matches!(state.status, Status::Running { .. }))
}

/// Gives it another guardian, who starts an heir.
pub fn appoint_heir(dir: &Path) -> Result<()> {
    rundir::appoint(dir, heir(dir)?)?;
    Ok(())
}

/// This program, as the host of a pod that had another.
pub fn heir(dir: &Path) -> Result<Heir> {
    let program = File::open("/proc/self/exe").context(|| "open hyperctl itself".into())?;
    let words = ["host".into(), "--adopt".into(), dir.as_os_str().to_owned()].into();
    Ok(Heir { program, words })
}

pub fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options.open(path).context(|| format!("open {path:?}"))
}
