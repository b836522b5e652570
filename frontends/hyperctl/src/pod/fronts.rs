//! Who is in front of a container, as its host sees it: readers of its output, each with a name in the guest that holds
//! what it has not taken.
//!
//! ```text
//! promised ──(attached)──> attached ──(delivered, or its connection breaks)──> released in the guest
//!     └──(nobody comes within GRACE)────────────────────────────────────────>┘
//! ```
//! The names are in the container's record, so that an heir knows whom to wait for: they come again, or are dead.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use hyperstart::{Code, Process};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::error::Result;
use crate::escalation::GRACE;
use crate::pod::control::{Answer, Ended, Line, Request};
use crate::pod::follow::{STREAMS, hold};
use crate::time::at;

/// For the last word to be heard.
const LAST_WORD: Duration = Duration::from_secs(2);

/// By name: until when it may come, or `None`, it is there.
type Readers = BTreeMap<String, Option<Instant>>;

pub struct Fronts {
    process: Process,
    readers: RefCell<Readers>,
    changed: Notify,
    ended: watch::Sender<Option<Ended>>,
}

impl Fronts {
    /// `promised` are in the record already.
    pub fn new(process: Process, promised: impl IntoIterator<Item = String>) -> Fronts {
        let until = Instant::now() + GRACE;
        let readers = promised.into_iter().map(|name| (name, Some(until))).collect();
        let (readers, changed) = (RefCell::new(readers), Notify::new());
        Fronts { process, readers, changed, ended: watch::Sender::new(None) }
    }

    /// From here on nothing is dropped that those who are promised have not read.
    pub async fn hold(&self) -> Result<()> {
        for name in self.names() {
            hold(&self.process, &name).await?;
        }
        Ok(())
    }

    /// Serves one that is attached, to its end. `changed` writes the names down.
    pub async fn serve(
        self: &Rc<Self>,
        name: &str,
        line: &mut Line,
        changed: impl Fn(),
    ) -> Result<()> {
        self.readers.borrow_mut().insert(name.to_string(), None);
        changed();
        self.changed.notify_waiters();
        let mut ended = self.ended.subscribe();
        let is_there = tokio::select! {
            heard = line.hear::<Request>() => matches!(heard, Ok(Some(Request::Delivered))),
            _ = ended.wait_for(Option::is_some) => true,
        };
        self.release(name).await;
        changed();
        if !is_there {
            return Ok(());
        }
        let ended = match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_default(),
            Err(_) => return Ok(()),
        };
        line.say(&Answer::Ended(ended)).await
    }

    /// Lets go of those who were promised and do not come. Never ends.
    pub async fn expire(&self, changed: impl Fn()) {
        loop {
            let next = self.readers.borrow().values().flatten().min().copied();
            tokio::select! {
                () = at(next) => {}
                () = self.changed.notified() => continue,
            }
            let now = Instant::now();
            let late = |(name, until): (&String, &Option<Instant>)| {
                until.is_some_and(|until| until <= now).then(|| name.clone())
            };
            let late: Vec<String> = self.readers.borrow().iter().filter_map(late).collect();
            for name in late {
                self.release(&name).await;
                changed();
            }
        }
    }

    /// Waits until everybody has what there was.
    pub async fn all_delivered(&self) {
        loop {
            let changed = self.changed.notified();
            if self.readers.borrow().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Tells everybody who is there how it came to its end.
    pub async fn tell(&self, ended: Ended) {
        self.ended.send_replace(Some(ended));
        let heard = timeout(LAST_WORD, self.ended.closed()).await;
        if heard.is_err() {
            log::debug!("one in front does not listen");
        }
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.readers.borrow().keys().cloned().collect()
    }

    async fn release(&self, name: &str) {
        if self.readers.borrow_mut().remove(name).is_none() {
            return;
        }
        for stream in STREAMS {
            match self.process.release_reader(stream, name).await {
                Ok(()) => {}
                Err(err) if err.code() == Code::NotFound => {}
                Err(err) => log::debug!("{err}"), // the VM is going, or is gone
            }
        }
        self.changed.notify_waiters();
    }
}
