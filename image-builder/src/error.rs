//! What went wrong, with which object, and what kind of trouble it is.
//!
//! A message reads `operation object: cause`; whatever comes from outside (a path in an archive, a digest) is
//! quoted with `{:?}`, so that a hostile name cannot write to a terminal. The kind is what a caller can act on: a
//! refused source stays refused however often it is tried, trouble of the host may pass.

use std::fmt;
use std::io;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The source breaks its format, fails its digest, or tries to leave its tree. Do not use it.
    Refused,
    /// The source is larger than the limits in force allow; [`crate::Limits`] can be raised.
    TooLarge,
    /// The source is well formed, and asks for something that this version cannot express.
    Unsupported,
    /// The host's file system or a program on it reported trouble.
    Io,
}

/// A kind for the caller, a sentence for a person.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn refused(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Refused, message: message.into() }
    }

    pub fn too_large(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::TooLarge, message: message.into() }
    }

    pub fn unsupported(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Unsupported, message: message.into() }
    }

    pub fn io(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Io, message: message.into() }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    /// An `io::Error` that carries one of our own errors (a reader that refused its input) gives it back unchanged.
    fn from(err: io::Error) -> Error {
        let text = err.to_string();
        let kind = match err.into_inner().and_then(|inner| inner.downcast::<Error>().ok()) {
            Some(own) => own.kind,
            None => ErrorKind::Io,
        };
        Error { kind, message: text }
    }
}

impl From<Error> for io::Error {
    fn from(err: Error) -> io::Error {
        io::Error::other(err)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Error {
        io::Error::from(errno).into()
    }
}

/// Puts the operation and its object before the cause, and keeps the kind.
pub trait Context<T> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|err| {
            let Error { kind, message } = err.into();
            Error { kind, message: format!("{}: {message}", operation()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_goes_in_front_and_keeps_the_kind() {
        let err: Result<()> = Err(Error::refused("two zero bytes")).context(|| "read \"x\"".into());
        let err = err.unwrap_err();
        assert_eq!(err.to_string(), "read \"x\": two zero bytes");
        assert_eq!(err.kind(), ErrorKind::Refused);
    }

    #[test]
    fn a_refusal_survives_a_trip_through_io_error() {
        let err = Error::from(io::Error::from(Error::too_large("9 > 8")));
        assert_eq!((err.kind(), err.to_string().as_str()), (ErrorKind::TooLarge, "9 > 8"));
    }
}
