//! What hyperctl says when it cannot do what was asked, and the exit code that goes with it.
//!
//! An error is one line, `operation object: cause`, and at most one more that names the next step. The exit codes are
//! docker's: 125 for a failure of ours, 126 for a command that cannot be executed, 127 for one that is not there; a
//! container's own exit code is not an error and never passes through here. A reader of our output who goes away
//! (`| head -1`) is no failure either: it ends us silently with 141, as SIGPIPE ends any other tool.

use std::fmt;
use std::io;

/// Exit code of a failure of hyperctl's, the VM's or the guest's own.
pub const OUR_FAILURE: u8 = 125;
/// Exit code when the container's command is there but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// Exit code when the container's command is not there.
pub const COMMAND_NOT_FOUND: u8 = 127;
/// Exit code when whoever read our output is gone: 128 + SIGPIPE.
pub const BROKEN_PIPE: u8 = 141;

/// Exit code when our terminal is gone: 128 + SIGHUP.
pub const HANG_UP: u8 = 129;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    code: u8,
    lost: bool,
}

impl Error {
    /// `message` reads `operation object: cause`.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), hint: None, code: OUR_FAILURE, lost: false }
    }

    /// The end of a run whose output nobody reads any more; nothing is printed for it.
    pub fn broken_pipe() -> Error {
        Error { code: BROKEN_PIPE, ..Error::new("") }
    }

    /// The user leaves a process that goes on: no failure, and nothing is printed for it.
    pub fn detached() -> Error {
        Error { code: 0, ..Error::new("") }
    }

    /// The terminal is gone, and with it whoever could read anything.
    pub fn hung_up() -> Error {
        Error { code: HANG_UP, ..Error::new("") }
    }

    /// An end that a signal to hyperctl itself asked for.
    pub fn interrupted(signal: u32) -> Error {
        let code = u8::try_from(128 + signal).unwrap_or(OUR_FAILURE);
        Error::new(format!("interrupted by signal {signal}")).with_code(code)
    }

    /// A failure to write what was asked for: silent when the reader is gone.
    pub fn output(stream: &str, err: &io::Error) -> Error {
        if err.kind() == io::ErrorKind::BrokenPipe {
            return Error::broken_pipe();
        }
        Error::new(format!("write {stream}: {}", plain(err)))
    }

    /// Says what to do next; the first hint given stays, as it is the nearest to the cause.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint.get_or_insert(hint.into());
        self
    }

    pub fn with_code(mut self, code: u8) -> Error {
        self.code = code;
        self
    }

    /// Marks it as a symptom: the guest is out of reach, and whoever has the VM may know why.
    pub fn with_lost(mut self, lost: bool) -> Error {
        self.lost = lost;
        self
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub fn code(&self) -> u8 {
        self.code
    }

    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// The user has left.
    pub fn is_detached(&self) -> bool {
        self.is_silent() && self.code == 0
    }

    /// Puts the operation before the cause, and keeps the hint and the exit code.
    fn prefixed(mut self, operation: impl fmt::Display) -> Error {
        if !self.is_silent() {
            self.message = format!("{operation}: {}", self.message);
        }
        self
    }

    /// The message alone, for a place that has one line only.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, if anything.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hyperctl: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Error {
        Error::new(plain(&err))
    }
}

impl From<serde_json::Error> for Error {
    fn from(err: serde_json::Error) -> Error {
        Error::new(err.to_string())
    }
}

impl From<image_builder::Error> for Error {
    fn from(err: image_builder::Error) -> Error {
        Error::new(err.to_string())
    }
}

impl From<hyperstart_vmm::Error> for Error {
    fn from(err: hyperstart_vmm::Error) -> Error {
        Error::new(err.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(err: rustix::io::Errno) -> Error {
        Error::from(io::Error::from(err))
    }
}

impl From<hyperstart_registry::Error> for Error {
    fn from(err: hyperstart_registry::Error) -> Error {
        let error = Error::new(err.message());
        match err.hint_text() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The kernel's words, without the number that Rust puts behind them.
fn plain(err: &io::Error) -> String {
    let text = err.to_string();
    text.split(" (os error ").next().unwrap_or(&text).to_string()
}

/// Adds the operation where the object's name is known.
pub trait Context<T> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|err| err.into().prefixed(operation()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_one_line_and_the_hint_another() {
        let err = Error::new("find pod \"web\": no such pod").hint("`hyperctl ps` lists the pods");
        assert_eq!(
            err.to_string(),
            "hyperctl: find pod \"web\": no such pod\nhint: `hyperctl ps` lists the pods"
        );
        assert_eq!(err.code(), OUR_FAILURE);
    }

    #[test]
    fn context_keeps_the_code_and_the_nearest_hint() {
        let inner: Result<()> =
            Err(Error::new("exec \"foo\": ENOENT").with_code(COMMAND_NOT_FOUND).hint("near"));
        let err = inner.context(|| "run \"busybox\"".into()).unwrap_err().hint("far");
        assert_eq!(err.code(), COMMAND_NOT_FOUND);
        assert_eq!(err.to_string(), "hyperctl: run \"busybox\": exec \"foo\": ENOENT\nhint: near");
    }

    #[test]
    fn a_reader_that_is_gone_is_not_reported() {
        let err = Error::output("standard output", &io::ErrorKind::BrokenPipe.into());
        assert!(err.is_silent());
        assert_eq!(err.code(), BROKEN_PIPE);
        let full = Error::output("standard output", &io::ErrorKind::StorageFull.into());
        assert_eq!(full.code(), OUR_FAILURE);
        assert!(!full.is_silent());
    }

    #[test]
    fn an_interrupt_has_the_shells_exit_code() {
        assert_eq!(Error::interrupted(2).code(), 130);
        assert_eq!(Error::interrupted(15).code(), 143);
    }
}
