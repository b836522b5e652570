//! Devices that come and go: the kernel's uevents, and waiting for what one brings.
//!
//! A device may have been there since boot, or come between a look and the wait for it. So a waiter looks, waits for
//! any event, and looks again: what an event says is not parsed, the file system is asked.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::{Code, Context, Error, Result};
use crate::sys::event;

/// The multicast group that the kernel speaks in; udevd's own is 2.
const KERNEL_GROUP: u32 = 1;

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

    /// Wakes the waiters for as long as the guest lives.
    pub async fn run(&self) -> Result<()> {
        let mut event = [0_u8; 64]; // only that one came matters
        loop {
            let mut ready = self.socket.readable().await?;
            match recv(self.socket.as_raw_fd(), &mut event, MsgFlags::empty()) {
                // ENOBUFS: events were dropped, so something happened all the same.
                Ok(_) | Err(Errno::ENOBUFS) => self.happened.notify_waiters(),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(|| "read uevents".to_owned()),
            }
        }
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
        let found = async {
            loop {
                let event = self.happened.notified();
                if let Some(found) = find() {
                    return found;
                }
                event.await;
            }
        };
        timeout(deadline, found).await.map_err(|_elapsed| {
            let message = format!("wait for {object}: not there after {} s", deadline.as_secs());
            Error::new(Code::DeadlineExceeded, message)
        })
    }

    /// Waits for a device node such as `/dev/vda`.
    pub async fn wait_for_path(&self, path: &Path, deadline: Duration) -> Result<()> {
        self.wait_for(&format!("{path:?}"), deadline, || path.exists().then_some(())).await
    }
}
