//! A process's pseudo-terminal, from the container's own devpts, so that ttyname(3) works inside.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, fstat, major, minor};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::detached::{attach_mount, clone_tree};
use super::spec::ConsoleSize;
use super::tree::{Leaf, Links, Tree, has_magic};
use crate::error::{Code, Context, Error, Result};

/// linux/magic.h
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

const CONSOLE: &str = "/dev/console";

pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a new pair. The slave comes from the master itself (TIOCGPTPEER): its name in /dev/pts is never looked up, so
/// nothing can stand there in its place (CVE-2025-52565).
pub fn open(tree: &Tree, size: Option<ConsoleSize>) -> Result<Terminal> {
    try_open(tree, size).context(|| "open a terminal at \"/dev/pts/ptmx\"".to_owned())
}

fn try_open(tree: &Tree, size: Option<ConsoleSize>) -> Result<Terminal> {
    let master = tree.open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY, Links::Refuse)?;
    let stat = fstat(&master)?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2)
        && has_magic(master.as_fd(), DEVPTS_SUPER_MAGIC)?;
    if !is_ptmx {
        return Err(Error::new(Code::FailedPrecondition, "not the multiplexer of a devpts"));
    }
    unlockpt(&master)?;
    let slave =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if let Some(ConsoleSize { columns, rows }) = size {
        tcsetwinsize(
            &master,
            Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
        )?;
    }
    Ok(Terminal { master, slave })
}

impl Terminal {
    /// OCI "Default Devices": /dev/console is the terminal, if there is one. Bound by descriptor, and on nothing that a
    /// link leads to: a /dev that an image brings could send it into /proc (CVE-2025-52565).
    pub fn bind_console(&self, tree: &Tree) -> Result<()> {
        let bind = || -> rustix::io::Result<()> {
            tree.create(CONSOLE, Leaf::File)?;
            let place = tree.open(CONSOLE, OFlags::PATH, Links::Refuse)?;
            let mount = clone_tree(self.slave.as_fd(), false)?;
            attach_mount(mount.as_fd(), place.as_fd())
        };
        bind().context(|| "bind \"/dev/console\"".to_owned())
    }

    /// The slave on a mount of `tree`'s, after the mount namespace was made anew: on the old one it has no name there.
    pub fn slave_in(&self, tree: &Tree) -> Result<OwnedFd> {
        let open = || -> Result<OwnedFd> {
            let name = ptsname(&self.master, Vec::new())?;
            let name = name.to_string_lossy();
            let slave = tree.open(&name, OFlags::RDWR | OFlags::NOCTTY, Links::Refuse)?;
            let (old, new) = (fstat(&self.slave)?, fstat(&slave)?);
            if (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino) {
                return Err(Error::new(Code::FailedPrecondition, "another file is there"));
            }
            Ok(slave)
        };
        open().context(|| "open the terminal by its name".to_owned())
    }

    /// Makes the terminal that of the caller's session, which the caller must lead.
    pub fn control(&self) -> Result<()> {
        ioctl_tiocsctty(&self.slave).context(|| "set the controlling terminal".to_owned())
    }
}
