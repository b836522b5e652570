//! Changes that belong together: all of them, or what was before.
//!
//! ```text
//! make, make, make ──> kept
//!            └ refused ──> undo: the inverse of each that was made, the last one first
//! ```

use nix::errno::Errno;
use tokio::task::yield_now;

use super::netlink::{Netlink, Request};
use crate::error::{Context, Result};
use crate::log;

/// As many requests in one turn of the event loop, which has others to serve.
const TURN: usize = 32;

pub struct Changes<'a> {
    netlink: &'a mut Netlink,
    undo: Vec<Undo>,
    made: usize,
}

struct Undo {
    what: String,
    request: Request,
}

pub struct Change {
    /// `operation object`, for an error.
    pub what: String,
    pub request: Request,
    /// What puts back that which was before.
    pub inverse: Request,
    /// With this errno the kernel says that it was so already; then there is nothing to undo.
    pub settled: Option<Errno>,
}

impl<'a> Changes<'a> {
    pub fn new(netlink: &'a mut Netlink) -> Self {
        Self { netlink, undo: Vec::new(), made: 0 }
    }

    /// For what has to be looked at before.
    pub fn netlink(&mut self) -> &mut Netlink {
        self.netlink
    }

    pub async fn make(&mut self, change: Change) -> Result<()> {
        let Change { what, request, inverse, settled } = change;
        self.made += 1;
        if self.made.is_multiple_of(TURN) {
            yield_now().await;
        }
        match self.netlink.change(&request).await {
            Ok(()) => {
                self.undo.push(Undo { what, request: inverse });
                Ok(())
            }
            Err(errno) if settled == Some(errno) => Ok(()),
            Err(errno) => Err(errno).context(|| what),
        }
    }

    /// Keeps what was made if all of it was, and else undoes it.
    pub async fn settle<T>(mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            while let Some(Undo { what, request }) = self.undo.pop() {
                if let Err(errno) = self.netlink.change(&request).await {
                    log::warn!("undo: {what}: {errno}"); // the object may be gone: nothing more can be done
                }
            }
        }
        result
    }
}
