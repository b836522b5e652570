//! Volumes, which are filesystems that the host attached: how full they are, and how they grow with their disk.
//!
//! A share's peer or a disk may be slow to answer, so a child asks.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FsWord, Mode, OFlags, fstat, fstatfs, major, minor, openat, statvfs};

use crate::error::{Code, Context, Error, Result};
use crate::offload;
use crate::reaper::Reaper;
use crate::sys::filesystem;
use crate::textfile;

const STATS_DEADLINE: Duration = Duration::from_secs(10);
/// What is added is written to: tables of inodes, a journal entry a group.
const RESIZE_DEADLINE: Duration = Duration::from_secs(120);

/// linux/magic.h
const EXT4_MAGIC: FsWord = 0xef53;
const XFS_MAGIC: FsWord = 0x5846_5342;

/// How much there is of something, and how much of it is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub used: u64,
    /// To who is not root: some is kept for root.
    pub available: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: Space,
    pub inodes: Space,
}

/// statvfs(3) of a mount.
pub async fn usage(mount_point: &Path, reaper: &Reaper) -> Result<Usage> {
    let look = || {
        let stat = statvfs(mount_point)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let numbers = [
            bytes(stat.f_blocks),
            bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            bytes(stat.f_bavail),
            stat.f_files,
            stat.f_files.saturating_sub(stat.f_ffree),
            stat.f_favail,
        ];
        Ok(numbers.map(u64::to_ne_bytes).concat())
    };
    let output = offload::collect(reaper, STATS_DEADLINE, 6 * 8, look).await;
    let output = output.context(|| format!("statvfs {mount_point:?}"))?;
    let mut numbers = output.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
    let mut next = || numbers.next().map(u64::from_ne_bytes).unwrap_or_default();
    let mut space = || Space { total: next(), used: next(), available: next() };
    Ok(Usage { bytes: space(), inodes: space() })
}

/// Grows the filesystem to `bytes`, down to a whole block. The disk must have them.
pub async fn resize(mount_point: &Path, bytes: u64, reaper: &Reaper) -> Result<()> {
    let grow = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, mount_point, flags, Mode::empty())?;
        let stat = fstatfs(&root)?;
        match stat.f_type {
            EXT4_MAGIC => grow_ext4(root.as_fd(), bytes),
            XFS_MAGIC => grow_xfs(root.as_fd(), bytes),
            other => {
                let message = format!(
                    "filesystem {other:#x}: not supported by this guest, which resizes ext4 and xfs"
                );
                Err(Error::new(Code::Unimplemented, message))
            }
        }
    };
    let grown = offload::run(reaper, RESIZE_DEADLINE, grow).await;
    grown.context(|| format!("resize volume {mount_point:?} to {bytes} bytes"))
}

fn grow_ext4(root: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let stat = fstatfs(root)?;
    let block = u64::try_from(stat.f_bsize).unwrap_or_default();
    // f_blocks is less what the filesystem keeps for itself; the kernel refuses to shrink it by the true number.
    check(root, bytes, block, stat.f_blocks)?;
    Ok(filesystem::ext4_resize(root, bytes / block.max(1))?)
}

fn grow_xfs(root: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let geometry = filesystem::xfs_geometry(root)?;
    let block = geometry.block_bytes.into();
    check(root, bytes, block, geometry.blocks)?;
    let blocks = bytes / block.max(1);
    if blocks == geometry.blocks {
        return Ok(());
    }
    Ok(filesystem::xfs_grow(root, blocks, geometry.inode_percent)?)
}

/// What the kernels of both would say in their own ways, said in one.
fn check(root: BorrowedFd<'_>, bytes: u64, block: u64, blocks: u64) -> Result<()> {
    let now = blocks.saturating_mul(block);
    if bytes / block.max(1) < blocks {
        let message = format!("less than its {now} bytes: a mounted filesystem does not shrink");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let device = fstat(root)?.st_dev;
    let size = format!("/sys/dev/block/{}:{}/size", major(device), minor(device));
    let sectors = textfile::single(&textfile::read(Path::new(&size))?).unwrap_or_default();
    let disk = sectors.saturating_mul(512);
    if bytes > disk {
        let message = format!("its disk has {disk} bytes: it grows first");
        return Err(Error::new(Code::FailedPrecondition, message));
    }
    Ok(())
}
