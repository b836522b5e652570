//! An id that nobody else can take while what shall have it is made, or what has it is removed.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// Held for as long as that lasts.
pub struct Reservation<'a, Id: Ord> {
    table: &'a RefCell<BTreeSet<Id>>,
    pub id: Id,
}

impl<'a, Id: Ord + Clone> Reservation<'a, Id> {
    /// None: somebody has it.
    pub fn of(table: &'a RefCell<BTreeSet<Id>>, id: Id) -> Option<Self> {
        let is_free = table.borrow_mut().insert(id.clone());
        is_free.then_some(Self { table, id })
    }
}

impl<Id: Ord> Drop for Reservation<'_, Id> {
    fn drop(&mut self) {
        self.table.borrow_mut().remove(&self.id);
    }
}
