//! The virtio-serial transport: QEMU's connection for the port, and the READY line on it.
//!
//! The port is one stream for everybody: the guest first writes the READY line, then both sides speak ttrpc frames. We
//! listen, QEMU connects when it starts; after READY the stream is handed to the mux, which serves it to many clients.

use std::path::{Path, PathBuf};

use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, Result};
use crate::mux::{Mux, Stream};
use crate::vsock;

/// A port whose guest has not said READY yet.
#[derive(Debug)]
pub struct SerialPort {
    listener: UnixListener,
    /// Where clients will connect.
    agent: PathBuf,
    /// Kept over a wait that was given up.
    stream: Option<BufReader<UnixStream>>,
    line: Vec<u8>,
}

impl SerialPort {
    /// Listens at `socket` for QEMU; clients will be served at `agent`.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket cannot be made.
    pub fn listen(socket: &Path, agent: PathBuf) -> Result<Self> {
        let listener = vsock::bind(socket)?;
        Ok(Self { listener, agent, stream: None, line: Vec::new() })
    }

    /// Waits for the READY line, without a deadline; may be given up and called again.
    ///
    /// # Errors
    /// [`Error::NotOurGuest`] if the guest says anything else, [`Error::Io`] if the connection ends.
    pub async fn ready(&mut self) -> Result<()> {
        if self.stream.is_none() {
            let accepted =
                self.listener.accept().await.map_err(Error::io("accept qemu's serial port"))?;
            self.stream = Some(BufReader::new(accepted.0));
        }
        match &mut self.stream {
            Some(stream) => vsock::expect_ready(stream, &mut self.line).await,
            None => Ok(()),
        }
    }

    /// Serves the port to clients, once [`SerialPort::ready`] has succeeded.
    ///
    /// # Errors
    /// [`Error::Io`] if the clients' socket cannot be made.
    pub fn serve(self) -> Result<Mux> {
        let Some(stream) = self.stream else {
            return Err(Error::Transport {
                transport: "serial",
                reason: "the guest has not said READY".into(),
            });
        };
        let clients = vsock::bind(&self.agent)?;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Mux::serve(Stream { reader: Box::new(reader), writer: Box::new(writer) }, clients))
    }
}
