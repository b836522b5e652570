//! Why an image could not be pulled: one line, `operation object: cause`, and at most one that names the next step.

use std::fmt;
use std::io;

pub type Result<T> = std::result::Result<T, Error>;

/// Words of a registry's are cut after so many characters.
const WORDS_MAX: usize = 300;

#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    passing: bool,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), hint: None, passing: false }
    }

    /// Says what to do next; the first hint given stays, as it is the nearest to the cause.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// Marks a failure that may be over in a moment: a broken connection, a registry that is busy.
    pub(crate) fn passing(mut self) -> Error {
        self.passing = true;
        self
    }

    /// Puts the operation and its object before the cause, and keeps the rest.
    pub(crate) fn within(self, operation: impl fmt::Display) -> Error {
        Error { message: format!("{operation}: {}", self.message), ..self }
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.passing
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Error {
        // the kernel's words, without the number that Rust puts behind them
        let text = err.to_string();
        Error::new(text.split(" (os error ").next().unwrap_or(&text))
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Error {
        io::Error::from(errno).into()
    }
}

/// Adds the operation where the object's name is known.
pub(crate) trait Context<T> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|err| err.into().within(operation()))
    }
}

/// Words from outside, safe for a terminal: quoted, escaped and not too long.
pub(crate) fn quoted(words: &str) -> String {
    let short: String = words.chars().take(WORDS_MAX).collect();
    match short.len() < words.len() {
        true => format!("{short:?}…"),
        false => format!("{short:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_goes_in_front_and_keeps_hint_and_kind() {
        let inner: Result<()> = Err(Error::new("refused").hint("near").passing());
        let err = inner.context(|| "get \"x\"".into()).unwrap_err().hint("far");
        assert_eq!(err.to_string(), "get \"x\": refused\nhint: near");
        assert!(err.is_passing());
    }

    #[test]
    fn words_from_outside_are_escaped_and_cut() {
        assert_eq!(quoted("a\x1b[2Jb"), "\"a\\u{1b}[2Jb\"");
        assert!(quoted(&"x".repeat(5000)).len() < 400);
    }
}
