//! What there is: for a host that was away and has nothing but its connection.

use std::rc::Rc;

use super::Sandbox;
use crate::container::{Container, ContainerId};
use crate::error::Result;

impl Sandbox {
    /// All containers in the order of their ids, or the one of that id.
    pub fn list(&self, only: Option<&ContainerId>) -> Result<Vec<Rc<Container>>> {
        match only {
            Some(id) => Ok(vec![self.container(id)?]),
            None => {
                let containers = self.containers.borrow();
                Ok(containers.values().map(|entry| Rc::clone(&entry.container)).collect())
            }
        }
    }
}
