//! The API on a virtio-serial port, for hosts without vsock.
//!
//! A port is one byte stream that outlives whoever is at its other end:
//!
//! ```text
//!           host opens its end            host closes its end
//! waiting ----------------------> served ----------------------> waiting
//!           we say READY, then          its connection ends,
//!           ttrpc frames flow           half a frame goes with it
//! ```
//! The driver names a port by a message that may come after boot, so ports are looked for again at every uevent.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use hyperstart_protocol::{READY_LINE, SERIAL_PORT_NAME};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::sleep;
use ttrpc::asynchronous::transport::Socket;

use crate::error::{Context, Result};
use crate::log;
use crate::sandbox::Sandbox;
use crate::sys::event;

const PORTS: &str = "/sys/class/virtio-ports";

/// The kernel reports a host that opens its end by no event that a closed port's descriptor would get, so it is asked.
const HOST_POLL: Duration = Duration::from_millis(100);

/// Serves every port of our name, whenever it appears.
pub async fn accept(sandbox: Rc<Sandbox>, connections: mpsc::Sender<Socket>) {
    let mut served = BTreeSet::new();
    loop {
        for port in named_ports() {
            if served.insert(port.clone()) {
                spawn_local(serve_port(port, connections.clone()));
            }
        }
        sandbox.uevents().next().await;
    }
}

fn named_ports() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(PORTS) else { return Vec::new() }; // no such device: no such class
    entries
        .flatten()
        .filter(|entry| {
            fs::read_to_string(entry.path().join("name"))
                .is_ok_and(|name| name.trim_end() == SERIAL_PORT_NAME)
        })
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .filter(|node| node.exists())
        .collect()
}

async fn serve_port(path: PathBuf, connections: mpsc::Sender<Socket>) {
    loop {
        match connect(&path).await {
            Ok((port, closed)) => {
                if connections.send(Socket::new(port)).await.is_err() {
                    return; // the server has ended
                }
                // The sender is dropped with the connection: either way it is over.
                closed.await.ok();
            }
            Err(err) => {
                log::error!("serve {path:?}: {err}");
                return;
            }
        }
    }
}

/// Waits for the host and greets it.
async fn connect(path: &Path) -> Result<(SerialPort, oneshot::Receiver<()>)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .context(|| "open".to_owned())?;
    while !host_is_there(&file)? {
        sleep(HOST_POLL).await;
    }
    let (open, closed) = oneshot::channel();
    let mut port = SerialPort { file: event::register(file.into())?, _open: open };
    port.write_all(READY_LINE.as_bytes()).await.context(|| "say ready".to_owned())?;
    Ok((port, closed))
}

fn host_is_there(file: &File) -> Result<bool> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).context(|| "poll".to_owned())?;
    let [state] = fds;
    Ok(!state.revents().unwrap_or(PollFlags::empty()).contains(PollFlags::POLLHUP))
}

struct SerialPort {
    file: AsyncFd<OwnedFd>,
    /// Dropped with the port: whoever holds the other half knows that the connection is over.
    _open: oneshot::Sender<()>,
}

impl AsyncRead for SerialPort {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.file.poll_read_ready(context))?;
            let result = ready.try_io(|file| {
                let count = rustix::io::read(file.get_ref(), buffer.initialize_unfilled())?;
                buffer.advance(count);
                Ok(())
            });
            match result {
                Ok(Err(err)) if err.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for SerialPort {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.file.poll_write_ready(context))?;
            match ready.try_io(|file| Ok(rustix::io::write(file.get_ref(), data)?)) {
                Ok(Err(err)) if err.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A port has no end-of-stream of its own: it closes when it is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
