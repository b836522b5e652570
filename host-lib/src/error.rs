//! What went wrong: which operation, on which object, why, and whether another try may help.
//!
//! A [`Code`] is for a program to act on, [`Error::message`] for a person to read. Codes are gRPC's, since that is what
//! the guest answers with on the wire; [`Error`]s that arise on this side of the wire use the same ones.
//! The text of an answer comes from inside the guest, so it is not trusted: it is cut at a fixed length and its control
//! characters are escaped before it can reach a terminal or a log.

use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

use protobuf::Enum;

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest message that is kept of a guest's answer, in bytes.
const MESSAGE_MAX: usize = 4096;

/// What the caller can do about an [`Error`]. Numbers and meaning are those of gRPC (`grpc/status.h`, "status codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The operation was given up, here or in the guest.
    Cancelled,
    /// The guest did not say why.
    Unknown,
    /// The request is wrong in itself: a bad id, a field that the guest refuses. The message names the field.
    InvalidArgument,
    /// No answer came in time. The operation may or may not have taken place.
    DeadlineExceeded,
    /// No such sandbox, container, process, binary, directory or user.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The guest's kernel, or the file mode of a binary, forbids it.
    PermissionDenied,
    /// Out of memory, of process ids, or of another limit in the guest.
    ResourceExhausted,
    /// The object is in the wrong state: started twice, an exec in a stopped container, another protocol version.
    FailedPrecondition,
    /// Another operation on the same object got in the way.
    Aborted,
    /// A number is outside of what is valid for it.
    OutOfRange,
    /// This guest, or the wire, does not have the feature. The message names it.
    Unimplemented,
    /// A fault of the guest's, or an answer that makes no sense.
    Internal,
    /// The guest cannot be reached, or the connection was lost.
    Unavailable,
    /// Data was lost.
    DataLoss,
    /// The guest does not accept the caller.
    Unauthenticated,
}

/// An operation that was not done.
///
/// `Display` writes `operation object: cause`, such as
/// `start container "web": exec "foo": ENOENT: No such file or directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    operation: &'static str,
    object: String,
    message: String,
}

impl Error {
    /// An error of `operation` on `object` (which may be empty).
    pub(crate) fn new(
        code: Code,
        operation: &'static str,
        object: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Self {
        Self { code, operation, object: object.to_string(), message: message.to_string() }
    }

    /// An answer of the guest that no correct guest gives.
    pub(crate) fn nonsense(
        operation: &'static str,
        object: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Self {
        Self::new(Code::Internal, operation, object, format_args!("guest answered {message}"))
    }

    /// What the caller can do about it.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What was to be done, such as `create container`.
    pub fn operation(&self) -> &str {
        self.operation
    }

    /// What it was to be done to, quoted where it is an id (`"web"`). Empty for the sandbox as a whole.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Why it was not done. Of a guest's answer at most 4 KiB are kept, with control characters escaped.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same call may succeed later: the guest was out of reach or out of a resource, or another operation was in
    /// the way. Where the connection was lost ([`Code::Unavailable`]), connect again first, and note that the lost call may
    /// have taken place.
    pub fn retryable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::ResourceExhausted | Code::Aborted)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// For the streams of a process: the kind that is nearest to the code, with the [`Error`] inside.
    fn from(err: Error) -> Self {
        let kind = match err.code {
            Code::InvalidArgument | Code::OutOfRange => io::ErrorKind::InvalidInput,
            Code::DeadlineExceeded => io::ErrorKind::TimedOut,
            Code::NotFound => io::ErrorKind::NotFound,
            Code::AlreadyExists => io::ErrorKind::AlreadyExists,
            Code::PermissionDenied | Code::Unauthenticated => io::ErrorKind::PermissionDenied,
            Code::ResourceExhausted => io::ErrorKind::OutOfMemory,
            Code::FailedPrecondition => io::ErrorKind::BrokenPipe,
            Code::Unimplemented => io::ErrorKind::Unsupported,
            Code::Internal | Code::DataLoss => io::ErrorKind::InvalidData,
            Code::Unavailable => io::ErrorKind::ConnectionReset,
            Code::Cancelled | Code::Unknown | Code::Aborted => io::ErrorKind::Other,
        };
        Self::new(kind, err)
    }
}

/// Why a call has no answer: half of an [`Error`], before operation and object are known.
pub(crate) struct Cause {
    code: Code,
    message: String,
}

impl Cause {
    /// No answer within the call's deadline.
    pub(crate) fn deadline(limit: Duration) -> Self {
        let seconds = limit.as_secs_f64();
        Self { code: Code::DeadlineExceeded, message: format!("no answer within {seconds} s") }
    }

    /// A request of so many bytes, which is more than the wire takes.
    pub(crate) fn too_large(bytes: u64) -> Self {
        let message = format!("a request of {bytes} bytes is larger than the wire takes (4 MiB)");
        Self { code: Code::InvalidArgument, message }
    }

    /// The agent that answers has no word for a property of an OCI spec.
    pub(crate) fn not_carried(property: &str) -> Self {
        let message =
            format!("{property}: this guest does not know our extensions of the agent API");
        Self { code: Code::Unimplemented, message }
    }

    /// The guest cannot do it.
    pub(crate) fn lacks(capability: &str) -> Self {
        let message = format!("this guest has no {capability:?}");
        Self { code: Code::Unimplemented, message }
    }

    /// What came, or did not come, on a stream.
    pub(crate) fn lost(why: impl fmt::Display) -> Self {
        Self { code: Code::Unavailable, message: format!("stream lost: {why}") }
    }

    /// An answer of the guest that no correct guest gives.
    pub(crate) fn nonsense(what: &str) -> Self {
        Self { code: Code::Internal, message: format!("guest answered {what}") }
    }

    /// An error of the guest's, with gRPC's number for its code.
    pub(crate) fn answered(code: u32, message: &str) -> Self {
        let code = i32::try_from(code).ok().and_then(ttrpc::Code::from_i32);
        let code = code.unwrap_or(ttrpc::Code::UNKNOWN);
        Self { code: code_of(code), message: printable(message) }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// There is no connection any more, or no runtime.
    pub(crate) fn closed() -> Self {
        Self { code: Code::Unavailable, message: "the connection is closed".to_owned() }
    }

    /// Makes an [`Error`] of it. To be given to `map_err`.
    pub(crate) fn of(
        operation: &'static str,
        object: impl fmt::Display,
    ) -> impl FnOnce(Self) -> Error {
        move |cause| Error::new(cause.code, operation, object, cause.message)
    }
}

impl From<ttrpc::Error> for Cause {
    fn from(err: ttrpc::Error) -> Self {
        match err {
            ttrpc::Error::RpcStatus(status) => {
                let message = match status.message() {
                    "" => "the guest does not say why".to_owned(),
                    text => printable(text),
                };
                Self { code: code_of(status.code()), message }
            }
            ttrpc::Error::Socket(cause) => {
                Self { code: Code::Unavailable, message: format!("connection lost: {cause}") }
            }
            ttrpc::Error::Nix(errno) => {
                Self { code: Code::Unavailable, message: format!("connection lost: {errno}") }
            }
            ttrpc::Error::LocalClosed | ttrpc::Error::RemoteClosed | ttrpc::Error::Eof => {
                Self::closed()
            }
            ttrpc::Error::Others(cause) => {
                Self { code: Code::Internal, message: printable(&cause) }
            }
        }
    }
}

fn code_of(code: ttrpc::Code) -> Code {
    match code {
        ttrpc::Code::OK | ttrpc::Code::UNKNOWN => Code::Unknown,
        ttrpc::Code::CANCELLED => Code::Cancelled,
        ttrpc::Code::INVALID_ARGUMENT => Code::InvalidArgument,
        ttrpc::Code::DEADLINE_EXCEEDED => Code::DeadlineExceeded,
        ttrpc::Code::NOT_FOUND => Code::NotFound,
        ttrpc::Code::ALREADY_EXISTS => Code::AlreadyExists,
        ttrpc::Code::PERMISSION_DENIED => Code::PermissionDenied,
        ttrpc::Code::UNAUTHENTICATED => Code::Unauthenticated,
        ttrpc::Code::RESOURCE_EXHAUSTED => Code::ResourceExhausted,
        ttrpc::Code::FAILED_PRECONDITION => Code::FailedPrecondition,
        ttrpc::Code::ABORTED => Code::Aborted,
        ttrpc::Code::OUT_OF_RANGE => Code::OutOfRange,
        ttrpc::Code::UNIMPLEMENTED => Code::Unimplemented,
        ttrpc::Code::INTERNAL => Code::Internal,
        ttrpc::Code::UNAVAILABLE => Code::Unavailable,
        ttrpc::Code::DATA_LOSS => Code::DataLoss,
    }
}

/// The guest's text, made safe to print: cut at [`MESSAGE_MAX`], control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(MESSAGE_MAX));
    for character in text.chars() {
        if safe.len() >= MESSAGE_MAX {
            safe.push('…');
            break;
        }
        if character.is_control() {
            // Writing to a String cannot fail.
            write!(safe, "{}", character.escape_default()).unwrap_or_default();
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_operation_object_cause() {
        let err = Error::new(Code::NotFound, "start container", "\"web\"", "exec \"foo\": ENOENT");
        assert_eq!(err.to_string(), "start container \"web\": exec \"foo\": ENOENT");
        let err = Error::new(Code::Unavailable, "check sandbox", "", "connection lost");
        assert_eq!(err.to_string(), "check sandbox: connection lost");
    }

    #[test]
    fn a_guests_text_cannot_drive_a_terminal_or_fill_a_log() {
        assert_eq!(printable("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert!(printable(&"x".repeat(1 << 20)).len() <= MESSAGE_MAX + '…'.len_utf8());
        assert!(printable(&"\u{1}".repeat(1 << 20)).len() <= MESSAGE_MAX + 16);
    }

    #[test]
    fn only_what_passes_by_itself_is_worth_a_retry() {
        let retryable = |code| Error::new(code, "x", "", "y").retryable();
        assert!(retryable(Code::Unavailable) && retryable(Code::ResourceExhausted));
        assert!(!retryable(Code::NotFound) && !retryable(Code::Internal));
    }
}
