//! A process's input: who writes to it, one after the other, and how much it has taken.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Mutex;

use super::end::End;
use crate::error::{Code, Context, Error, Result};

pub struct Input {
    /// None once it is closed.
    end: RefCell<Option<Rc<End>>>,
    taken: Cell<u64>,
    /// Whose turn it is to write.
    turn: Mutex<()>,
}

impl Input {
    pub fn new(end: Rc<End>) -> Self {
        Self { end: RefCell::new(Some(end)), taken: Cell::new(0), turn: Mutex::new(()) }
    }

    /// How many bytes it has taken.
    pub fn offset(&self) -> u64 {
        self.taken.get()
    }

    pub fn is_closed(&self) -> bool {
        self.end.borrow().is_none()
    }

    /// Writes all of `data` behind what was written before, waiting while the pipe is full.
    pub async fn append(&self, data: &[u8]) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.write(data).await
    }

    /// Writes what of `data`, whose first byte is at `offset`, it has not taken yet; and closes it then, if asked. What
    /// was sent twice is taken once.
    pub async fn write_at(&self, offset: u64, data: &[u8], close: bool) -> Result<()> {
        let _turn = self.turn.lock().await;
        let taken = self.offset();
        let Some(known) = taken.checked_sub(offset) else {
            let message = format!("write stdin at {offset}: it has taken {taken} bytes");
            return Err(Error::new(Code::OutOfRange, message));
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.write(data.get(known..).unwrap_or_default()).await?;
        if close {
            self.close();
        }
        Ok(())
    }

    async fn write(&self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let end = self.end.borrow().clone();
            let end = end.ok_or_else(|| Error::new(Code::FailedPrecondition, "stdin is closed"))?;
            let count = end.write(data).await.context(|| "write stdin".to_owned())?;
            self.taken.set(self.taken.get() + count as u64);
            data = data.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// The process reads end-of-file once it has read what was written. A terminal's input has no end: its line
    /// discipline makes one from the VEOF character (termios(3)), so there this only refuses further input.
    pub fn close(&self) {
        self.end.take();
    }
}
