//! Swap on what the host attached for it: on by its word, off before the guest ends.
//!
//! The kernel looks for the signature that mkswap(8) writes, and refuses what has none. Both calls read and write the
//! device, so a child makes them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::offload;
use crate::reaper::Reaper;
use crate::sys;

/// The kernel takes no more (MAX_SWAPFILES).
const MOST: usize = 16;
/// For a device to be looked at; and for all that was swapped out to come back.
const ON_DEADLINE: Duration = Duration::from_secs(10);
const OFF_DEADLINE: Duration = Duration::from_secs(30);

/// What is swapped on.
#[derive(Debug, Default)]
pub struct Swaps(RefCell<Vec<PathBuf>>);

impl Swaps {
    /// A block device, or a file that has its blocks.
    pub async fn add(&self, path: &Path, reaper: &Reaper) -> Result<()> {
        let operation = || format!("swap on {path:?}");
        if self.0.borrow().len() >= MOST {
            let message = format!("there are {MOST} already");
            return Err(Error::new(Code::ResourceExhausted, message)).context(operation);
        }
        offload::run(reaper, ON_DEADLINE, || Ok(sys::swap::on(open(path)?.as_fd())?))
            .await
            .context(operation)?;
        self.0.borrow_mut().push(path.to_owned());
        Ok(())
    }

    /// Best effort: the guest ends all the same.
    pub async fn remove_all(&self, reaper: &Reaper) {
        for path in self.0.take() {
            let off =
                offload::run(reaper, OFF_DEADLINE, || Ok(sys::swap::off(open(&path)?.as_fd())?));
            if let Err(err) = off.await {
                log::warn!("swap off {path:?}: {err}");
            }
        }
    }
}

/// No link on the way: what the host names is what is meant.
fn open(path: &Path) -> Result<OwnedFd> {
    let invalid = |why: &str| Err(Error::new(Code::InvalidArgument, why));
    if !path.is_absolute() {
        return invalid("not an absolute path");
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::BlockDevice | FileType::RegularFile => Ok(file),
        _ => invalid("neither a block device nor a file"),
    }
}
