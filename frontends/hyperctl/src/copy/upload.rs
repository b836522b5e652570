//! To a container.

use std::fs::File;
use std::path::Path;

use hyperstart::{Container, Process};
use hyperstart_archive::{Source, pack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;

use super::exec::{ended, id, tend, there};
use super::place::{There, contents_of, name_of, target};
use super::stream::{self, Writer};
use crate::commands::cp::Flags;
use crate::error::{Context as _, Error, Result};
use crate::output as console;
use crate::pod::client::guest_error;

const CHUNK: usize = 64 << 10;

/// An archive that the user brings.
pub async fn from_stream(container: &Container, path: &str, flags: Flags) -> Result<()> {
    if there(container, path).await? != There::Directory {
        return Err(Error::new(format!("{path:?}: no such directory")));
    }
    let process = import(container, path, flags).await?;
    let copied = async {
        let (mut from, mut to) = (tokio::io::stdin(), process.stdin());
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await.context(|| "read standard input".into())?;
            let bytes = chunk.get(..length).unwrap_or_default();
            if length == 0 || to.write_all(bytes).await.is_err() {
                break; // who does not read on has ended, and says why
            }
        }
        close(to).await;
        ended(&process).await
    };
    tend(&process, copied).await.map(drop)
}

pub async fn from_host(container: &Container, from: &Path, to: &str, flags: Flags) -> Result<()> {
    let path = from.to_str().ok_or_else(|| Error::new(format!("{from:?}: not UTF-8")))?;
    let follow = flags.follow || path.ends_with('/') || contents_of(path);
    let found = if follow { from.metadata() } else { from.symlink_metadata() };
    let is_directory = found.context(|| format!("{from:?}"))?.is_dir();
    if path.ends_with('/') && !is_directory {
        return Err(Error::new(format!("{from:?}: is no directory")));
    }
    let target = target(path, is_directory, to, there(container, to).await?)?;
    let source = source(path, follow).context(|| format!("{from:?}"))?;
    let name = target.name.unwrap_or_else(|| ".".to_owned());
    let process = import(container, &target.directory, flags).await?;
    let (to, from) = stream::channel();
    let thread = spawn_blocking(move || {
        let mut notes = Vec::new();
        let packed = pack(&source, name.as_bytes(), &mut Writer(to), &mut |note| {
            notes.push(note.to_owned());
        });
        packed.map(|()| notes)
    });
    let copied = async {
        let is_whole = feed(from, &process).await;
        let packed = thread.await.map_err(|err| Error::new(err.to_string()))?;
        match packed {
            Ok(notes) => {
                close(process.stdin()).await;
                ended(&process).await?;
                Ok(notes)
            }
            // It could not be written because the guest's end has ended: that one knows why.
            Err(err) if !is_whole => {
                Err(ended(&process).await.err().unwrap_or(Error::new(err.to_string())))
            }
            Err(err) => Err(Error::new(format!("{err}; what came before it stays"))),
        }
    };
    for line in tend(&process, copied).await? {
        console::warn(format_args!("{line}"));
    }
    Ok(())
}

/// The directory above and the name in it; the directory itself where its content is meant.
fn source(path: &str, follow: bool) -> std::io::Result<Source> {
    let trimmed = path.trim_end_matches('/');
    let (directory, name) = match (name_of(path), trimmed.rsplit_once('/')) {
        (None, _) => (path, "."),
        (Some(name), None) => (".", name),
        (Some(name), Some(("", _))) => ("/", name),
        (Some(name), Some((parent, _))) => (parent, name),
    };
    let directory = File::open(directory)?;
    Ok(Source::open(directory.into(), name.as_bytes(), follow)?)
}

async fn import(container: &Container, path: &str, flags: Flags) -> Result<Process> {
    let process = container.import(id()?, path, !flags.archive).await;
    process.map_err(|err| guest_error(&err))
}

/// False: the other end takes no more.
async fn feed(mut from: Receiver<Vec<u8>>, process: &Process) -> bool {
    let mut to = process.stdin();
    while let Some(chunk) = from.recv().await {
        if to.write_all(&chunk).await.is_err() {
            return false;
        }
    }
    to.flush().await.is_ok()
}

/// The end of the input; who has ended does not need to hear it.
async fn close(mut stdin: hyperstart::Stdin) {
    if let Err(err) = stdin.shutdown().await {
        drop(err);
    }
}
