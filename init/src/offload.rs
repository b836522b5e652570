//! Work that may wait for a device or a peer: done by a child, so that the event loop goes on.
//!
//! The child is a copy of PID 1 in the same namespaces: a mount it makes is PID 1's too. It holds none of PID 1's
//! descriptors: whoever waits for the end of a pipe or a connection does not wait for it. It says how it went; after the
//! deadline it is killed, and where the kernel lets nobody kill it, it is left to itself.

pub mod shell;
pub mod tool;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sched::CloneFlags;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::time::timeout;

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::reaper::Reaper;
use crate::report::{self, Report, Reporter};
use crate::sys::process::{CloneArgs, clone_child, close_all_but, exit_now};

type Work<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// Runs `work` in a child and waits for its result, for `deadline` at most. What the work needs, it opens there.
pub async fn run(
    reaper: &Reaper,
    deadline: Duration,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    run_boxed(reaper, deadline, Box::new(work), None).await
}

/// Once for all kinds of work, for the size of PID 1. `keep` is what the work has of PID 1's.
async fn run_boxed(
    reaper: &Reaper,
    deadline: Duration,
    work: Work<'_>,
    keep: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let (listener, reporter) = report::channel()?;
    let child = clone_child(
        CloneArgs { namespaces: CloneFlags::empty(), cgroup: None },
        in_child,
        (work, keep, reporter),
    )
    .context(|| "clone".to_owned())?;
    reaper.watch(child.pid); // nobody waits for its exit: what it says is what counts
    match timeout(deadline, listener.next()).await {
        Ok(said) => match said? {
            Some(Report::Ready(_)) => Ok(()),
            Some(Report::Failed(err)) => Err(err),
            None => Err(Error::new(Code::Internal, "the child that did it ended without a word")),
        },
        Err(_elapsed) => {
            if let Err(err) = child.kill() {
                log::debug!("kill {}: {err}", child.pid); // it has just ended by itself
            }
            Err(Error::new(
                Code::DeadlineExceeded,
                format!("not done after {} s", deadline.as_secs()),
            ))
        }
    }
}

/// The same for work that finds something out; more than `most` bytes of it are an error.
pub async fn collect<W: FnOnce() -> Result<Vec<u8>>>(
    reaper: &Reaper,
    deadline: Duration,
    most: u64,
    work: W,
) -> Result<Vec<u8>> {
    let found = memory_file()?;
    let write = || Ok((&found).write_all(&work()?)?);
    run_boxed(reaper, deadline, Box::new(write), Some(found.as_fd())).await?;
    content(found, most)
}

/// What PID 1 and a child both see, and nobody waits for.
fn memory_file() -> Result<File> {
    named_memory_file("offload")
}

fn named_memory_file(name: &str) -> Result<File> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC);
    Ok(file.context(|| "make a file in memory".to_owned())?.into())
}

/// A file in memory, to be read from its start: unlike with a pipe, nobody has to wait for the reader.
pub fn filled_file(name: &str, content: &[u8]) -> Result<File> {
    let mut file = named_memory_file(name)?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// All of a file in memory.
fn content(mut file: File, most: u64) -> Result<Vec<u8>> {
    if file.metadata()?.len() > most {
        return Err(Error::new(Code::ResourceExhausted, format!("more than {most} bytes")));
    }
    file.rewind()?;
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

fn in_child((work, keep, reporter): (Work<'_>, Option<BorrowedFd<'_>>, Reporter)) -> ! {
    let done = || {
        close_all_but(&[reporter.as_fd(), keep.unwrap_or(reporter.as_fd())])?;
        work()?;
        reporter.ready(None)
    };
    match done() {
        Ok(()) => exit_now(0),
        Err(err) => {
            reporter.failed(&err);
            exit_now(1)
        }
    }
}
