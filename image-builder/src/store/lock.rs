//! Who may change the store: flock(2) on a file of it, which the kernel takes back from whoever dies.
//!
//! `lock` is shared by imports, which only add, and taken alone by what removes, so that no layer goes before the image
//! that it was made for is written down. `names.lock` is taken alone, and last, for each change of what is written down.

use crate::error::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held until it is dropped.
pub struct Lock {
    _file: File,
}

/// For an import: others may import, nobody may remove.
pub fn share(directory: &Path) -> Result<Lock> {
    take(directory, "lock", FlockOperation::LockShared)
}

/// For a removal: nobody else changes anything.
pub fn alone(directory: &Path) -> Result<Lock> {
    take(directory, "lock", FlockOperation::LockExclusive)
}

/// For a change of names and records.
pub fn names(directory: &Path) -> Result<Lock> {
    take(directory, "names.lock", FlockOperation::LockExclusive)
}

fn take(directory: &Path, name: &str, operation: FlockOperation) -> Result<Lock> {
    let path = directory.join(name);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).context(|| format!("open {path:?}"))?;
    while let Err(err) = flock(&file, operation) {
        if err != rustix::io::Errno::INTR {
            return Err(err).context(|| format!("lock {path:?}"));
        }
    }
    Ok(Lock { _file: file })
}
