//! Which storages are mounted, and who still needs them.
//!
//! The same mount point asked for twice is one mount with two owners, and goes with the last of them; a shared one goes
//! with the sandbox. Mounts that wait for a device or a peer are made by a child; all of them are undone by one, in
//! reverse order.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;

use super::plan::{MountPlan, Plan, plan};
use super::{Storage, carry_out, check_mount_point, layers, mkfs, watchable};
use crate::error::{Code, Context, Result};
use crate::log;
use crate::offload;
use crate::reaper::Reaper;
use crate::uevent::Uevents;

/// For all unmounts of one request, and for one look at a share.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Mounted {
    mount_point: PathBuf,
    owners: usize,
    /// The sandbox is one more owner.
    shared: bool,
    /// Memory of the guest's, whose size may be changed.
    is_ephemeral: bool,
    /// What it is a copy of, which is to be kept up to date.
    watched: Option<PathBuf>,
    plan: Plan,
}

/// The table of mounts, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Storages {
    mounted: RefCell<Vec<Mounted>>,
    /// A copy is there that is to be kept up to date.
    watches: Notify,
    /// Held while something is mounted or unmounted, so that nobody takes half a mount for a whole one.
    changing: Mutex<()>,
}

impl Storages {
    /// Mounts all of `storages`, or none of them.
    pub async fn add_all(
        &self,
        storages: &[Storage],
        uevents: &Uevents,
        device_timeout: Duration,
        reaper: &Reaper,
    ) -> Result<Vec<PathBuf>> {
        let storages = layers::expand(storages)?;
        let mut added = Vec::with_capacity(storages.len());
        let mut shared = Vec::new();
        for storage in storages.iter() {
            match self.add(storage, uevents, device_timeout, reaper).await {
                Ok(became_shared) => {
                    added.push(storage.mount_point.clone());
                    shared.extend(became_shared.then(|| storage.mount_point.clone()));
                }
                Err(err) => {
                    self.unshare(&shared);
                    self.remove_all(&added, reaper).await;
                    return Err(err).context(|| format!("storage {:?}", storage.mount_point));
                }
            }
        }
        Ok(added)
    }

    /// Whether the sandbox has become an owner by it.
    async fn add(
        &self,
        storage: &Storage,
        uevents: &Uevents,
        device_timeout: Duration,
        reaper: &Reaper,
    ) -> Result<bool> {
        check_mount_point(&storage.mount_point)?;
        let plan = plan(storage, uevents, device_timeout, reaper).await?;
        let _changing = self.changing.lock().await;
        if let Some(became_shared) = self.add_owner(storage) {
            return Ok(became_shared);
        }
        if let Plan::Mount(MountPlan { source, creates: true, .. }) = &plan {
            mkfs::make(source, reaper).await?;
        }
        if plan.may_block() {
            offload::run(reaper, plan.deadline(), || carry_out(&plan, &storage.mount_point))
                .await?;
        } else {
            carry_out(&plan, &storage.mount_point)?;
        }
        let (mount_point, shared) = (storage.mount_point.clone(), storage.shared);
        let is_ephemeral = storage.driver == "ephemeral";
        let watched = match &plan {
            Plan::Watched { source } if watchable::is_copy(&mount_point) => Some(source.clone()),
            Plan::Watched { .. } | Plan::Mount(_) | Plan::Directory { .. } => None,
        };
        let mounted = Mounted { mount_point, owners: 1, shared, is_ephemeral, watched, plan };
        self.mounted.borrow_mut().push(mounted);
        self.watches.notify_one();
        Ok(shared)
    }

    /// Keeps copies up to date, for as long as the guest lives.
    pub async fn watch(&self, reaper: &Reaper) -> Result<()> {
        loop {
            let watched = self.watched();
            if watched.is_empty() {
                self.watches.notified().await;
                continue;
            }
            sleep(watchable::INTERVAL).await;
            for (source, mount_point) in watched.iter().filter(|(_, to)| self.has(to)) {
                let update = || match watchable::is_copy(mount_point) {
                    true => watchable::update(source, mount_point),
                    false => Ok(()), // it is being unmounted
                };
                match offload::run(reaper, UNMOUNT_DEADLINE, update).await {
                    Err(err) if err.code() == Code::ResourceExhausted => {
                        log::warn!("watch {source:?}: {err}: it stays as it is");
                        self.unwatch(mount_point);
                    }
                    Err(err) => log::debug!("watch {source:?}: {err}"), // the next look may do better
                    Ok(()) => {}
                }
            }
        }
    }

    fn watched(&self) -> Vec<(PathBuf, PathBuf)> {
        let mounted = self.mounted.borrow();
        let pair = |entry: &Mounted| Some((entry.watched.clone()?, entry.mount_point.clone()));
        mounted.iter().filter_map(pair).collect()
    }

    fn unwatch(&self, mount_point: &Path) {
        for entry in self.mounted.borrow_mut().iter_mut() {
            if entry.mount_point == mount_point {
                entry.watched = None;
            }
        }
    }

    /// Whether something of the host's is mounted there.
    pub fn has(&self, mount_point: &Path) -> bool {
        self.mounted.borrow().iter().any(|entry| entry.mount_point == mount_point)
    }

    /// What `look` finds at the ephemeral storage that is mounted there.
    pub(super) fn with_ephemeral<T>(
        &self,
        mount_point: &Path,
        look: impl FnOnce(&Plan) -> T,
    ) -> Option<T> {
        let mounted = self.mounted.borrow();
        let entry = mounted.iter().find(|entry| entry.mount_point == mount_point)?;
        entry.is_ephemeral.then(|| look(&entry.plan))
    }

    /// None: nothing is mounted there yet. Else whether the sandbox has become an owner by it.
    fn add_owner(&self, storage: &Storage) -> Option<bool> {
        let mut mounted = self.mounted.borrow_mut();
        let entry = mounted.iter_mut().find(|entry| entry.mount_point == storage.mount_point)?;
        entry.owners += 1;
        let became_shared = storage.shared && !entry.shared;
        entry.shared |= storage.shared;
        Some(became_shared)
    }

    fn unshare(&self, mount_points: &[PathBuf]) {
        for entry in self.mounted.borrow_mut().iter_mut() {
            entry.shared &= !mount_points.contains(&entry.mount_point);
        }
    }

    /// Takes down what stayed for the sandbox, which ends; what containers still have stays theirs.
    pub async fn remove_shared(&self, reaper: &Reaper) {
        let _changing = self.changing.lock().await;
        let mut unowned = Vec::new();
        for mut entry in self.mounted.take() {
            entry.shared = false;
            match entry.owners {
                0 => unowned.push(entry),
                _ => self.mounted.borrow_mut().push(entry),
            }
        }
        unowned.reverse();
        self.take_down(&unowned, reaper).await;
    }

    /// Gives up one ownership of each; what has no owner left is taken down, last mounted first.
    pub async fn remove_all(&self, mount_points: &[PathBuf], reaper: &Reaper) {
        let _changing = self.changing.lock().await;
        let unowned: Vec<Mounted> = mount_points
            .iter()
            .rev()
            .filter_map(|mount_point| self.remove_owner(mount_point))
            .collect();
        self.take_down(&unowned, reaper).await;
    }

    async fn take_down(&self, unowned: &[Mounted], reaper: &Reaper) {
        if unowned.is_empty() {
            return;
        }
        if let Err(err) = offload::run(reaper, UNMOUNT_DEADLINE, || take_down_all(unowned)).await {
            log::warn!("{err}"); // the owner is gone already: there is no reply to put it in
        }
    }

    /// Takes an entry that lost its last owner out of the table.
    fn remove_owner(&self, mount_point: &Path) -> Option<Mounted> {
        let mut mounted = self.mounted.borrow_mut();
        let index = mounted.iter().position(|entry| entry.mount_point == mount_point)?;
        let entry = mounted.get_mut(index)?;
        entry.owners = entry.owners.saturating_sub(1);
        (entry.owners == 0 && !entry.shared).then(|| mounted.remove(index))
    }
}

/// Goes on after a failure, and reports the first.
fn take_down_all(unowned: &[Mounted]) -> Result<()> {
    unowned.iter().map(take_down).fold(Ok(()), Result::and)
}

fn take_down(Mounted { mount_point, plan, .. }: &Mounted) -> Result<()> {
    match plan {
        Plan::Mount(MountPlan { scratch, huge_pages, .. }) => {
            // Detached, not forced: who still has a file open there keeps it to its end, and nothing waits for that.
            umount2(mount_point, MntFlags::MNT_DETACH)
                .context(|| format!("unmount {mount_point:?}"))?;
            if let Some(pages) = huge_pages {
                pages.give_back();
            }
            for directory in scratch {
                fs::remove_dir_all(directory).context(|| format!("remove {directory:?}"))?;
            }
            // Not its content: that something is left in it means that it is more than a place for this mount.
            fs::remove_dir(mount_point).context(|| format!("remove {mount_point:?}"))
        }
        Plan::Watched { .. } => {
            umount2(mount_point, MntFlags::MNT_DETACH)
                .context(|| format!("unmount {mount_point:?}"))?;
            fs::remove_dir(mount_point).context(|| format!("remove {mount_point:?}"))
        }
        Plan::Directory { .. } => {
            fs::remove_dir_all(mount_point).context(|| format!("remove {mount_point:?}"))
        }
    }
}
