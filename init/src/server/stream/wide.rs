//! A ring that is wide for a stream which needs it: one that takes, and finds it full. What is on its way to the host and
//! back stands in the ring, so a stream is as fast as its ring is large. A few at a time, so that it is bounded.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::wire::{Incoming, Stop};
use crate::stdio::{Counted, Output};

/// A stream that has taken nothing for so long does not need it: nothing comes, or its reader does not read.
const UNUSED: Duration = Duration::from_secs(1);

pub struct Wide {
    output: Rc<Output>,
    count: Rc<Cell<usize>>,
}

impl Wide {
    pub fn of(output: Rc<Output>, count: &Rc<Cell<usize>>) -> Self {
        Self { output, count: Rc::clone(count) }
    }

    pub fn is_wide(&self) -> bool {
        self.output.is_wide()
    }

    /// The reader is about to take some.
    pub fn widen_if_full(&self) {
        self.output.widen_if_full(|| Counted::new(&self.count, super::WIDE_MOST));
    }

    /// Waits for the next frame, and gives up what is not used meanwhile.
    pub async fn while_used(&self, incoming: &mut Incoming<'_>) -> Result<(u8, usize), Stop> {
        if self.is_wide() {
            match timeout(UNUSED, incoming.header()).await {
                Ok(header) => return header,
                Err(_) => self.output.narrow(),
            }
        }
        incoming.header().await
    }
}

impl Drop for Wide {
    fn drop(&mut self) {
        self.output.narrow(); // another stream of the same output makes it wide again
    }
}
