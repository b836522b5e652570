//! Which storages are mounted, and who still needs them.
//!
//! The same mount point asked for twice is one mount with two owners, and goes with the last of them. Mounts that wait
//! for a device or a peer are made by a child; all of them are undone by one, in reverse order.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use tokio::sync::Mutex;

use super::{MountPlan, Plan, Storage, carry_out, check_mount_point, plan};
use crate::error::{Context, Result};
use crate::log;
use crate::offload;
use crate::reaper::Reaper;
use crate::uevent::Uevents;

/// For a device or a peer to answer a mount; and for all unmounts of one request.
const MOUNT_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Mounted {
    mount_point: PathBuf,
    owners: usize,
    /// Memory of the guest's, whose size may be changed.
    is_ephemeral: bool,
    plan: Plan,
}

/// The table of mounts, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Storages {
    mounted: RefCell<Vec<Mounted>>,
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
        let mut added = Vec::with_capacity(storages.len());
        for storage in storages {
            match self.add(storage, uevents, device_timeout, reaper).await {
                Ok(()) => added.push(storage.mount_point.clone()),
                Err(err) => {
                    self.remove_all(&added, reaper).await;
                    return Err(err).context(|| format!("storage {:?}", storage.mount_point));
                }
            }
        }
        Ok(added)
    }

    async fn add(
        &self,
        storage: &Storage,
        uevents: &Uevents,
        device_timeout: Duration,
        reaper: &Reaper,
    ) -> Result<()> {
        check_mount_point(&storage.mount_point)?;
        let plan = plan(storage, uevents, device_timeout).await?;
        let _changing = self.changing.lock().await;
        if self.add_owner(&storage.mount_point) {
            return Ok(());
        }
        if plan.may_block() {
            offload::run(reaper, MOUNT_DEADLINE, || carry_out(&plan, &storage.mount_point)).await?;
        } else {
            carry_out(&plan, &storage.mount_point)?;
        }
        let mount_point = storage.mount_point.clone();
        let is_ephemeral = storage.driver == "ephemeral";
        self.mounted.borrow_mut().push(Mounted { mount_point, owners: 1, is_ephemeral, plan });
        Ok(())
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

    fn add_owner(&self, mount_point: &Path) -> bool {
        let mut mounted = self.mounted.borrow_mut();
        let Some(entry) = mounted.iter_mut().find(|entry| entry.mount_point == mount_point) else {
            return false;
        };
        entry.owners += 1;
        true
    }

    /// Gives up one ownership of each; what has no owner left is taken down, last mounted first.
    pub async fn remove_all(&self, mount_points: &[PathBuf], reaper: &Reaper) {
        let _changing = self.changing.lock().await;
        let unowned: Vec<Mounted> = mount_points
            .iter()
            .rev()
            .filter_map(|mount_point| self.remove_owner(mount_point))
            .collect();
        if unowned.is_empty() {
            return;
        }
        if let Err(err) = offload::run(reaper, MOUNT_DEADLINE, || take_down_all(&unowned)).await {
            log::warn!("{err}"); // the owner is gone already: there is no reply to put it in
        }
    }

    /// Takes an entry that lost its last owner out of the table.
    fn remove_owner(&self, mount_point: &Path) -> Option<Mounted> {
        let mut mounted = self.mounted.borrow_mut();
        let index = mounted.iter().position(|entry| entry.mount_point == mount_point)?;
        let entry = mounted.get_mut(index)?;
        entry.owners -= 1;
        (entry.owners == 0).then(|| mounted.remove(index))
    }
}

/// Goes on after a failure, and reports the first.
fn take_down_all(unowned: &[Mounted]) -> Result<()> {
    unowned.iter().map(take_down).fold(Ok(()), Result::and)
}

fn take_down(Mounted { mount_point, plan, .. }: &Mounted) -> Result<()> {
    match plan {
        Plan::Mount(MountPlan { scratch, .. }) => {
            // Detached, not forced: who still has a file open there keeps it to its end, and nothing waits for that.
            umount2(mount_point, MntFlags::MNT_DETACH)
                .context(|| format!("unmount {mount_point:?}"))?;
            for directory in scratch {
                fs::remove_dir_all(directory).context(|| format!("remove {directory:?}"))?;
            }
            // Not its content: that something is left in it means that it is more than a place for this mount.
            fs::remove_dir(mount_point).context(|| format!("remove {mount_point:?}"))
        }
        Plan::Directory { .. } => {
            fs::remove_dir_all(mount_point).context(|| format!("remove {mount_point:?}"))
        }
    }
}
