//! What pulls have left in downloads/: a directory for each image that was not fetched to its end. Who fetches into one
//! holds a lock on it (flock(2)); one that nobody holds is kept for the next pull of that image, until a prune.

use super::Store;
use super::remove::{Removed, on_disk};
use crate::error::{Context, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs;
use std::path::Path;

impl Store {
    /// Removes what nobody is fetching. Only for who holds the store's lock alone: an import reads from here.
    pub(super) fn sweep_downloads(&self, removed: &mut Removed) -> Result<()> {
        let downloads = self.directory.join("downloads");
        let entries = match fs::read_dir(&downloads) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(err).context(|| format!("list {downloads:?}")),
        };
        for entry in entries {
            let path = entry.context(|| format!("list {downloads:?}"))?.path();
            if path.is_dir() {
                sweep(&path, removed).context(|| format!("remove {path:?}"))?;
            }
        }
        Ok(())
    }
}

fn sweep(directory: &Path, removed: &mut Removed) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::open(directory, flags, Mode::empty())?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    for blobs in [directory.to_owned(), directory.join("blobs/sha256")] {
        for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                removed.bytes += on_disk(&entry.path());
                removed.files += 1;
            }
        }
    }
    fs::remove_dir_all(directory)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_fetched_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let downloads = store.downloads().unwrap();
        for name in ["left", "held"] {
            let blobs = downloads.join(name).join("blobs/sha256");
            fs::create_dir_all(&blobs).unwrap();
            fs::write(blobs.join("x.part"), "half").unwrap();
        }
        let held = fs::File::open(downloads.join("held")).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let removed = store.prune(false, &|_| None).unwrap();
        assert_eq!(removed.files, 1);
        assert!(!downloads.join("left").exists() && downloads.join("held/blobs").exists());
        drop(held);
        assert_eq!(store.prune(false, &|_| None).unwrap().files, 1);
        assert_eq!(fs::read_dir(&downloads).unwrap().count(), 0);
    }
}
