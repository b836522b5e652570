//! One blob on its way into a file: bounded by the size that its manifest promises, checked by its digest as it comes,
//! continued where it stopped (RFC 9110, section 14: Range).
//!
//! ```text
//! part file ──hash what is there──▶ have of size ──GET Range: bytes=have- ──▶ size of size ──digest──▶ blob
//!     ▲                                 │  connection broke: again, from have        │
//!     └────── wrong digest, and some of it was there before this pull: once more from the start
//! ```

use crate::digest::Digest;
use crate::error::{Context, Error, Result, quoted};
use crate::layout::Layout;
use crate::manifest::Blob;
use crate::progress::Progress;
use crate::registry::{Registry, broken};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// How much of a file is read at a time.
const PIECE: usize = 256 << 10;

/// Fetches a blob, or what is missing of it.
pub async fn fetch(
    registry: &Registry,
    layout: &Layout,
    blob: &Blob,
    progress: &dyn Progress,
) -> Result<()> {
    let operation = || format!("get blob {} of {:?}", blob.digest, registry.reference.to_string());
    if is_there(layout.blob(&blob.digest), blob).await? {
        progress.kept(&blob.digest, blob.size);
        return Ok(());
    }
    let path = layout.part(&blob.digest);
    let mut part = Part::open(path.clone(), blob.size).await?;
    progress.begin(&blob.digest, blob.size, part.have);
    loop {
        complete(registry, blob, &mut part, progress).await.context(operation)?;
        let digest = part.digest();
        if digest == blob.digest {
            break;
        }
        let is_mixed = part.found > 0;
        part.restart()?;
        if !is_mixed {
            let cause = format!("its bytes have the digest {digest}");
            return Err(Error::new(cause)).context(operation);
        }
    }
    let whole = layout.blob(&blob.digest);
    fs::rename(&path, &whole).context(|| format!("rename {path:?}"))?;
    progress.done(&blob.digest);
    Ok(())
}

/// Whether an earlier pull has left the whole blob. What is wrong with it is removed.
async fn is_there(path: PathBuf, blob: &Blob) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let part = Part::open(path.clone(), blob.size).await?;
    if part.have == blob.size && part.digest() == blob.digest {
        return Ok(true);
    }
    fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
    Ok(false)
}

/// Brings a part to its full size, over as many connections as that takes while each of them brings something.
async fn complete(
    registry: &Registry,
    blob: &Blob,
    part: &mut Part,
    progress: &dyn Progress,
) -> Result<()> {
    let mut idle = 0;
    while part.have < blob.size {
        let before = part.have;
        match transfer(registry, blob, part, progress).await {
            Ok(()) => {}
            Err(err) if err.is_passing() => {
                idle = if part.have > before { 1 } else { idle + 1 };
                if idle >= registry.retry.attempts {
                    return Err(err.hint("what came is kept: the same command goes on from there"));
                }
                progress.again(&blob.digest, err.message());
                registry.retry.pause(idle).await;
            }
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// One request, from the part's end on.
async fn transfer(
    registry: &Registry,
    blob: &Blob,
    part: &mut Part,
    progress: &dyn Progress,
) -> Result<()> {
    let mut headers =
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    if part.have > 0 {
        let range = HeaderValue::from_str(&format!("bytes={}-", part.have));
        headers.insert(RANGE, range.map_err(|err| Error::new(err.to_string()))?);
    }
    let mut response = registry.get(&format!("blobs/{}", blob.digest), &headers).await?;
    if part.have > 0 && !continues(&response, part.have, blob.size)? {
        part.restart()?;
        if response.status() != StatusCode::OK {
            return Ok(()); // the next request is for all of it
        }
    }
    let left = blob.size - part.have;
    if let Some(length) = response.content_length().filter(|length| *length != left) {
        return Err(Error::new(format!("{length} bytes are on offer, {left} were promised")));
    }
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if piece.len() as u64 > blob.size - part.have {
            part.restart()?;
            return Err(Error::new(format!("more than the {} bytes promised", blob.size)));
        }
        part.append(&piece)?;
        progress.at(&blob.digest, part.have);
    }
    match part.have == blob.size {
        true => Ok(()),
        false => {
            let cause = format!("it ends after {} of {} bytes", part.have, blob.size);
            Err(Error::new(cause).passing())
        }
    }
}

/// Whether the answer goes on where we are; `false` where the registry does not do that.
fn continues(response: &Response, have: u64, size: u64) -> Result<bool> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(false);
    }
    let text = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let text = text.unwrap_or_default();
    match parse_range(text) {
        Some((start, total)) if start == have && total.is_none_or(|total| total == size) => {
            Ok(true)
        }
        Some(_) | None => Err(Error::new(format!(
            "bytes from {have} of {size} were asked for, the answer is {}",
            quoted(text)
        ))),
    }
}

/// `bytes START-END/TOTAL`: the start, and the total if it is said.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _end) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

/// A file that grows to be a blob, and the digest of what it holds.
struct Part {
    file: File,
    path: PathBuf,
    hash: Sha256,
    have: u64,
    /// Bytes that were there before this pull, and may be anything.
    found: u64,
}

impl Part {
    /// Opens or makes it. What is in it is read on another thread: it may be large.
    async fn open(path: PathBuf, size: u64) -> Result<Part> {
        let opened = tokio::task::spawn_blocking(move || {
            Part::read(&path, size).context(|| format!("open {path:?}"))
        });
        opened.await.map_err(|err| Error::new(err.to_string()))?
    }

    fn read(path: &Path, size: u64) -> io::Result<Part> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (mut hash, mut have) = (Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let length = file.read(&mut piece)?;
            if length == 0 {
                break;
            }
            have += length as u64;
            if have > size {
                (hash, have) = (Sha256::new(), 0);
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                break;
            }
            hash.update(piece.get(..length).unwrap_or_default());
        }
        Ok(Part { file, path: path.to_owned(), hash, have, found: have })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).context(|| format!("write {:?}", self.path))?;
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.context(|| format!("clear {:?}", self.path))?;
        (self.hash, self.have, self.found) = (Sha256::new(), 0, 0);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::from_hash(self.hash.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes */10", "items 5-9/10", "bytes 5/10", "bytes 5-9/x"] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_part_knows_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.part");
        fs::write(&path, b"hello").unwrap();
        let mut part = Part::read(&path, 8).unwrap();
        assert_eq!((part.have, part.found), (5, 5));
        part.append(b"abc").unwrap();
        assert_eq!(part.digest(), Digest::of(b"helloabc"));
        drop(part);
        let mut part = Part::read(&path, 7).unwrap();
        assert_eq!((part.have, part.digest()), (0, Digest::of(b"")), "too long to be of use");
        part.append(b"a").unwrap();
        part.restart().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
