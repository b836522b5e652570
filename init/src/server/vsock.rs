//! AF_VSOCK (vsock(7)): the API's listener, which takes the host's connections alone, and the word that we are ready.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use hyperstart_protocol::{MAX_VSOCK_WRITE, READY_LINE};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use ttrpc::asynchronous::transport::Socket;

use crate::error::{Code, Context, Error, Result};
use crate::log;

const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of memory or descriptors: time for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub fn listen(port: u32) -> Result<VsockListener> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
        .context(|| format!("listen on vsock port {port}"))
}

/// Passes on the host's connections.
pub async fn accept(listener: VsockListener, connections: mpsc::Sender<Socket>) {
    while connections.send(Socket::new(next_of_host(&listener).await)).await.is_ok() {} // until the server ends
}

/// The host's next connection. A peer that is not the host, such as a container, is turned away unheard.
pub async fn next_of_host(listener: &VsockListener) -> ShortWrites {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if is_host(&peer) => return ShortWrites(stream),
            Ok((_, peer)) => log::warn!(
                "vsock connection from CID {}: refused, only the host may call",
                peer.cid()
            ),
            Err(err) => {
                log::warn!("accept on vsock: {err}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A peer's context id is the kernel's word, not the peer's own.
fn is_host(peer: &VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST
}

/// Connects out to the host and says that the API can be called.
pub async fn announce(port: u32) -> Result<()> {
    let announcement = async {
        let mut stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port)).await?;
        stream.write_all(READY_LINE.as_bytes()).await
    };
    timeout(ANNOUNCE_DEADLINE, announcement)
        .await
        .map_err(|_elapsed| Error::new(Code::DeadlineExceeded, "no answer"))
        .and_then(|result| result.map_err(Error::from))
        .context(|| format!("announce to the host's vsock port {port}"))
}

/// Some vsock devices lose a write that is longer than a descriptor of theirs: none is.
pub struct ShortWrites(VsockStream);

impl ShortWrites {
    /// For who keeps its writes short itself.
    pub fn into_fd(self) -> OwnedFd {
        self.0.into()
    }
}

impl AsyncRead for ShortWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for ShortWrites {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let short = data.get(..MAX_VSOCK_WRITE).unwrap_or(data);
        Pin::new(&mut self.0).poll_write(context, short)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kernel of ours has a vsock loopback, so a connection from elsewhere cannot be made; what it would meet is this.
    #[test]
    fn the_host_alone_is_heard() {
        assert!(is_host(&VsockAddr::new(2, 1024)));
        for cid in [0, 1, 3, 1 << 31, VMADDR_CID_ANY] {
            assert!(!is_host(&VsockAddr::new(cid, 1024)), "{cid}");
        }
    }
}
