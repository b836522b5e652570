//! Devices that come and go: the kernel's uevents, and waiting for what one brings.
//!
//! A device may have been there since boot, or come between a look and the wait for it. So a waiter looks, waits for
//! any event, and looks again: it goes by the file system, not by what an event says. That is read for the host alone.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::{Code, Context, Error, Result};
use crate::sys::event;

/// The multicast group that the kernel speaks in; udevd's own is 2.
const KERNEL_GROUP: u32 = 1;

/// What a uevent has at the most, its variables (UEVENT_BUFFER_SIZE of linux/kobject.h) and before them its path.
const UEVENT_MAX: usize = 4096;

/// The longest path that is told: events are kept.
const PATH_MAX: usize = 256;

/// What a host may have plugged in, and no more: a virtual console that opens is nobody's news.
const SUBSYSTEMS: &[&str] = &["block", "cpu", "memory", "net"];

/// A device below /sys that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub added: bool,
    /// DEVPATH, such as `/devices/pci0000:00/0000:00:05.0/virtio3/block/vdb`.
    pub path: String,
}

pub struct Uevents {
    socket: AsyncFd<OwnedFd>,
    happened: Notify,
}

impl Uevents {
    pub fn listen() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)
            .context(|| "open the uevent socket".to_owned())?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))
            .context(|| "bind the uevent socket".to_owned())?;
        Ok(Self { socket: event::register(socket)?, happened: Notify::new() })
    }

    /// Wakes the waiters for as long as the guest lives, and tells what came and went.
    pub async fn run(&self, tell: impl Fn(Change)) -> Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            match self.receive() {
                Ok(change) => {
                    self.happened.notify_waiters();
                    change.into_iter().for_each(&tell);
                }
                // Events were dropped, so something happened all the same.
                Err(Errno::ENOBUFS) => self.happened.notify_waiters(),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(|| "read uevents".to_owned()),
            }
        }
    }

    fn receive(&self) -> nix::Result<Option<Change>> {
        let mut event = [0_u8; UEVENT_MAX];
        let (length, sender) = recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut event)?;
        // Whoever has CAP_NET_ADMIN in the sandbox's network can send here too, but not from the kernel's address.
        let is_of_kernel = sender.is_some_and(|sender| sender.pid() == 0);
        Ok(event.get(..length).filter(|_| is_of_kernel).and_then(parse))
    }

    /// Returns at the next event.
    pub async fn next(&self) {
        self.happened.notified().await;
    }

    /// Waits until `find` finds what it looks for; after `deadline` the error names `object`.
    pub async fn wait_for<T>(
        &self,
        object: &str,
        deadline: Duration,
        find: impl Fn() -> Option<T>,
    ) -> Result<T> {
        self.find_within(deadline, find).await.ok_or_else(|| not_there(object, deadline))
    }

    /// The same for who goes on without it.
    pub async fn find_within<T>(
        &self,
        deadline: Duration,
        find: impl Fn() -> Option<T>,
    ) -> Option<T> {
        let found = async {
            loop {
                let event = self.happened.notified();
                if let Some(found) = find() {
                    return found;
                }
                event.await;
            }
        };
        timeout(deadline, found).await.ok()
    }

    /// Waits for a device node such as `/dev/vda`.
    pub async fn wait_for_path(&self, path: &Path, deadline: Duration) -> Result<()> {
        self.wait_for(&format!("{path:?}"), deadline, || path.exists().then_some(())).await
    }
}

pub fn not_there(object: &str, deadline: Duration) -> Error {
    let message = format!("wait for {object}: not there after {} s", deadline.as_secs());
    Error::new(Code::DeadlineExceeded, message)
}

/// `ACTION@DEVPATH`, then variables, each with a zero byte at its end. None: not one of those that are told.
fn parse(event: &[u8]) -> Option<Change> {
    let variables: Vec<&str> =
        event.split(|&byte| byte == 0).filter_map(|text| std::str::from_utf8(text).ok()).collect();
    let value = |name: &str| {
        variables.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    };
    if !SUBSYSTEMS.contains(&value("SUBSYSTEM")?) {
        return None;
    }
    let added = match value("ACTION")? {
        "add" => true,
        "remove" => false,
        _ => return None,
    };
    let path = value("DEVPATH").filter(|path| path.len() <= PATH_MAX)?;
    Some(Change { added, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(event: &str) -> Option<Change> {
        parse(event.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn what_is_plugged_in_is_told() {
        let disk = "add@/devices/x/block/vdb ACTION=add DEVPATH=/devices/x/block/vdb SUBSYSTEM=block \
                    MAJOR=254 MINOR=16 DEVNAME=vdb DEVTYPE=disk SEQNUM=700 ";
        let path = "/devices/x/block/vdb".to_owned();
        assert_eq!(change(disk), Some(Change { added: true, path: path.clone() }));
        let gone = disk.replace("ACTION=add", "ACTION=remove");
        assert_eq!(change(&gone), Some(Change { added: false, path }));
        for other in [
            disk.replace("ACTION=add", "ACTION=change"),
            disk.replace("SUBSYSTEM=block", "SUBSYSTEM=tty"),
            disk.replace("SUBSYSTEM=block", "SUBSYSTEM"),
            disk.replace("SUBSYSTEM=block", "XSUBSYSTEM=block"),
            disk.replace(" DEVPATH", " DEVPAT"),
            disk.replace("/x/", &"/x".repeat(200)),
            "libudev".to_owned(),
            String::new(),
        ] {
            assert_eq!(change(&other), None, "{other}");
        }
        assert_eq!(parse(b"\xff\0ACTION=add\0SUBSYSTEM=net\xff"), None);
    }
}
