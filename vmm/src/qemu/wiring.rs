//! What had to be found out before QEMU can be told what a machine is: accelerator, clocks, sockets, sizes.

use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::root::Verity;

/// What had to be found out before QEMU can be told.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// What runs guest code.
    pub accel: Accel,
    /// Whether the guest's CPU has no RDRAND, so that it needs an entropy device.
    pub needs_rng: bool,
    /// Whether QEMU confines itself by seccomp.
    pub sandbox: bool,
    /// How the guest's kernel learns the frequencies of its clocks.
    pub clocks: Clocks,
    /// The socket on which we wait for QEMU's control connection.
    pub qmp: PathBuf,
    /// The socket on which QEMU waits for an heir's control connection, if the VM outlives its owner.
    pub monitor: Option<PathBuf>,
    /// How bytes reach the agent.
    pub channel: Channel,
    /// The size of the rootfs image in bytes; 0 with an initrd.
    pub rootfs_bytes: u64,
    /// How the root's blocks are checked, if they are.
    pub verity: Option<Verity>,
    /// One for each of the machine's disks.
    pub disks: Vec<DiskFacts>,
    /// Whether we may change file owners, so that a share can keep them.
    pub privileged: bool,
    /// The directory of the sockets at which virtiofsd listens: see [`share_socket`].
    pub share_sockets: PathBuf,
}

/// Where the daemon of the share of this index listens.
pub fn share_socket(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("fs{index}.sock"))
}

/// How the guest's kernel learns the frequencies of its clocks. It measures against a PIT what it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// It measures both: any kernel can.
    Measured,
    /// It is told its timer's and measures the time stamp counter's: needs the patch that is named [`TIMER_PATCH`].
    TimerTold,
    /// It is told both, and needs no PIT.
    Told {
        /// The time stamp counter's frequency; `None` under KVM, where the guest asks KVM's own clock.
        tsc_khz: Option<u32>,
    },
}

/// The kernel patch, as the kernel's manifest names it, that makes the kernel take its timer's frequency from us.
pub const TIMER_PATCH: &str = "timer-frequencies";
/// The frequency of the time stamp counter when one instruction is one nanosecond.
pub const ICOUNT_TSC_KHZ: u32 = 1_000_000;

/// How bytes reach the agent, with what QEMU must know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The kernel's vsock, at this context id; the guest says ready to this port of ours.
    VhostVsock {
        /// The guest's context id.
        cid: u32,
        /// The host's port for READY.
        ready_port: u32,
    },
    /// A daemon's vsock, behind its vhost-user socket.
    VhostUserVsock {
        /// The daemon's socket for QEMU.
        socket: PathBuf,
        /// The host's port for READY.
        ready_port: u32,
    },
    /// A virtio-serial port, whose host side is a socket.
    Serial {
        /// The socket.
        socket: PathBuf,
        /// QEMU listens there and takes one connection after the other; else we listen, and QEMU connects once.
        listens: bool,
    },
}

impl Channel {
    /// The socket at which QEMU listens, if it does.
    pub(crate) fn listener(&self) -> Option<&PathBuf> {
        match self {
            Self::Serial { socket, listens: true } => Some(socket),
            Self::Serial { listens: false, .. }
            | Self::VhostVsock { .. }
            | Self::VhostUserVsock { .. } => None,
        }
    }
}

/// What is known of a disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Whether it is a block device of the host, not a file.
    pub block_device: bool,
    /// Its size in bytes, if it is a file.
    pub bytes: u64,
}
