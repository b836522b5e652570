//! Trees of files as tar streams (POSIX pax, pax(1)): packed from a directory that others may change meanwhile, unpacked
//! from an archive that nobody vouches for.
//!
//! PID 1 of the guest uses it in a container, `hyperctl` on the host: for each the other side is a stranger. So no path is
//! checked first and used later: each name is resolved by the kernel beneath the directory (openat2(2)), what is made is
//! made new, and nothing is sized by what an archive says.
//!
//! Not kept: extended attributes and access lists, whose meaning ends at the container (a file capability of a container's is
//! none of the host's); holes; times below a second.

mod below;
mod header;
mod pack;
mod read;
#[cfg(test)]
mod tests;
mod unpack;

use std::fmt;

use rustix::io::Errno;

pub use below::{Links, open_resolved};
pub use header::encode;
pub use pack::{Source, pack};
pub use read::{Entry, Kind, Reader};
pub use unpack::{Options, Owner, unpack};

/// The unit of a tar stream.
const BLOCK: usize = 512;

/// The longest path that an archive may name: no kernel takes one.
const PATH_MAX: usize = 4096;

/// A sentence: `operation object: cause`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// What is wrong with what the archive calls `name`.
    fn of(operation: &str, name: &[u8], cause: impl fmt::Display) -> Self {
        Self(format!("{operation} {:?}: {cause}", String::from_utf8_lossy(name)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The name of an errno's cause, as people know it.
fn cause(errno: Errno) -> String {
    match errno {
        Errno::XDEV => "leads out of the directory".to_owned(),
        Errno::LOOP => "goes through a symbolic link".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    }
}
