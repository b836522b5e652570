//! ioctl(2)s that grow a mounted filesystem; the descriptor is any of its files or directories.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610_u32 as libc::Ioctl; // _IOW('f', 16, u64)
const XFS_IOC_FSGEOMETRY: libc::Ioctl = 0x8100_587e_u32 as libc::Ioctl; // _IOR('X', 126, xfs_fsop_geom)
const XFS_IOC_FSGROWFSDATA: libc::Ioctl = 0x4010_586e_u32 as libc::Ioctl; // _IOW('X', 110, xfs_growfs_data)

/// The head of struct xfs_fsop_geom (fs/xfs/libxfs/xfs_fs.h), which is 256 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct XfsGeometry {
    pub block_bytes: u32,
    _sizes: [u32; 6],
    /// The most of the space that inodes may take, in percent.
    pub inode_percent: u32,
    pub blocks: u64,
    _rest: [u64; 27],
}

const _: () = assert!(size_of::<XfsGeometry>() == 256);

/// struct xfs_growfs_data.
#[repr(C)]
struct XfsGrow {
    blocks: u64,
    inode_percent: u32,
}

/// Grows an ext4 to so many blocks.
pub fn ext4_resize(file: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads a u64 there, which is alive for the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) };
    checked(result.into()).map(drop)
}

/// How large an XFS is.
pub fn xfs_geometry(file: BorrowedFd<'_>) -> io::Result<XfsGeometry> {
    let mut geometry =
        XfsGeometry { block_bytes: 0, _sizes: [0; 6], inode_percent: 0, blocks: 0, _rest: [0; 27] };
    // SAFETY: the kernel writes the 256 bytes that the request's number says, and `geometry` has them.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), XFS_IOC_FSGEOMETRY, &raw mut geometry) };
    checked(result.into())?;
    Ok(geometry)
}

/// Grows an XFS to so many blocks.
pub fn xfs_grow(file: BorrowedFd<'_>, blocks: u64, inode_percent: u32) -> io::Result<()> {
    let grow = XfsGrow { blocks, inode_percent };
    // SAFETY: the kernel reads the 16 bytes that the request's number says, and `grow` has them.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), XFS_IOC_FSGROWFSDATA, &raw const grow) };
    checked(result.into()).map(drop)
}
