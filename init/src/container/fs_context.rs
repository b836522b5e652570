//! A filesystem that is being configured (fsopen(2), fspick(2)): what it was told, and what it says of a failure.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
};

use super::mount_options::MountOptions;
use crate::error::{Context, Error, Result};

pub struct FsContext(OwnedFd);

impl FsContext {
    /// A new instance of a filesystem.
    pub fn open(fstype: &str) -> Result<Self> {
        Ok(Self(fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// The filesystem of the mount at `place`.
    pub fn pick(place: BorrowedFd<'_>) -> Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        Ok(Self(fspick(place, "", flags)?))
    }

    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.explain(fsconfig_set_string(&self.0, key, value)).context(|| format!("option {key:?}"))
    }

    /// The flags of the superblock, and what is the filesystem's own to understand.
    pub fn configure(&self, options: &MountOptions) -> Result<()> {
        // tmpfs counts changes without being told, and no other filesystem gets that far with it.
        for flag in options.superblock.iter().filter(|flag| **flag != "iversion") {
            self.explain(fsconfig_set_flag(&self.0, *flag))
                .context(|| format!("option {flag:?}"))?;
        }
        for option in &options.data {
            match option.split_once('=') {
                Some((key, value)) => self.explain(fsconfig_set_string(&self.0, key, value)),
                None => self.explain(fsconfig_set_flag(&self.0, option.as_str())),
            }
            .context(|| format!("option {option:?}"))?;
        }
        Ok(())
    }

    /// Makes the filesystem, and a mount of it that is attached nowhere.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        self.explain(fsconfig_create(&self.0))?;
        Ok(fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// Changes the filesystem that was picked.
    pub fn reconfigure(&self) -> Result<()> {
        self.explain(fsconfig_reconfigure(&self.0))
    }

    fn explain(&self, result: rustix::io::Result<()>) -> Result<()> {
        result.map_err(|errno| match kernel_message(self.0.as_fd()) {
            Some(message) => Error::new(Error::from(errno).code(), message),
            None => errno.into(),
        })
    }
}

/// What the kernel says of the last failure of a filesystem context, if it says anything.
fn kernel_message(context: BorrowedFd<'_>) -> Option<String> {
    let mut buffer = [0; 256];
    let length = rustix::io::read(context, &mut buffer).ok()?; // ENODATA: nothing said
    let line = String::from_utf8_lossy(buffer.get(..length)?);
    Some(line.trim_start_matches("e ").trim_end().to_owned())
}
