//! The one error of PID 1: a code for the host to act on, a sentence for a person to read.
//!
//! The sentence grows from the inside out: the cause comes from the kernel, each caller that knows a name puts
//! `operation object` before it (`mount tmpfs on "/run": EBUSY: Device or resource busy`). Nothing is logged on the
//! way up; `server` logs an error once, when it becomes a reply.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// What the host can do about an error; the gRPC code of the same name goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidArgument,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    OutOfRange,
    DeadlineExceeded,
    Unimplemented,
    Unavailable,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        let code = match errno {
            Errno::ENOENT | Errno::ESRCH | Errno::ENODEV => Code::NotFound,
            Errno::EACCES | Errno::EPERM => Code::PermissionDenied,
            Errno::EEXIST => Code::AlreadyExists,
            Errno::EINVAL | Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::ENAMETOOLONG => {
                Code::InvalidArgument
            }
            Errno::ENOMEM | Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE => {
                Code::ResourceExhausted
            }
            Errno::ENOSYS | Errno::EOPNOTSUPP => Code::Unimplemented,
            Errno::ETIMEDOUT => Code::DeadlineExceeded,
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN => Code::FailedPrecondition,
            _ => Code::Internal, // an errno is the kernel's enum, not ours
        };
        Self::new(code, format!("{errno:?}: {}", errno.desc()))
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Errno::from_raw(errno.raw_os_error()).into()
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Self {
        match err.raw_os_error() {
            Some(raw) => Errno::from_raw(raw).into(),
            None => Self::new(Code::Internal, err.to_string()),
        }
    }
}

pub trait Context<T> {
    /// Puts the operation before the cause, and keeps the code.
    fn context(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|err| {
            let Error { code, message } = err.into();
            Error { code, message: format!("{}: {message}", operation()) }
        })
    }
}
