//! Where an image is put together: an OCI layout (image-spec, image-layout.md) in a directory that has the name of its
//! manifest's digest, so that a pull that was cut off goes on in it.
//!
//! A blob has the suffix `.part` until its digest is known to be right. The directory is locked (flock(2)) while a pull
//! works on it; two pulls of one image take turns, and the second finds what the first has fetched.

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, stat};
use rustix::io::Errno;
use serde_json::json;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a directory that another pull works on is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A directory that this pull alone works on.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Layout {
    /// The directory of this image below `downloads`. Waits for another pull of the same image.
    pub async fn open(downloads: &Path, image: &Digest) -> Result<Layout> {
        let path = downloads.join(format!("sha256-{}", image.as_hex()));
        let operation = || format!("open {path:?}");
        loop {
            fs::create_dir_all(path.join("blobs/sha256")).context(operation)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let lock = match rustix::fs::open(&path, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue, // removed right after it was made
                opened => opened.context(operation)?,
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_same(&lock, &path) => return Ok(Layout { path, _lock: lock }),
                Ok(()) => {} // the one before us has removed it
                Err(Errno::WOULDBLOCK) => tokio::time::sleep(POLL).await,
                Err(errno) => return Err(Error::from(errno)).context(operation),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.as_hex())
    }

    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.blob(digest).with_extension("part")
    }

    /// Makes it a layout of one image, which is called `name`.
    pub(crate) fn finish(&self, name: &str, media_type: &str, manifest: &[u8]) -> Result<()> {
        let digest = Digest::of(manifest);
        let write = |path: PathBuf, bytes: &[u8]| {
            fs::write(&path, bytes).context(|| format!("write {path:?}"))
        };
        write(self.blob(&digest), manifest)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": media_type,
                "digest": digest.to_string(),
                "size": manifest.len(),
                "annotations": { "io.containerd.image.name": name },
            }],
        });
        write(self.path.join("oci-layout"), br#"{"imageLayoutVersion": "1.0.0"}"#)?;
        write(self.path.join("index.json"), index.to_string().as_bytes())
    }

    /// Removes all of it: the image has been taken over.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path).context(|| format!("remove {:?}", self.path))
    }
}

/// Whether the open directory still has its name.
fn is_same(open: &OwnedFd, path: &Path) -> bool {
    match (fstat(open), stat(path)) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino),
        (Ok(_) | Err(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_pull_waits_and_finds_a_directory_of_its_own() {
        let downloads = tempfile::tempdir().unwrap();
        let image = Digest::of(b"x");
        let first = Layout::open(downloads.path(), &image).await.unwrap();
        let other = Layout::open(downloads.path(), &Digest::of(b"y")).await.unwrap();
        assert_ne!(first.path(), other.path());
        let second = Layout::open(downloads.path(), &image);
        tokio::pin!(second);
        let waited = tokio::time::timeout(POLL * 3, &mut second).await;
        assert!(waited.is_err(), "the first has it");
        first.remove().unwrap();
        let second = second.await.unwrap();
        assert!(second.path().is_dir());
    }
}
