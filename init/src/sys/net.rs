//! The one interface flag that a fresh network namespace needs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// struct ifreq as SIOCSIFFLAGS reads it: a name, the flags, and the rest of its union.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Sets `lo` up in the network namespace of `socket` (SIOCSIFFLAGS, netdevice(7)); the kernel adds 127.0.0.1 and ::1.
pub fn set_loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = *from;
    }
    let request = InterfaceFlags { name, flags: IFF_UP, rest: [0; 22] };
    // SAFETY: SIOCSIFFLAGS reads one struct ifreq (40 bytes, as `InterfaceFlags` is) and keeps no pointer to it.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as libc::Ioctl,
            std::ptr::from_ref(&request),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const IFF_UP: libc::c_short = 1; // linux/if.h

const _: () = assert!(size_of::<InterfaceFlags>() == size_of::<libc::ifreq>());
