//! How the bytes reach the guest: which socket, and the greeting that some of them want before the first frame.
//!
//! One attempt is made here, without a deadline; [`crate::connection`] retries. Nothing of ttrpc is known here.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_vsock::{VsockAddr, VsockStream};

/// The longest greeting that is read, in bytes: `OK ` and a port number are at most 14.
const GREETING_MAX: usize = 64;

/// Where a guest listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A vsock of the host's kernel (`/dev/vhost-vsock`), see vsock(7).
    Vsock {
        /// The guest's context id, 3 or more.
        cid: u32,
        /// The port in the guest, usually [`hyperstart_protocol::AGENT_PORT`].
        port: u32,
    },
    /// A unix socket of the VMM that asks for `CONNECT <port>\n` and answers a line with `OK` in it: Firecracker, Cloud
    /// Hypervisor, vhost-device-vsock ("hybrid vsock").
    Hybrid {
        /// The socket of the VMM.
        path: PathBuf,
        /// The port in the guest, usually [`hyperstart_protocol::AGENT_PORT`].
        port: u32,
    },
    /// A unix socket that leads to the guest as it is.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

/// A byte stream to a guest.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

impl Transport {
    /// The way to another port of the same guest; none where there are no ports.
    pub(crate) fn to_port(&self, port: u32) -> Option<Self> {
        match self {
            Self::Vsock { cid, .. } => Some(Self::Vsock { cid: *cid, port }),
            Self::Hybrid { path, .. } => Some(Self::Hybrid { path: path.clone(), port }),
            Self::Unix { .. } => None,
        }
    }

    /// A byte stream to another port of the same guest, such as that of a debug console. One attempt, which may take for
    /// ever: the caller has the deadline.
    ///
    /// # Errors
    /// What the socket says; `Unsupported` where the transport has no ports.
    pub async fn connect_port(
        &self,
        port: u32,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let no_ports =
            || io::Error::new(io::ErrorKind::Unsupported, format!("{self} has no ports"));
        self.to_port(port).ok_or_else(no_ports)?.open().await
    }

    /// One attempt to connect. It may take for ever: the caller has the deadline.
    pub(crate) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Vsock { cid, port } => {
                Ok(Box::new(VsockStream::connect(VsockAddr::new(*cid, *port)).await?))
            }
            Self::Hybrid { path, port } => {
                let mut stream = UnixStream::connect(path).await?;
                greet(&mut stream, *port).await?;
                Ok(Box::new(stream))
            }
            Self::Unix { path } => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

impl fmt::Display for Transport {
    /// Writes `vsock:CID:PORT`, `hybrid:PATH:PORT` or `unix:PATH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Hybrid { path, port } => write!(f, "hybrid:{}:{port}", path.display()),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Asks a hybrid vsock for a port. Reads byte by byte: what follows the line belongs to the guest.
async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), port: u32) -> io::Result<()> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut line = Vec::with_capacity(GREETING_MAX);
    while line.len() < GREETING_MAX {
        match stream.read_u8().await? {
            b'\n' if line.windows(2).any(|word| word == b"OK") => return Ok(()),
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("VMM answered {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn greeting(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let (mut here, mut there) = tokio::io::duplex(256);
        there.write_all(answer).await.unwrap();
        greet(&mut here, 1024).await?;
        let mut asked = vec![0; 13];
        there.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, b"CONNECT 1024\n");
        drop(there);
        let mut rest = Vec::new();
        here.read_to_end(&mut rest).await.unwrap();
        Ok(rest)
    }

    #[tokio::test]
    async fn the_greeting_ends_with_its_line() {
        assert_eq!(greeting(b"OK 1073741824\nframe").await.unwrap(), b"frame");
    }

    #[tokio::test]
    async fn a_refusal_is_an_error() {
        let err = greeting(b"NO\n").await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_endless_greeting_is_given_up() {
        let err = greeting(&[b'x'; 200]).await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused);
    }
}
