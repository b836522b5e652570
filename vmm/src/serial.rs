//! The virtio-serial transport: QEMU's connection for the port, and the READY line on it.
//!
//! The port is one stream for everybody: the guest first writes the READY line, then both sides speak ttrpc frames. We
//! listen, QEMU connects when it starts; after READY the stream is handed to the mux, which serves it to many clients.
//! The clients' socket is there from the beginning: who connects early waits for the guest.

use std::path::Path;

use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, Result};
use crate::mux::{Mux, Stream};
use crate::vsock;

/// A port whose guest has not said READY yet.
#[derive(Debug)]
pub struct SerialPort {
    listener: UnixListener,
    clients: UnixListener,
    /// Kept over a wait that was given up.
    stream: Option<BufReader<UnixStream>>,
    line: Vec<u8>,
}

impl SerialPort {
    /// Listens at `socket` for QEMU, and at `agent` for clients.
    ///
    /// # Errors
    /// [`Error::Io`] if a socket cannot be made.
    pub fn listen(socket: &Path, agent: &Path) -> Result<Self> {
        let listener = vsock::bind(socket)?;
        let clients = vsock::bind(agent)?;
        Ok(Self { listener, clients, stream: None, line: Vec::new() })
    }

    /// Waits for the READY line, without a deadline; may be given up and called again.
    ///
    /// # Errors
    /// [`Error::NotOurGuest`] if the guest says anything else, [`Error::Io`] if the connection ends.
    pub async fn ready(&mut self) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let (stream, _) =
                    self.listener.accept().await.map_err(Error::io("accept qemu's serial port"))?;
                self.stream.insert(BufReader::new(stream))
            }
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
