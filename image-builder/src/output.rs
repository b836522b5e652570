//! An output file that appears whole or not at all: it is written without a name (`O_TMPFILE`, open(2)) on the file
//! system of its place and named when all is done, so nothing is left of it whatever ends the program. Where a file
//! system cannot do that it has a temporary name, which goes when the build fails. Blocks of zeros are left as holes,
//! every byte goes through SHA-256 on its way.

use crate::error::{Context, Error, Result};
use crate::verity::Verity;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use tempfile::NamedTempFile;

/// Zeros are left out in units of this size.
const BLOCK: usize = 4096;
/// How the names of files begin that are not whole.
pub const PREFIX: &str = ".image-builder-";

/// What was written: for manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file's length, padding included.
    pub size: u64,
    /// Bytes that hold something: all blocks less the holes.
    pub stored: u64,
    /// SHA-256 of the whole file, in hexadecimal.
    pub sha256: String,
    /// Of an image with a hash tree.
    pub verity: Option<Verity>,
}

/// A file that is not to be seen yet.
pub enum Hidden {
    Nameless(File),
    Named(NamedTempFile),
}

impl Hidden {
    /// An empty file on the file system of this directory.
    pub fn new(directory: &Path) -> Result<Hidden> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Hidden::Nameless(File::from(fd))),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                Ok(Hidden::Named(tempfile::Builder::new().prefix(PREFIX).tempfile_in(directory)?))
            }
            Err(err) => Err(err.into()),
        }
    }

    pub fn file(&self) -> &File {
        match self {
            Hidden::Nameless(file) => file,
            Hidden::Named(file) => file.as_file(),
        }
    }

    /// Gives it its name; what had this name before is replaced in one step. A link cannot take another file's place but a rename can, so there are two steps.
    pub fn show(self, path: &Path) -> Result<()> {
        let named = match self {
            Hidden::Named(file) => file,
            Hidden::Nameless(file) => {
                let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                let link = |name: &Path| {
                    linkat(CWD, source.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW)?;
                    file.try_clone()
                };
                tempfile::Builder::new().prefix(PREFIX).make_in(directory_of(path)?, link)?
            }
        };
        named.persist(path).map_err(|err| err.error)?;
        Ok(())
    }
}

/// A file under construction.
pub struct Output {
    file: Hidden,
    position: u64,
    stored: u64,
    hash: Sha256,
}

impl Output {
    /// Starts a file that will be at `path`. Missing parent directories are made.
    pub fn create(path: &Path) -> Result<Output> {
        if path.file_name().is_none() {
            return Err(Error::io(format!("create {path:?}: not a file name")));
        }
        let directory = directory_of(path)?;
        let file = Hidden::new(directory).context(|| format!("create a file in {directory:?}"))?;
        Ok(Output { file, position: 0, stored: 0, hash: Sha256::new() })
    }

    /// How many bytes there are so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Appends bytes.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        while !bytes.is_empty() {
            let (run, zeros) = next_run(bytes);
            let (now, rest) = bytes.split_at_checked(run).unwrap_or((bytes, &[]));
            if !zeros {
                let file = self.file.file();
                let written = file.write_all_at(now, self.position);
                written.context(|| format!("write {run} bytes at {}", self.position))?;
            }
            self.stored += if zeros { 0 } else { run as u64 };
            self.position += run as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// What was written before.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.position);
        end.ok_or_else(|| Error::io(format!("read {length} bytes at {offset}: not written")))?;
        // The holes at the end are not in the file yet.
        let file = self.file.file();
        let there = file.metadata()?.len().saturating_sub(offset).min(length as u64);
        let there = usize::try_from(there).unwrap_or(length);
        if let Some(part) = bytes.get_mut(..there) {
            file.read_exact_at(part, offset).context(|| format!("read back at {offset}"))?;
        }
        Ok(bytes)
    }

    /// Appends zeros up to the next multiple of `alignment`.
    pub fn pad(&mut self, alignment: u64) -> Result<()> {
        let mut left = self.position.next_multiple_of(alignment) - self.position;
        let zeros = [0; BLOCK];
        while left > 0 {
            let size = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            self.append(zeros.get(..size).unwrap_or_default())?;
            left -= size as u64;
        }
        Ok(())
    }

    /// Gives the file its name; what had this name before is replaced in one step.
    pub fn finish(self, path: &Path) -> Result<Written> {
        let (file, written) = self.seal().context(|| format!("write {path:?}"))?;
        file.show(path).context(|| format!("name {path:?}"))?;
        Ok(written)
    }

    /// The whole file, which has no name yet.
    pub fn seal(self) -> Result<(Hidden, Written)> {
        let Output { file, position, stored, hash } = self;
        file.file().set_len(position).context(|| "set the length".into())?;
        let mode = Permissions::from_mode(0o644); // whatever the umask is
        file.file().set_permissions(mode).context(|| "chmod".into())?;
        Ok((file, Written { size: position, stored, sha256: hex(&hash.finalize()), verity: None }))
    }
}

/// How long the bytes at the start stay all zero, or not all zero, in whole blocks where there are any.
fn next_run(bytes: &[u8]) -> (usize, bool) {
    let is_zero = |block: &[u8]| block.len() == BLOCK && block.iter().all(|byte| *byte == 0);
    let mut blocks = bytes.chunks(BLOCK);
    let zeros = blocks.next().is_some_and(is_zero);
    let more = blocks.take_while(|block| is_zero(block) == zeros).count();
    (((more + 1) * BLOCK).min(bytes.len()), zeros)
}

/// The directory that a file will be in; it is made if it is missing.
pub fn directory_of(path: &Path) -> Result<&Path> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(Error::io(format!("create {path:?}: not a file name"))),
    };
    std::fs::create_dir_all(parent).context(|| format!("create directory {parent:?}"))?;
    Ok(parent)
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a small file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<Written> {
    let mut output = Output::create(path)?;
    output.append(bytes)?;
    output.finish(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_become_holes_and_bytes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/out");
        let mut bytes = vec![0u8; 1 << 20];
        bytes[5000] = 7;
        let mut output = Output::create(&path).unwrap();
        output.append(&bytes).unwrap();
        output.append(b"end").unwrap();
        output.pad(1 << 20).unwrap();
        let written = output.finish(&path).unwrap();
        bytes.extend_from_slice(b"end");
        bytes.resize(2 << 20, 0);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(written.sha256, hex(&Sha256::digest(&bytes)));
        let stat = std::fs::metadata(&path).unwrap();
        assert!(stat.blocks() * 512 < 64 << 10, "{} blocks", stat.blocks());
        assert_eq!(stat.mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::create(&dir.path().join("out")).unwrap();
        output.append(b"half").unwrap();
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
