//! From a container.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use hyperstart::{Container, OutputReader, Process, Stream};
use hyperstart_archive::{Kind, Links, Options, Owner, unpack};
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;

use super::exec::{ended, head, id, output, tend};
use super::place::{Target, target, there};
use super::stream::{self, Reader};
use crate::commands::cp::Flags;
use crate::error::{Context as _, Error, Result};
use crate::output as console;
use crate::pod::client::guest_error;

/// The archive as it comes.
pub async fn to_stream(container: &Container, path: &str, flags: Flags) -> Result<()> {
    let process = export(container, path, flags).await?;
    let copied = async {
        let mut output = output(&process, Stream::Stdout).await?;
        let mut to = tokio::io::stdout();
        while let Some(chunk) = output.next().await.map_err(|err| guest_error(&err))? {
            to.write_all(&chunk.data)
                .await
                .map_err(|err| Error::output("standard output", &err))?;
        }
        to.flush().await.map_err(|err| Error::output("standard output", &err))?;
        ended(&process).await
    };
    note(&tend(&process, copied).await?);
    Ok(())
}

pub async fn to_host(container: &Container, from: &str, to: &Path, flags: Flags) -> Result<()> {
    // What is there is replaced where it really is.
    let to = to.canonicalize().unwrap_or_else(|_| to.to_owned());
    let destination = to.to_str().ok_or_else(|| Error::new(format!("{to:?}: not UTF-8")))?;
    let there = there(&to)?;
    let process = export(container, from, flags).await?;
    let copied = async {
        let mut output = output(&process, Stream::Stdout).await?;
        let (head, kind) = head(&mut output).await?;
        let Some(kind) = kind else { return ended(&process).await };
        let target = target(from, kind == Kind::Directory, destination, there)?;
        let unpacked = write(&target, head, &mut output, flags).await;
        drop(output);
        finish(&process, unpacked).await
    };
    note(&tend(&process, copied).await?);
    Ok(())
}

async fn export(container: &Container, path: &str, flags: Flags) -> Result<Process> {
    let process = container.export(id()?, path, flags.follow).await;
    process.map_err(|err| guest_error(&err))
}

/// Has a thread unpack what comes. A top has the name that the user knows, whatever the guest calls it.
async fn write(
    target: &Target,
    head: Vec<u8>,
    output: &mut OutputReader,
    flags: Flags,
) -> Result<()> {
    let directory = File::open(&target.directory);
    let directory = directory.context(|| format!("open {:?}", target.directory))?;
    let options = Options {
        owner: if flags.archive { Owner::Archive } else { Owner::Caller },
        links: Links::Refused,
        devices: false,
        set_id: flags.archive,
        rename: target.name.clone().map(String::into_bytes),
    };
    let (to, from) = stream::channel();
    let thread = spawn_blocking(move || {
        let mut input = Reader { from, rest: head, taken: 0 };
        unpack(&mut input, directory.as_fd(), &options)
    });
    let pumped = async {
        while let Some(chunk) = output.next().await.map_err(|err| guest_error(&err))? {
            if to.send(chunk.data).await.is_err() {
                break; // the thread has ended, and says why
            }
        }
        Ok(())
    };
    let pumped: Result<()> = pumped.await;
    drop(to);
    let unpacked = thread.await.map_err(|err| Error::new(err.to_string()))?;
    pumped?;
    unpacked.map_err(|err| Error::new(format!("{err}; what came before it stays")))
}

/// An archive that is cut off is told by who cut it off.
async fn finish(process: &Process, unpacked: Result<()>) -> Result<String> {
    match unpacked {
        Ok(()) => ended(process).await,
        Err(err) if err.message().contains("truncated") => {
            ended(process).await?;
            Err(err)
        }
        Err(err) => Err(err),
    }
}

fn note(said: &str) {
    for line in said.lines() {
        console::warn(format_args!("{line}"));
    }
}
