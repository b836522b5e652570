//! Names of containers and processes, as hosts give them.
//!
//! An id becomes the name of a directory and of a cgroup, so it is what containerd allows at the most: 1 to 255 of
//! `[A-Za-z0-9_.-]`, and neither `.` nor `..`. Tables and events share the one text of an id.

use std::fmt;
use std::rc::Rc;

use crate::error::{Code, Error, Result};

const LENGTH_MAX: usize = 255;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(Rc<str>);

/// The name of a process that joined a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecId(Rc<str>);

impl ContainerId {
    pub fn new(id: impl Into<String>) -> Result<Self> {
        checked("container id", id.into()).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExecId {
    pub fn new(id: impl Into<String>) -> Result<Self> {
        checked("exec id", id.into()).map(Self)
    }
}

fn checked(what: &str, id: String) -> Result<Rc<str>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let valid =
        (1..=LENGTH_MAX).contains(&id.len()) && id.bytes().all(allowed) && id != "." && id != "..";
    if valid {
        return Ok(id.into());
    }
    let shown: String = id.chars().take(64).collect();
    Err(Error::new(
        Code::InvalidArgument,
        format!("{what} {shown:?}: not 1 to {LENGTH_MAX} of [A-Za-z0-9_.-]"),
    ))
}

/// A name from outside, as messages show it.
impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name from outside, as messages show it.
impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_name() {
        for good in ["web", "0", "a.b-c_d", &"x".repeat(255)] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
            assert_eq!(format!("{:?}", ExecId::new(good).unwrap()), format!("{good:?}"));
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", &"x".repeat(256)] {
            let err = ExecId::new(bad).unwrap_err();
            assert_eq!(err.code(), Code::InvalidArgument);
            assert!(err.message().len() < 500);
        }
    }
}
