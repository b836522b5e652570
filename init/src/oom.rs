//! Who ran out of memory: watches each container's `memory.events` (cgroup-v2, "Memory Interface Files").
//!
//! The kernel says by inotify(7) that the file changed; the counter `oom_kill` says whether a process was killed. An
//! event waits here until the host asks for it. The queue is bounded: the oldest goes first.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::container::ContainerId;
use crate::error::{Context, Result};
use crate::events::{Events, What};
use crate::log;
use crate::sys::event;
use crate::textfile::{number, read};

/// Events that nobody has asked for yet, at the most.
const QUEUE_MAX: usize = 1024;
/// Read at once; an event without a file name takes 16 bytes (inotify(7)).
const EVENTS_BYTES: usize = 1024;

struct Watched {
    container: ContainerId,
    events_file: PathBuf,
    kills: u64,
}

pub struct OomWatch {
    inotify: AsyncFd<OwnedFd>,
    watched: RefCell<BTreeMap<i32, Watched>>,
    queue: RefCell<VecDeque<ContainerId>>,
    arrived: Notify,
    events: Rc<Events>,
}

impl OomWatch {
    pub fn new(events: Rc<Events>) -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .context(|| "open inotify".to_owned())?;
        Ok(Self {
            inotify: event::register(inotify)?,
            watched: RefCell::default(),
            queue: RefCell::default(),
            arrived: Notify::new(),
            events,
        })
    }

    /// Watches a container's cgroup. The kernel does not tell that it has gone, and keeps the watch: see [`Self::remove`].
    pub fn add(&self, container: ContainerId, cgroup: &Path) -> Result<()> {
        let events_file = cgroup.join("memory.events");
        let kills = oom_kills(&events_file)?;
        let descriptor =
            inotify::add_watch(self.inotify.get_ref(), &events_file, WatchFlags::MODIFY)
                .context(|| format!("watch {events_file:?}"))?;
        self.watched.borrow_mut().insert(descriptor, Watched { container, events_file, kills });
        Ok(())
    }

    /// Tells what the container's cgroup has to tell yet; its removal comes next.
    pub fn look(&self, container: &ContainerId) {
        if let Some(descriptor) = self.descriptor(container) {
            self.changed(descriptor, ReadFlags::MODIFY);
        }
    }

    /// Gives up the watch of a container.
    pub fn remove(&self, container: &ContainerId) {
        let Some(descriptor) = self.descriptor(container) else { return }; // it was never started
        self.watched.borrow_mut().remove(&descriptor);
        if let Err(errno) = inotify::remove_watch(self.inotify.get_ref(), descriptor) {
            log::debug!("give up the watch of container {container:?}: {errno}"); // the kernel has
        }
    }

    fn descriptor(&self, container: &ContainerId) -> Option<i32> {
        let watched = self.watched.borrow();
        watched.iter().find(|(_, entry)| entry.container == *container).map(|(&at, _)| at)
    }

    /// Waits for the next container that lost a process to the OOM killer.
    pub async fn next(&self) -> ContainerId {
        loop {
            let arrival = self.arrived.notified();
            if let Some(container) = self.queue.borrow_mut().pop_front() {
                return container;
            }
            arrival.await;
        }
    }

    /// Takes back what was given to one who is gone: it is told to the next.
    pub fn give_back(&self, container: ContainerId) {
        self.queue.borrow_mut().push_front(container);
        self.arrived.notify_one();
    }

    /// Turns changes into events for as long as the guest lives.
    pub async fn run(&self) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut events = Reader::new(self.inotify.get_ref(), &mut buffer);
            match events.next() {
                Ok(event) => self.changed(event.wd(), event.events()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context(|| "read inotify".to_owned()),
            }
            // A read takes as many events as fit: the rest of them is in the buffer, not in the kernel.
            while !events.is_buffer_empty() {
                let event = events.next().context(|| "read inotify".to_owned())?;
                self.changed(event.wd(), event.events());
            }
        }
    }

    fn changed(&self, descriptor: i32, happened: ReadFlags) {
        let mut watched = self.watched.borrow_mut();
        if happened.contains(ReadFlags::IGNORED) {
            watched.remove(&descriptor);
            return;
        }
        let Some(entry) = watched.get_mut(&descriptor) else { return };
        match oom_kills(&entry.events_file) {
            Ok(kills) if kills > entry.kills => {
                entry.kills = kills;
                self.events.publish(What::Oom(entry.container.clone()));
                self.enqueue(entry.container.clone());
            }
            Ok(_) => {}
            // The cgroup went between the event and the read: IN_IGNORED follows.
            Err(err) => log::debug!("{err}"),
        }
    }

    fn enqueue(&self, container: ContainerId) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() == QUEUE_MAX {
            queue.pop_front();
        }
        queue.push_back(container);
        self.arrived.notify_one();
    }
}

fn oom_kills(events_file: &Path) -> Result<u64> {
    Ok(number(&read(events_file)?, "oom_kill"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_kills_not_limits_hit() {
        let text = "low 0\nhigh 0\nmax 412\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(number(text, "oom_kill"), 2);
    }
}
