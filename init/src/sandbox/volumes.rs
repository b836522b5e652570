//! Volumes: storages of the host's that are looked at and changed while containers use them.

use std::path::Path;

use super::Sandbox;
use crate::error::{Code, Error, Result};
use crate::storage::Storage;
use crate::volumes::{self, Usage};

impl Sandbox {
    /// Gives tmpfs volumes another size: all of them, or none.
    pub fn resize_ephemeral(&self, storages: &[Storage]) -> Result<()> {
        self.storages.resize_ephemeral(storages)
    }

    pub async fn volume_usage(&self, mount_point: &Path) -> Result<Usage> {
        self.check_volume(mount_point)?;
        volumes::usage(mount_point, &self.reaper).await
    }

    /// Grows the filesystem of a volume, whose disk has grown.
    pub async fn resize_volume(&self, mount_point: &Path, bytes: u64) -> Result<()> {
        self.check_volume(mount_point)?;
        volumes::resize(mount_point, bytes, &self.reaper).await
    }

    /// What is no storage of the host's is nobody's volume.
    fn check_volume(&self, mount_point: &Path) -> Result<()> {
        if self.storages.has(mount_point) {
            return Ok(());
        }
        Err(Error::new(
            Code::NotFound,
            format!("volume {mount_point:?}: not found: no storage is mounted there"),
        ))
    }
}
