//! What a child of PID 1's says to it, and the gate that it can be made to wait at.
//!
//! A pair of sockets that keeps record boundaries, both ends close-on-exec. For a process of a container:
//!
//! ```text
//! child -> PID 1   Ready (with the terminal's master, if any)    all is set up
//!                  Failed (code, message)                        and the child ends
//!                  end of file                                   execve has closed it: the program runs
//! PID 1 -> child   one byte                                      go on; end of file instead: nobody wants you
//! ```
//! For work that was offloaded, Ready is that it is done.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg,
    send, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use crate::error::{Code, Context, Error, Result};
use crate::sys::event;

/// A record's most: an error message is cut to it.
const RECORD_MAX: usize = 4096;

const READY: u8 = 1;
const FAILED: u8 = 2;

#[derive(Debug)]
pub enum Report {
    Ready(Option<OwnedFd>),
    Failed(Error),
}

/// The child's end; its calls block.
#[derive(Debug)]
pub struct Reporter(OwnedFd);

/// PID 1's end, in the event loop.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

pub fn channel() -> Result<(Listener, Reporter)> {
    let (ours, childs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context(|| "make a report socket".to_owned())?;
    Ok((Listener(event::register(ours)?), Reporter(childs)))
}

impl Reporter {
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn ready(&self, terminal: Option<BorrowedFd<'_>>) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = terminal.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Error::new(Code::Internal, "report: no space for a descriptor"));
        }
        sendmsg(&self.0, &[IoSlice::new(&[READY])], &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .context(|| "report".to_owned())
    }

    /// The last word of a child; where nobody listens any more, nobody needs it.
    pub fn failed(&self, err: &Error) {
        let mut record = vec![FAILED, code_number(err.code())];
        record.extend(cut(err.message(), RECORD_MAX - record.len()).bytes());
        // If PID 1 has let go of the other end, or is short of memory, it still sees how the child ends.
        send(&self.0, &record, SendFlags::NOSIGNAL).unwrap_or_default();
    }

    /// Waits at the gate: true is go, false that PID 1 has let go of the other end.
    pub fn wait(&self) -> Result<bool> {
        loop {
            match recv(&self.0, &mut [0], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => return Ok(received.context(|| "wait for start".to_owned())?.0 > 0),
            }
        }
    }
}

impl Listener {
    /// The next report; none at the end of file.
    pub async fn next(&self) -> Result<Option<Report>> {
        loop {
            let mut ready = self.0.readable().await?;
            match receive(self.0.as_fd()) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                // The child ended with a go unread.
                Err(Errno::CONNRESET) => return Ok(None),
                received => {
                    let (record, fd) = received.context(|| "receive a report".to_owned())?;
                    return parse(&record, fd);
                }
            }
        }
    }

    /// Opens the gate.
    pub fn go(&self) -> Result<()> {
        send(self.0.get_ref(), &[1], SendFlags::NOSIGNAL)
            .map(drop)
            .context(|| "open the gate".to_owned())
    }
}

fn receive(socket: BorrowedFd<'_>) -> rustix::io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut record = vec![0; RECORD_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut record)], &mut control, flags)?;
    let mut fd = None;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = ancillary {
            fd = fds.next();
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE); // the descriptor did not fit into our table
    }
    record.truncate(message.bytes);
    Ok((record, fd))
}

fn parse(record: &[u8], fd: Option<OwnedFd>) -> Result<Option<Report>> {
    match record {
        [] => Ok(None),
        [READY] => Ok(Some(Report::Ready(fd))),
        [FAILED, code, message @ ..] => {
            let message = String::from_utf8_lossy(message).into_owned();
            Ok(Some(Report::Failed(Error::new(code_of(*code), message))))
        }
        _ => Err(Error::new(Code::Internal, "a child sent a report that is none")),
    }
}

const CODES: [Code; 11] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::OutOfRange,
    Code::DeadlineExceeded,
    Code::Unimplemented,
    Code::Unavailable,
    Code::Internal,
];

fn code_number(code: Code) -> u8 {
    let at = CODES.iter().position(|known| *known == code);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

fn code_of(number: u8) -> Code {
    CODES.get(usize::from(number)).copied().unwrap_or(Code::Internal)
}

/// At most `max` bytes of `text`, whole characters.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn an_error_arrives_as_it_was_sent() {
        runtime().block_on(async {
            let (listener, reporter) = channel().unwrap();
            let sent =
                Error::new(Code::NotFound, "exec \"föö\": ENOENT: No such file or directory");
            reporter.failed(&sent);
            drop(reporter);
            let Some(Report::Failed(err)) = listener.next().await.unwrap() else {
                panic!("no error")
            };
            assert_eq!(err, sent);
            assert!(listener.next().await.unwrap().is_none(), "then the end");
        });
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        runtime().block_on(async {
            let (listener, reporter) = channel().unwrap();
            reporter.failed(&Error::new(Code::Internal, "é".repeat(5000)));
            let Some(Report::Failed(err)) = listener.next().await.unwrap() else {
                panic!("no error")
            };
            assert!(err.message().len() < RECORD_MAX && err.message().chars().all(|c| c == 'é'));
        });
    }

    #[test]
    fn ready_carries_a_descriptor_and_go_opens_the_gate() {
        runtime().block_on(async {
            let (listener, reporter) = channel().unwrap();
            reporter.ready(Some(reporter.0.as_fd())).unwrap();
            reporter.ready(None).unwrap();
            assert!(matches!(listener.next().await.unwrap(), Some(Report::Ready(Some(_)))));
            assert!(matches!(listener.next().await.unwrap(), Some(Report::Ready(None))));
            listener.go().unwrap();
            assert!(reporter.wait().unwrap());
            drop(listener);
            assert!(!reporter.wait().unwrap(), "nobody is left to open it");
        });
    }

    #[test]
    fn every_code_has_a_number() {
        for code in CODES {
            assert_eq!(code_of(code_number(code)), code);
        }
        assert_eq!(code_of(200), Code::Internal);
    }
}
