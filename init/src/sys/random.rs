//! The ioctls of random(4), which nobody wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// linux/random.h: `_IOW('R', 0x03, int [2])` and `_IO('R', 0x07)`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// RNDADDENTROPY: all bits of `bytes` are taken for random.
pub fn add_entropy(device: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let too_large = |_err| io::Error::from_raw_os_error(libc::EINVAL);
    let size = i32::try_from(bytes.len()).map_err(too_large)?;
    let bits = size.checked_mul(8).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    // struct rand_pool_info: entropy_count, buf_size, then the bytes.
    let mut info = Vec::with_capacity(8 + bytes.len());
    info.extend_from_slice(&bits.to_ne_bytes());
    info.extend_from_slice(&size.to_ne_bytes());
    info.extend_from_slice(bytes);
    // SAFETY: the kernel reads two ints and buf_size bytes behind them, which is what `info` holds; it has no need of an
    // alignment (copy_from_user), and writes nothing.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, info.as_ptr()) };
    super::checked(result.into()).map(drop)
}

/// RNDRESEEDCRNG: the generators take a new key from the pool.
pub fn reseed(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) };
    super::checked(result.into()).map(drop)
}
