//! A process's stream on a vsock connection of its own, without a library in between (`guest.proto`, "Streams").

use std::io;

use hyperstart_protocol::STREAM_PORT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{Value, connect, fields};
use crate::vm::Vm;

pub const OPEN: u8 = 1;
pub const OPENED: u8 = 2;
pub const DATA: u8 = 3;
pub const TAKEN: u8 = 4;
pub const END: u8 = 5;
pub const FAILED: u8 = 6;

/// A connection to the port of streams.
pub struct RawStream<'vm> {
    vm: &'vm Vm,
    stream: Box<dyn crate::raw::Stream>,
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Frame(u8, Vec<u8>),
    /// Code and message.
    Failed(u64, String),
    HungUp,
}

impl Vm {
    /// A connection to the guest's port of streams, with nothing said yet.
    pub fn raw_stream(&self) -> RawStream<'_> {
        let stream = self.run("connect", connect(self, Some(STREAM_PORT)));
        RawStream { vm: self, stream: stream.expect("connect to the port of streams") }
    }
}

impl RawStream<'_> {
    /// Sends bytes. A guest that has hung up by then is no error of the test's.
    pub fn send(&mut self, bytes: &[u8]) {
        self.vm.run("send bytes", self.stream.write_all(bytes)).ok();
    }

    /// Sends a frame with a length that is true.
    pub fn frame(&mut self, kind: u8, payload: &[u8]) {
        self.send(&[&header(kind, payload.len())[..], payload].concat());
    }

    /// The next frame.
    pub fn receive(&mut self) -> Said {
        let read = async {
            let kind = self.stream.read_u32().await?.to_be_bytes()[0];
            let length = usize::try_from(self.stream.read_u32().await?).unwrap();
            assert!(length <= 64 << 10, "a frame of {length} bytes");
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await?;
            Ok::<_, io::Error>((kind, payload))
        };
        match self.vm.run("a stream's frame", read) {
            Ok((FAILED, payload)) => failed(&payload),
            Ok((kind, payload)) => Said::Frame(kind, payload),
            Err(_) => Said::HungUp,
        }
    }
}

/// A header, true or not.
pub fn header(kind: u8, length: usize) -> [u8; 8] {
    let mut header = [kind, 0, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    header
}

fn failed(payload: &[u8]) -> Said {
    let (mut code, mut message) = (0, String::new());
    for (number, value) in fields(payload) {
        match (number, value) {
            (1, Value::Number(number)) => code = number,
            (2, Value::Bytes(text)) => message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Said::Failed(code, message)
}
