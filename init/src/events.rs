//! What happened in the guest, numbered without gaps, so that a host that was away goes on where it was.
//!
//! The last [`KEPT`] are kept; a client that was away for longer is told how many it has lost, and lists what there is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::clock::now_ns;
use crate::container::{ContainerId, ExecId};
use crate::reaper::ExitStatus;

/// Events that are kept: some 20 KiB of PID 1's memory.
const KEPT: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    ContainerCreated(ContainerId),
    ContainerStarted(ContainerId),
    ContainerPaused(ContainerId),
    ContainerResumed(ContainerId),
    ContainerRemoved(ContainerId),
    ExecStarted(ContainerId, ExecId),
    /// No exec id: the container's first process.
    ProcessExited(ContainerId, Option<ExecId>, ExitStatus),
    Oom(ContainerId),
    /// By its path below /sys.
    DeviceAdded(String),
    DeviceRemoved(String),
    /// What the kernel says of its pressure.
    LowMemory(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub sequence: u64,
    /// CLOCK_REALTIME.
    pub time_ns: u64,
    pub what: What,
}

#[derive(Debug, Default)]
pub struct Events {
    kept: RefCell<VecDeque<Event>>,
    last: Cell<u64>,
    happened: Notify,
}

/// An answer to who asks what happened after a number.
pub struct After {
    pub events: Vec<Event>,
    /// How many came before those and are no longer kept.
    pub lost: u64,
}

impl Events {
    pub fn publish(&self, what: What) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let sequence = self.last() + 1;
        self.last.set(sequence);
        kept.push_back(Event { sequence, time_ns: now_ns(), what });
        self.happened.notify_waiters();
    }

    /// The highest number until now; 0: nothing has happened.
    pub fn last(&self) -> u64 {
        self.last.get()
    }

    /// What happened after `sequence`, at most `most` events; be it nothing.
    pub fn after(&self, sequence: u64, most: usize) -> After {
        let kept = self.kept.borrow();
        let oldest = kept.front().map_or(self.last() + 1, |event| event.sequence);
        let wanted = kept.iter().filter(|event| event.sequence > sequence);
        After {
            events: wanted.take(most).cloned().collect(),
            lost: oldest.saturating_sub(sequence.saturating_add(1)),
        }
    }

    /// As [`Self::after`], once there is at least one.
    pub async fn wait_after(&self, sequence: u64, most: usize) -> After {
        loop {
            let happened = self.happened.notified();
            let after = self.after(sequence, most);
            if !after.events.is_empty() {
                return after;
            }
            happened.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oom(events: &Events) {
        events.publish(What::Oom(ContainerId::new("web").unwrap()));
    }

    #[test]
    fn a_client_goes_on_where_it_was() {
        let events = Events::default();
        assert!(events.after(0, 10).events.is_empty());
        for _ in 0..5 {
            oom(&events);
        }
        let numbers = |after: u64, most| {
            let after = events.after(after, most);
            (after.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), after.lost)
        };
        assert_eq!(numbers(0, 3), (vec![1, 2, 3], 0));
        assert_eq!(numbers(3, 10), (vec![4, 5], 0));
        assert_eq!(numbers(5, 10), (vec![], 0));
        assert_eq!(numbers(u64::MAX, 10), (vec![], 0));
    }

    #[test]
    fn what_is_no_longer_kept_is_counted() {
        let events = Events::default();
        for _ in 0..KEPT + 7 {
            oom(&events);
        }
        let after = events.after(2, 1);
        assert_eq!((after.events[0].sequence, after.lost), (8, 5));
        assert_eq!(events.kept.borrow().len(), KEPT);
    }
}
