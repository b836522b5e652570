//! The guest's end of a copy: an exec that packs or unpacks. Neither it nor what is remembered of it outlives us if we can
//! help it.

use std::future::Future;
use std::time::Duration;

use hyperstart::{Container, ExecId, OutputReader, Process, Stream};
use hyperstart_archive::{Kind, Reader};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::place::There;
use crate::error::{Error, Result};
use crate::pod::client::guest_error;
use crate::pod::name::random_hex;
use crate::signals::{SIGKILL, Signals};

/// What it says when it fails is a line.
const COMPLAINT: u64 = 64 << 10;
/// An entry's head, with the longest of names.
const HEAD: usize = 2 << 20;
const FAREWELL: Duration = Duration::from_secs(5);

pub fn id() -> Result<ExecId> {
    ExecId::new(format!("cp-{}", random_hex::<8>()?)).map_err(|err| guest_error(&err))
}

/// Its output, or its errors.
pub async fn output(process: &Process, stream: Stream) -> Result<OutputReader> {
    process.output(stream).open().await.map_err(|err| guest_error(&err))
}

/// Does the work with the exec, kills the exec if that fails or a signal ends it before its time, and has it forgotten: of
/// those that have ended a guest remembers so many, until it takes no more.
pub async fn tend<T>(process: &Process, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut signals = Signals::listen()?;
    let done = tokio::select! {
        done = work => done,
        signal = signals.next_ending() => Err(Error::interrupted(signal)),
    };
    if done.is_err() {
        kill(process).await;
    }
    let forgotten = timeout(FAREWELL, async {
        process.wait().await?;
        process.delete().await
    });
    if let Ok(Err(err)) = forgotten.await {
        drop(err); // it is forgotten already, or the guest is gone
    }
    done
}

async fn kill(process: &Process) {
    if let Ok(Err(err)) = timeout(FAREWELL, process.signal(SIGKILL)).await {
        drop(err); // it has ended already
    }
}

/// Waits for its end, which must be a good one: what it has said is told, as an error or as a note.
pub async fn ended(process: &Process) -> Result<String> {
    let said = async {
        let mut said = Vec::new();
        let mut stderr = output(process, Stream::Stderr).await?.take(COMPLAINT);
        stderr.read_to_end(&mut said).await.map_err(|err| Error::new(err.to_string()))?;
        Ok(printable(String::from_utf8_lossy(&said).trim_end()))
    };
    let status = async { process.wait().await.map_err(|err| guest_error(&err)) };
    let (said, status) = tokio::try_join!(said, status)?;
    match status.code() {
        0 => Ok(said),
        code if said.is_empty() => Err(Error::new(format!("the guest's end failed ({code})"))),
        _ => Err(Error::new(said)),
    }
}

/// What a guest says may be anything: lines without escapes.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// Reads an archive until it is known what its top is. Gives what was read.
pub async fn head(output: &mut OutputReader) -> Result<(Vec<u8>, Option<Kind>)> {
    let mut head = Vec::new();
    loop {
        if let Ok(Some(entry)) = Reader::new(&mut head.as_slice()).next_entry() {
            return Ok((head, Some(entry.kind)));
        }
        match output.next().await.map_err(|err| guest_error(&err))? {
            Some(chunk) if head.len() < HEAD => head.extend(chunk.data),
            Some(_) | None => return Ok((head, None)),
        }
    }
}

/// What is at a path of the container, links followed.
pub async fn there(container: &Container, path: &str) -> Result<There> {
    let process = match container.export(id()?, path, true).await {
        Err(err) if err.code() == hyperstart::Code::NotFound => return Ok(There::Nothing),
        process => process.map_err(|err| guest_error(&err))?,
    };
    let look = async {
        let mut output = output(&process, Stream::Stdout).await?;
        let head = head(&mut output).await;
        kill(&process).await; // the rest of the archive is nobody's business
        head
    };
    let (_, kind) = tend(&process, look).await?;
    match kind {
        Some(Kind::Directory) => Ok(There::Directory),
        Some(_) | None => Ok(There::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_a_guest_says_is_printable() {
        assert_eq!(printable("a\x1b[2J\nb\r\u{9b}"), "a?[2J\nb??");
    }
}
