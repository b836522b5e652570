//! Memory that was given to containers as a volume, in another size: a tmpfs takes one while it is in use.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::statfs;

use super::Storage;
use super::options::MountOptions;
use super::plan::{MountPlan, Plan};
use super::table::Storages;
use crate::error::{Code, Context, Error, Result};
use crate::log;

/// What of a tmpfs can be changed in use (tmpfs(5)).
const CHANGEABLE: &[&str] = &["size", "nr_inodes"];

struct Change {
    flags: MsFlags,
    data: String,
    /// To go back.
    former: String,
}

impl Storages {
    /// Changes all of them, or none.
    pub fn resize_ephemeral(&self, storages: &[Storage]) -> Result<()> {
        let changes = storages.iter().map(|storage| {
            let change = self.check(storage);
            change.context(|| format!("ephemeral mount {:?}", storage.mount_point))
        });
        let changes: Vec<Change> = changes.collect::<Result<_>>()?;
        for (at, (storage, change)) in storages.iter().zip(&changes).enumerate() {
            let Err(err) = remount(&storage.mount_point, change.flags, &change.data) else {
                continue;
            };
            for (storage, change) in storages.iter().zip(&changes).take(at).rev() {
                if let Err(err) = remount(&storage.mount_point, change.flags, &change.former) {
                    log::warn!("{err}"); // the error that the host gets is the first one
                }
            }
            return Err(err);
        }
        Ok(())
    }

    fn check(&self, storage: &Storage) -> Result<Change> {
        if storage.driver != "ephemeral" {
            let message =
                format!("driver {:?}: only \"ephemeral\" changes its size", storage.driver);
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let flags = self.tmpfs_flags(storage)?;
        let mut data = Vec::new();
        for option in storage.options.iter().flat_map(|option| option.split(',')) {
            let known = option.split_once('=').is_some_and(|(name, _)| CHANGEABLE.contains(&name));
            let parsed = MountOptions::parse(&[option.to_owned()]);
            if known {
                data.push(option);
            // Kata's runtimes say "remount" themselves; and what is so already may be said.
            } else if option != "remount"
                && !(parsed.data.is_empty() && flags.contains(parsed.flags))
            {
                let message = format!("option {option:?}: not supported in an update");
                return Err(Error::new(Code::Unimplemented, message));
            }
        }
        let stat = statfs(&storage.mount_point).context(|| "statfs".to_owned())?;
        let bytes = stat.f_blocks.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or_default());
        let former = format!("size={bytes},nr_inodes={}", stat.f_files);
        Ok(Change { flags, data: data.join(","), former })
    }

    /// A remount sets the flags of the mount anew: they stay what they were.
    fn tmpfs_flags(&self, storage: &Storage) -> Result<MsFlags> {
        let found = self.with_ephemeral(&storage.mount_point, |plan| match plan {
            Plan::Mount(MountPlan { fstype, flags, .. }) if fstype == "tmpfs" => Ok(*flags),
            Plan::Mount(MountPlan { fstype, .. }) => {
                let message = format!("{fstype}: only tmpfs changes its size");
                Err(Error::new(Code::Unimplemented, message))
            }
            Plan::Directory { .. } | Plan::Watched { .. } => {
                Err(Error::new(Code::Internal, "a directory"))
            }
        });
        found.unwrap_or_else(|| {
            Err(Error::new(Code::NotFound, "no ephemeral storage of this sandbox: not found"))
        })
    }
}

fn remount(mount_point: &Path, flags: MsFlags, data: &str) -> Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT;
    mount(None::<&str>, mount_point, None::<&str>, flags, Some(data))
        .context(|| format!("remount {mount_point:?} with {data:?}"))
}
