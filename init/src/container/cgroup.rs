//! A container's cgroup (cgroup v2): made with its limits before the first process is born in it, removed when the
//! last is gone.
//!
//! PID 1 stays in the root cgroup. The directories between the root and a container's are made on demand, pass on
//! every controller that they have, and are removed with the last container below them.

use std::cell::Cell;
use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::time::{Instant, sleep};

use super::id::ContainerId;
use super::spec::{DeviceRule, Resources};
use super::{device_rules, limits};
use crate::error::{Code, Context, Error, Result};
use crate::reaper::Reaper;
use crate::sys::CGROUP_ROOT;
use crate::textfile::{number, read_optional};

/// How long removal waits for processes that are being killed. They die at once unless the kernel holds them.
const REMOVE_DEADLINE: Duration = Duration::from_secs(10);

/// A cgroup of our own. Dropped without `remove`, what is in it is killed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    removed: Cell<bool>,
}

impl Cgroup {
    /// Makes the cgroup of a container and sets its limits.
    pub fn create(id: &ContainerId, path: Option<&str>, resources: &Resources) -> Result<Self> {
        let relative = path.map_or_else(|| format!("hyperstart/{id}"), str::to_owned);
        let path = Path::new(CGROUP_ROOT).join(&relative);
        let made = make_parents(Path::new(CGROUP_ROOT), &relative)
            .and_then(|()| fs::create_dir(&path).context(|| format!("make cgroup {relative:?}")));
        if let Err(err) = made {
            remove_empty_parents(&path);
            return Err(err);
        }
        limited(&path, resources).map_err(|err| match remove_tree(&path) {
            Ok(()) => {
                remove_empty_parents(&path);
                err
            }
            Err(left) => Error::new(err.code(), format!("{err}; and {path:?} is left: {left}")),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Limits its use of disks.
    pub async fn limit_io(&self, resources: &Resources, reaper: &Reaper) -> Result<()> {
        limits::apply_io(&self.path, resources, reaper).await
    }

    /// Refuses every device that the rules do not allow, from now on.
    pub fn enforce_device_rules(&self, rules: &[DeviceRule]) -> Result<()> {
        device_rules::enforce(self.as_fd(), rules)
    }

    /// SIGKILL to every process in it and below, those being forked included (`cgroup.kill`).
    pub fn kill(&self) -> Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
            .context(|| format!("kill cgroup {:?}", self.path))
    }

    /// Whether a process in it was killed for want of memory (`memory.events`).
    pub fn lost_to_oom(&self) -> bool {
        number(&read_optional(&self.path.join("memory.events")), "oom_kill") > 0
    }

    /// Kills what is left in it and removes it. To remove it twice is no error.
    pub async fn remove(&self) -> Result<()> {
        kill_and_remove(self.path.clone()).await?;
        self.removed.set(true);
        Ok(())
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Nothing can be waited for here, so what is busy dying stays; only a container that nobody removed comes here.
impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.removed.get() {
            return;
        }
        if let Err(err) = self.kill().and_then(|()| Ok(remove_tree(&self.path)?)) {
            log::warn!("cgroup {:?} is left: {err}", self.path);
        }
    }
}

/// The cgroup of a process, which may be one that its container has made (`0::/path` of proc_pid_cgroup(5)).
pub fn of_process(pid: Pid) -> Result<OwnedFd> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let relative = membership.trim_end().strip_prefix("0::/").unwrap_or_default();
    open(&Path::new(CGROUP_ROOT).join(relative))
}

fn open(path: &Path) -> Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Sets the limits of a cgroup that was just made.
fn limited(path: &Path, resources: &Resources) -> Result<Cgroup> {
    limits::apply(path, resources)?;
    Ok(Cgroup { path: path.to_owned(), directory: open(path)?, removed: Cell::new(false) })
}

/// Makes the directories above `relative`'s last component, each handing its controllers on.
fn make_parents(root: &Path, relative: &str) -> Result<()> {
    let mut path = root.to_owned();
    let Some((parents, _)) = relative.rsplit_once('/') else { return Ok(()) };
    for name in parents.split('/') {
        path.push(name);
        let make = || -> io::Result<()> {
            match fs::create_dir(&path) {
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(err) => Err(err),
                Ok(()) => delegate(&path),
            }
        };
        make().context(|| format!("make cgroup {path:?}"))?;
    }
    Ok(())
}

fn delegate(path: &Path) -> io::Result<()> {
    let controllers = fs::read_to_string(path.join("cgroup.controllers"))?;
    let enable: Vec<String> =
        controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(path.join("cgroup.subtree_control"), enable.join(" "))
}

async fn kill_and_remove(path: PathBuf) -> Result<()> {
    let deadline = Instant::now() + REMOVE_DEADLINE;
    let mut pause = Duration::from_millis(1);
    loop {
        let tried = fs::write(path.join("cgroup.kill"), "1").and_then(|()| remove_tree(&path));
        match tried {
            Ok(()) => break,
            Err(err) if err.kind() == io::ErrorKind::NotFound => break,
            Err(err) if is_busy(&err) && Instant::now() < deadline => {}
            Err(err) => return Err(err).context(|| format!("remove cgroup {path:?}")),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    remove_empty_parents(&path);
    Ok(())
}

fn is_busy(err: &io::Error) -> bool {
    err.raw_os_error() == Some(Errno::EBUSY as i32)
}

/// A container may have made cgroups below its own; they go first.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_dir(&entry)? {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn is_dir(entry: &DirEntry) -> io::Result<bool> {
    Ok(entry.file_type()?.is_dir())
}

/// Up to the first that another container is still below (EBUSY), or the root.
fn remove_empty_parents(path: &Path) {
    for parent in path.ancestors().skip(1).take_while(|parent| *parent != Path::new(CGROUP_ROOT)) {
        if fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

/// A path below the root of the cgroup filesystem, from what OCI's `linux.cgroupsPath` says: it may begin with a slash
/// and never leads up. systemd's `slice:prefix:name` is taken as the name of a directory.
pub fn normalised(path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let refuse = |why: &str| {
        Err(Error::new(Code::InvalidArgument, format!("linux.cgroupsPath {path:?}: {why}")))
    };
    if parts.contains(&"..") {
        return refuse("leads up");
    }
    if parts.len() > DEPTH_MAX || parts.iter().any(|part| part.len() > 255) {
        return refuse("too long");
    }
    // The kernel's own files (cgroup.procs, memory.max) are named so.
    let reserved = |part: &&str| {
        part.starts_with("cgroup.") || part.bytes().any(|byte| byte.is_ascii_control())
    };
    if parts.iter().any(reserved) {
        return refuse("not a name for a cgroup");
    }
    Ok(parts.join("/"))
}

const DEPTH_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_path_stays_below_the_root() {
        assert_eq!(
            normalised("/kubepods//burstable/./pod1/c1/").unwrap(),
            "kubepods/burstable/pod1/c1"
        );
        assert_eq!(
            normalised("system.slice:cri-containerd:c1").unwrap(),
            "system.slice:cri-containerd:c1"
        );
        assert_eq!(normalised("").unwrap(), "");
        for bad in ["../x", "a/../../b", "cgroup.procs", &"a/".repeat(17), &"x".repeat(256), "a\n"]
        {
            assert_eq!(normalised(bad).unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
        }
    }
}
