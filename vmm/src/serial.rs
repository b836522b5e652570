//! The virtio-serial transport: QEMU's connection for the port, and the READY line on it.
//!
//! The port is one stream for everybody: the guest first writes the READY line, then both sides speak ttrpc frames. We
//! listen, QEMU connects when it starts, or the other way round if the VM outlives its owner; after READY the stream is handed to the mux, which serves it to many clients.
//! The clients' socket is there from the beginning: who connects early waits for the guest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::mux::{Mux, Stream};
use crate::vsock;

/// How long the guest may take to greet an heir, before the line is broken and made again: it may not have seen that the
/// owner before was gone, and be in the middle of a frame. Its driver looks ten times a second; one that is given no CPU
/// gets twice the time after each failure.
const GREETING: Duration = Duration::from_secs(3);
const LONGEST_GREETING: Duration = Duration::from_secs(60);
const BREAK: Duration = Duration::from_millis(300);

/// A port whose guest has not said READY yet.
#[derive(Debug)]
pub struct SerialPort {
    line_end: LineEnd,
    clients: UnixListener,
    /// Kept over a wait that was given up.
    stream: Option<BufReader<UnixStream>>,
    line: Vec<u8>,
}

/// How the host's end of the line comes to be.
#[derive(Debug)]
enum LineEnd {
    /// QEMU connects.
    Accept(UnixListener),
    /// We do, to a line that is new, or that somebody else has had.
    Connect { socket: PathBuf, was_used: bool },
}

impl SerialPort {
    /// Connects to `socket`, where QEMU listens, and listens at `agent` for clients.
    ///
    /// # Errors
    /// [`Error::Io`] if a socket cannot be made.
    pub fn connect(socket: &Path, agent: &Path, was_used: bool) -> Result<Self> {
        let clients = vsock::bind(agent)?;
        let line_end = LineEnd::Connect { socket: socket.to_owned(), was_used };
        Ok(Self { line_end, clients, stream: None, line: Vec::new() })
    }

    /// Listens at `socket` for QEMU, and at `agent` for clients.
    ///
    /// # Errors
    /// [`Error::Io`] if a socket cannot be made.
    pub fn listen(socket: &Path, agent: &Path) -> Result<Self> {
        let listener = vsock::bind(socket)?;
        let clients = vsock::bind(agent)?;
        let line_end = LineEnd::Accept(listener);
        Ok(Self { line_end, clients, stream: None, line: Vec::new() })
    }

    /// Waits for the READY line, without a deadline; may be given up and called again.
    ///
    /// # Errors
    /// [`Error::NotOurGuest`] if the guest says anything else, [`Error::Io`] if the connection ends.
    pub async fn ready(&mut self) -> Result<()> {
        if !self.line_end.was_used() {
            return self.greeted().await;
        }
        let mut patience = GREETING;
        loop {
            match timeout(patience, self.greeted()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(err)) => log::debug!("serial port: {err}"), // QEMU may still serve one that was killed
                Err(_) => {
                    log::debug!("serial port: no greeting");
                    patience = (patience * 2).min(LONGEST_GREETING);
                }
            }
            self.stream = None;
            self.line.clear();
            sleep(BREAK).await;
        }
    }

    async fn greeted(&mut self) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(BufReader::new(self.line_end.open().await?)),
        };
        vsock::expect_ready(stream, &mut self.line).await
    }

    /// Serves the port to clients; `None` if nothing has connected to it: [`SerialPort::ready`] comes first.
    pub fn serve(self) -> Option<Mux> {
        let (reader, writer) = tokio::io::split(self.stream?);
        let stream = Stream { reader: Box::new(reader), writer: Box::new(writer) };
        Some(Mux::serve(stream, self.clients))
    }
}

impl LineEnd {
    async fn open(&self) -> Result<UnixStream> {
        match self {
            Self::Accept(listener) => {
                let accepted = listener.accept().await;
                Ok(accepted.map_err(Error::io("accept qemu's serial port"))?.0)
            }
            Self::Connect { socket, .. } => {
                let connected = UnixStream::connect(socket).await;
                connected.map_err(Error::io("connect to qemu's serial port"))
            }
        }
    }

    fn was_used(&self) -> bool {
        match self {
            Self::Accept(_) => false,
            Self::Connect { was_used, .. } => *was_used,
        }
    }
}
