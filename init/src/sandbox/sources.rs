//! Events that no request brings about: devices that come and go, memory that runs short.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::spawn_local;

use super::Sandbox;
use crate::events::What;
use crate::uevent::Change;
use crate::{log, pressure};

impl Sandbox {
    pub(super) fn device_changed(&self, change: Change) {
        if !self.device_events.allows(Instant::now()) {
            return; // what it said is lost, and what there is /sys tells
        }
        let Change { added, path } = change;
        self.events.publish(if added {
            What::DeviceAdded(path)
        } else {
            What::DeviceRemoved(path)
        });
    }

    /// Publishes that memory is short, from the first call on.
    pub fn watch_pressure(sandbox: &Rc<Self>) {
        if sandbox.watches_pressure.replace(true) {
            return;
        }
        let events = Rc::clone(&sandbox.events);
        spawn_local(async move {
            if let Err(err) = pressure::watch(|text| events.publish(What::LowMemory(text))).await {
                log::warn!("{err}"); // a kernel without PSI: nobody is told
            }
        });
    }
}

/// Lets so many through at once, and one more each [`Flow::EACH`]: a container that makes and removes interfaces in
/// the sandbox's network must not push all other events out.
pub struct Flow {
    left: Cell<u32>,
    since: Cell<Instant>,
}

impl Flow {
    /// As many processors or memory blocks as a host adds at once.
    const AT_ONCE: u32 = 128;
    const EACH: Duration = Duration::from_millis(250);

    pub fn new(now: Instant) -> Self {
        Self { left: Cell::new(Self::AT_ONCE), since: Cell::new(now) }
    }

    pub fn allows(&self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.since.get());
        let more = u32::try_from(waited.as_millis() / Self::EACH.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            self.since.set(now);
            self.left.set(self.left.get().saturating_add(more).min(Self::AT_ONCE));
        }
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_what_comes_later_is_let_through() {
        let start = Instant::now();
        let flow = Flow::new(start);
        let through = |at: Duration, tries: u32| {
            (0..tries).map(|_| u32::from(flow.allows(start + at))).sum::<u32>()
        };
        assert_eq!(through(Duration::ZERO, 1000), Flow::AT_ONCE);
        assert_eq!(through(Duration::from_millis(249), 10), 0);
        assert_eq!(through(Duration::from_millis(1000), 10), 4);
        assert_eq!(through(Duration::from_secs(1_000_000), 1000), Flow::AT_ONCE);
    }
}
