//! The pods of this user: one directory each below the state directory, and the rules by which they come and go.
//!
//! ```text
//! <state>/lock             held while a pod is entered, looked for stale, kept or removed: names cannot race
//! <state>/pods/            0700
//!     <id>/                0700
//!         lock             flock: exclusive while a process hosts the pod, however that ends
//!         guard            flock: exclusive while a guardian stands by for that
//!         state.json  disks.json  output.log  console.log  qemu.log  host.log
//!         vm/              the VM's sockets
//!         control.sock     where the host hears of who is attached, and of further containers
//!         containers/<id>/ one of them each: lock, state.json, output.log
//! ```
//! Whether a pod is hosted is asked of the kernel (its lock is held), not of a pid that may be another's by now. While it
//! lives, a guardian (`vmm::RunDir`) stands by its directory and starts an heir when the host is killed; the record of an
//! exited pod has none. Should the guardian be killed too, the next command that looks appoints another, and ends what
//! is left of a pod that never ran.

use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use hyperstart_vmm::{RunDir, end_remains};

use crate::commands::POLL;
use crate::error::{Context as _, Error, Result};
use crate::pod::hosted::{
    self, CONTAINERS, appoint_heir, heir, is_guarded, is_locked, is_running, open_lock,
};
use crate::pod::name;
use crate::pod::state::{State, Status};

const STATE_DIR_VARIABLE: &str = "HYPERSTART_STATE_DIR";
/// How often an heir tries to lock what it takes over.
const LOCK_TRIES: u32 = 100;
/// As many digits as docker shows.
const ID_BYTES: usize = 6;

/// The directory of all pods.
pub struct Store {
    pods: PathBuf,
    lock: PathBuf,
}

/// A pod as any hyperctl sees it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub dir: PathBuf,
    pub state: State,
}

/// A pod as its host has it: the lock says that the host lives.
pub struct Claim {
    pub dir: PathBuf,
    pub state: State,
    // In the order in which they are dropped: first the directory goes, then the sign that its host lives.
    guarded: RunDir,
    _lock: File,
}

impl Store {
    pub fn open() -> Result<Store> {
        Store::below(&state_dir()?)
    }

    pub fn below(state_dir: &Path) -> Result<Store> {
        let pods = state_dir.join("pods");
        make_dir(&pods)?;
        let meta = fs::metadata(&pods).context(|| format!("open state directory {pods:?}"))?;
        let us = rustix::process::geteuid().as_raw();
        if meta.uid() != us || meta.mode() & 0o077 != 0 {
            return Err(Error::new(format!(
                "open state directory {pods:?}: owner {} and mode {:o} let others in",
                meta.uid(),
                meta.mode() & 0o777
            ))
            .hint(format!("make it yours alone (mode 0700), or set {STATE_DIR_VARIABLE}")));
        }
        Ok(Store { pods, lock: state_dir.join("lock") })
    }

    /// Enters a new pod. `build` makes its state from the id; the name is taken as soon as this returns.
    pub fn claim(&self, build: impl FnOnce(String) -> State) -> Result<Claim> {
        let _store = self.lock()?;
        let taken = self.sweep()?;
        let id = unused_id(&taken)?;
        let state = build(id);
        name::check(&state.name)?;
        if let Some(other) = taken.iter().find(|pod| pod.state.name == state.name) {
            return Err(Error::new(format!(
                "name pod {:?}: pod {} has that name",
                state.name, other.state.id
            ))
            .hint(format!("`hyperctl rm -f {}` removes it", state.name)));
        }
        let dir = self.pods.join(&state.id);
        let heir = heir(&dir)?;
        enter(state, || RunDir::create_with_heir(&dir, heir))
    }

    /// Enters a further container of the pod that is `wanted`, which must run. `build` makes its state from the pod's and
    /// the container's id.
    pub fn claim_further(
        &self,
        wanted: &str,
        build: impl FnOnce(&State, String) -> State,
    ) -> Result<(Pod, Claim)> {
        let _store = self.lock()?;
        let taken = self.sweep()?;
        let id = unused_id(&taken)?;
        let names: Vec<String> = taken.iter().map(|pod| pod.state.name.clone()).collect();
        let pod = running(pick(taken, wanted)?)?;
        let state = build(&pod.state, id);
        let name = state.name.rsplit('/').next().unwrap_or_default();
        name::check(name)?;
        if names.contains(&state.name) || name == pod.state.name {
            return Err(Error::new(format!("the pod has a container of the name {name:?}")));
        }
        let dir = pod.dir.join(CONTAINERS).join(&state.id);
        let claim = enter(state, || RunDir::unguarded(&dir))?;
        Ok((pod, claim))
    }

    /// Takes over a pod, or a further container, whose host was killed.
    pub fn inherit(&self, dir: &Path) -> Result<Claim> {
        let path = dir.join("lock");
        let mut lock = open_lock(&path)?;
        // The kernel takes its time over one that was killed, and others look whether it is locked.
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    let state = State::load(dir)?;
                    let guarded = RunDir::inherit(dir);
                    return Ok(Claim { dir: dir.to_path_buf(), state, guarded, _lock: lock });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
                Err(TryLockError::Error(err)) => {
                    return Err(err).context(|| format!("lock {path:?}"));
                }
            }
            lock = open_lock(&path)?;
        }
        Err(Error::new(format!("lock {path:?}: another process hosts it")))
    }

    /// The further containers of a pod, for its heir.
    pub fn further(pod: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(pod.join(CONTAINERS)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// All pods and their further containers, oldest first.
    pub fn list(&self) -> Result<Vec<Pod>> {
        let _store = self.lock()?;
        self.sweep()
    }

    /// The pod of this name, id, or unique beginning of an id.
    pub fn find(&self, wanted: &str) -> Result<Pod> {
        pick(self.list()?, wanted)
    }

    /// The pod that is wanted, which must run and be one.
    pub fn find_running(&self, wanted: &str) -> Result<Pod> {
        running(self.find(wanted)?)
    }

    /// The container of that name in the pod; without a name its first one.
    pub fn find_container(&self, pod: &str, container: Option<&str>) -> Result<Pod> {
        let pod = self.find(pod)?;
        match container {
            None => Ok(pod),
            Some(name) if name == pod.state.name => Ok(pod),
            Some(name) => self.find(&format!("{}/{name}", pod.state.name)),
        }
    }

    /// Forgets a pod whose host is gone.
    pub fn remove(&self, pod: &Pod) -> Result<()> {
        let _store = self.lock()?;
        end_remains(&pod.dir)?; // none, but of a host killed at its very end
        remove_dir(&pod.dir)
    }

    /// Reads all pods and removes what is stale. The store is locked, so nothing here is half-made by a living host.
    fn sweep(&self) -> Result<Vec<Pod>> {
        let mut pods = list_dir(&self.pods)?;
        pods.retain(|pod| match look_after(pod) {
            Ok(lives) => lives,
            Err(err) => {
                crate::output::warn(err.message());
                true
            }
        });
        let mut further = Vec::new();
        for pod in &pods {
            further.extend(list_dir(&pod.dir.join(CONTAINERS))?);
        }
        pods.append(&mut further);
        pods.sort_by(|a, b| (a.state.created, &a.state.id).cmp(&(b.state.created, &b.state.id)));
        Ok(pods)
    }

    fn lock(&self) -> Result<File> {
        let lock = open_lock(&self.lock)?;
        lock.lock().context(|| format!("lock {:?}", self.lock))?;
        Ok(lock)
    }
}

/// What is there, but for what can be nobody's. A directory that is not there has none.
fn list_dir(parent: &Path) -> Result<Vec<Pod>> {
    let operation = || format!("list {parent:?}");
    let mut found = Vec::new();
    let entries = match fs::read_dir(parent) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.context(operation)?,
    };
    for entry in entries {
        let dir = entry.context(operation)?.path();
        if !dir.is_dir() {
            continue;
        }
        match State::load(&dir) {
            Ok(state) => found.push(Pod { dir, state }),
            // Unreadable and alive: another version's, not ours to remove, and not to be silent about.
            Err(err) if is_locked(&dir)? || is_guarded(&dir)? => {
                if dir.exists() {
                    crate::output::warn(err.message());
                }
            }
            Err(_) => remove_dir(&dir)?,
        }
    }
    Ok(found)
}

/// Sees to it that a pod whose host was killed gets another. False: it never ran, and is removed.
fn look_after(pod: &Pod) -> Result<bool> {
    let unhosted = !is_locked(&pod.dir)? && !is_guarded(&pod.dir)?;
    match pod.state.status {
        Status::Booting if unhosted => {
            end_remains(&pod.dir)?;
            remove_dir(&pod.dir).map(|()| false)
        }
        // Looked at anew: it may have ended since.
        Status::Running { .. } if unhosted && is_running(&pod.dir) => {
            appoint_heir(&pod.dir).map(|()| true)
        }
        Status::Booting | Status::Running { .. } | Status::Exited { .. } => Ok(true),
    }
}

/// The store is locked: nobody sees the directory before it is complete.
fn enter(state: State, make: impl FnOnce() -> hyperstart_vmm::Result<RunDir>) -> Result<Claim> {
    let guarded = make()?;
    let dir = guarded.path().to_path_buf();
    let lock = open_lock(&dir.join("lock"))?;
    lock.lock().context(|| format!("lock pod {:?}", state.name))?;
    state.save(&dir)?;
    Ok(Claim { dir, state, guarded, _lock: lock })
}

impl Pod {
    /// Whether it is still to end. Between a host that was killed and its heir a pod is hosted too.
    pub fn is_hosted(&self) -> Result<bool> {
        hosted::is_hosted(&self.dir)
    }
}

impl Claim {
    /// Writes the state as it is now.
    pub fn save(&self) -> Result<()> {
        self.state.save(&self.dir)
    }

    /// Leaves the record. Its guardian has nothing more to do, and should it have: an heir finds that out.
    pub fn keep(self) -> Result<()> {
        self.save()?;
        self.guarded.leave();
        Ok(())
    }
}

/// Refuses what is no pod, or does not run.
fn running(pod: Pod) -> Result<Pod> {
    if let Some(of) = &pod.state.pod {
        return Err(Error::new(format!("it is a container of pod {of:?}, and no pod"))
            .hint(format!("--pod {of}")));
    }
    match pod.state.status {
        Status::Running { .. } => Ok(pod),
        Status::Booting => Err(Error::new("the pod is still booting")),
        Status::Exited { .. } => Err(Error::new("the pod has exited")),
    }
}

/// Name, then id, then the beginning of an id; two candidates are an error, not a guess.
fn pick(pods: Vec<Pod>, wanted: &str) -> Result<Pod> {
    let exact = pods.iter().position(|pod| pod.state.name == wanted || pod.state.id == wanted);
    let begins = |pod: &Pod| !wanted.is_empty() && pod.state.id.starts_with(wanted);
    let several = pods.iter().filter(|pod| begins(pod)).count();
    let index = match exact.or_else(|| pods.iter().position(begins)) {
        Some(_) if exact.is_none() && several > 1 => {
            return Err(Error::new(format!("find pod {wanted:?}: {several} ids begin so"))
                .hint("give more digits; `hyperctl ps -a` lists the pods"));
        }
        Some(index) => index,
        None => {
            return Err(Error::new(format!("find pod {wanted:?}: no such pod"))
                .hint("`hyperctl ps -a` lists the pods"));
        }
    };
    pods.into_iter()
        .nth(index)
        .ok_or_else(|| Error::new(format!("find pod {wanted:?}: no such pod")))
}

fn unused_id(taken: &[Pod]) -> Result<String> {
    loop {
        let id = name::random_hex::<ID_BYTES>()?;
        if !taken.iter().any(|pod| pod.state.id == id) {
            return Ok(id);
        }
    }
}

fn state_dir() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = variable(STATE_DIR_VARIABLE) {
        return std::path::absolute(&dir).context(|| format!("open state directory {dir:?}"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/run/hyperstart"));
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => Ok(dir.join("hyperstart")),
        None => Err(Error::new("open state directory: XDG_RUNTIME_DIR is not set")
            .hint(format!("set {STATE_DIR_VARIABLE} to a directory of yours"))),
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).context(|| format!("make directory {dir:?}"))
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).context(|| format!("remove {dir:?}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::state::Vm;

    fn named(name: &str) -> impl FnOnce(String) -> State {
        let name = name.to_string();
        move |id| State::new(id, name, "busybox".into(), Vm::default())
    }

    #[tokio::test]
    async fn a_name_is_taken_while_its_host_lives_and_free_after() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path()).unwrap();
        let claim = store.claim(named("web")).unwrap();
        let err = store.claim(named("web")).err().unwrap();
        assert!(err.to_string().contains("has that name"), "{err}");
        drop(claim);
        assert!(store.claim(named("web")).is_ok());
    }

    #[tokio::test]
    async fn a_dropped_claim_leaves_nothing_and_a_kept_one_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path()).unwrap();
        drop(store.claim(named("failed")).unwrap());
        let mut done = store.claim(named("done")).unwrap();
        done.state.status = Status::Exited { at: 1, exit_code: 7, error: None };
        done.keep().unwrap();
        let names = |pods: Vec<Pod>| -> Vec<String> {
            pods.into_iter().map(|pod| pod.state.name).collect()
        };
        assert_eq!(names(store.list().unwrap()), ["done"]);
        let left = fs::read_dir(dir.path().join("pods")).unwrap().count();
        assert_eq!(left, 1, "the exited pod");
        let pod = store.find("done").unwrap();
        assert!(!pod.is_hosted().unwrap());
        store.remove(&pod).unwrap();
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn what_a_killed_guardian_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path()).unwrap();
        let stale = dir.path().join("pods/0123456789ab");
        fs::create_dir(&stale).unwrap();
        named("stale")("0123456789ab".into()).save(&stale).unwrap();
        fs::create_dir(dir.path().join("pods/.half-made")).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("pods")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn pods_are_found_by_name_id_and_unique_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(dir.path()).unwrap();
        let web = store.claim(named("web")).unwrap();
        let id = web.state.id.clone();
        assert_eq!(store.find("web").unwrap().state.id, id);
        assert_eq!(store.find(&id).unwrap().state.name, "web");
        assert_eq!(store.find(&id[..6]).unwrap().state.name, "web");
        assert!(store.find("nope").unwrap_err().to_string().contains("no such pod"));
        assert!(store.find("").is_err());
    }

    #[test]
    fn an_ambiguous_prefix_is_refused() {
        let pods = ["aa01", "aa02"].map(|id| Pod {
            dir: PathBuf::new(),
            state: State::new(id.into(), format!("pod-{id}"), "busybox".into(), Vm::default()),
        });
        let err = pick(pods.into(), "aa").unwrap_err();
        assert!(err.to_string().contains("2 ids begin so"), "{err}");
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        fs::create_dir(&pods).unwrap();
        fs::set_permissions(&pods, fs::Permissions::from_mode(0o755)).unwrap();
        let err = Store::below(dir.path()).err().unwrap();
        assert!(err.to_string().contains("let others in"), "{err}");
    }
}
