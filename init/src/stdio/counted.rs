//! Places of which there are only so many.

use std::cell::Cell;
use std::rc::Rc;

/// One of so many, until it is dropped.
pub struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub fn new(taken: &Rc<Cell<usize>>, most: usize) -> Option<Self> {
        if taken.get() == most {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Self(Rc::clone(taken)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
