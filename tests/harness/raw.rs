//! A connection to the guest without a library in between, for what no library would send.
//!
//! ttrpc, as its specification has it: a frame is a be32 length, a be32 stream id, a type (1 request, 2 response) and
//! flags, then so many bytes; a request is a protobuf of service (1), method (2) and payload (3), a response one of
//! status (1: code 1, message 2) and payload (2). Written by hand here, so that a fault of the guest's cannot hide
//! behind the same fault in a crate that both ends use.

use std::io;

use hyperstart::Code;
use hyperstart_vmm::AgentAddress;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::vm::Vm;

/// Connects to the agent's port, or to another one of the guest's where it has ports.
pub(crate) async fn connect(vm: &Vm, to_port: Option<u32>) -> io::Result<Box<dyn Stream>> {
    Ok(match vm.machine().address() {
        AgentAddress::Vsock { cid, port } => {
            let address = VsockAddr::new(*cid, to_port.unwrap_or(*port));
            Box::new(VsockStream::connect(address).await?)
        }
        AgentAddress::Unix { path } => {
            assert_eq!(to_port, None, "a serial port has no ports");
            Box::new(UnixStream::connect(path).await?)
        }
        AgentAddress::Hybrid { path, port } => {
            let mut stream = UnixStream::connect(path).await?;
            let port = to_port.unwrap_or(*port);
            stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
            while stream.read_u8().await? != b'\n' {}
            Box::new(stream)
        }
    })
}

/// The type of a frame that asks.
pub const REQUEST: u8 = 1;
/// The type of a frame that answers.
pub const RESPONSE: u8 = 2;
/// The longest answer that a test reads.
const LONGEST: u32 = 8 << 20;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A connection.
pub struct Raw<'vm> {
    vm: &'vm Vm,
    stream: Box<dyn Stream>,
}

/// A frame, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream_id: u32,
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// What a response says: gRPC's code, a message, and the method's own answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub code: u64,
    pub message: String,
    pub payload: Vec<u8>,
}

impl<'vm> Raw<'vm> {
    pub(crate) async fn connect(vm: &'vm Vm) -> io::Result<Self> {
        Ok(Self { vm, stream: connect(vm, None).await? })
    }

    /// Sends bytes. A guest that has hung up by then is no error of the test's.
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.vm.run("send bytes", self.stream.write_all(bytes));
        if let Err(err) = sent {
            let hung_up = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(hung_up.contains(&err.kind()), "send bytes: {err}");
        }
    }

    /// The next frame; `None` when the guest has hung up.
    pub fn receive(&mut self) -> Option<Frame> {
        let read = async {
            let length = self.stream.read_u32().await?;
            let stream_id = self.stream.read_u32().await?;
            let kind = self.stream.read_u8().await?;
            let flags = self.stream.read_u8().await?;
            assert!(length <= LONGEST, "a frame of {length} bytes");
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).await?;
            Ok::<_, io::Error>(Frame { stream_id, kind, flags, payload })
        };
        self.vm.run("a frame", read).ok()
    }

    /// Asks and waits for the answer to that; `None` when the guest has hung up.
    pub fn try_call(
        &mut self,
        stream_id: u32,
        service: &str,
        method: &str,
        payload: &[u8],
    ) -> Option<Reply> {
        self.send(&frame(stream_id, REQUEST, 0, &request(service, method, payload)));
        loop {
            let frame = self.receive()?;
            if (frame.stream_id, frame.kind) == (stream_id, RESPONSE) {
                return Some(Reply::parse(&frame.payload));
            }
        }
    }

    /// Asks; the guest must answer.
    pub fn call(&mut self, stream_id: u32, service: &str, method: &str, payload: &[u8]) -> Reply {
        let reply = self.try_call(stream_id, service, method, payload);
        reply.unwrap_or_else(|| panic!("{service}/{method}: the guest has hung up"))
    }
}

impl Reply {
    /// Reads a response; the tests take what they cannot read for no answer at all.
    fn parse(bytes: &[u8]) -> Self {
        let mut reply = Self::default();
        for (number, value) in fields(bytes) {
            match (number, value) {
                (1, Value::Bytes(status)) => {
                    for (number, value) in fields(status) {
                        match (number, value) {
                            (1, Value::Number(code)) => reply.code = code,
                            (2, Value::Bytes(text)) => {
                                reply.message = String::from_utf8_lossy(text).into_owned()
                            }
                            _ => {}
                        }
                    }
                }
                (2, Value::Bytes(payload)) => reply.payload = payload.to_owned(),
                _ => {}
            }
        }
        reply
    }

    /// Whether the guest answered with this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == number(code)
    }
}

/// gRPC's numbers (grpc/status.h).
fn number(code: Code) -> u64 {
    match code {
        Code::InvalidArgument => 3,
        Code::NotFound => 5,
        Code::AlreadyExists => 6,
        Code::PermissionDenied => 7,
        Code::ResourceExhausted => 8,
        Code::FailedPrecondition => 9,
        Code::OutOfRange => 11,
        Code::Unimplemented => 12,
        Code::Internal => 13,
        other => panic!("no test asks for {other:?}"),
    }
}

/// A frame with a length that is true.
pub fn frame(stream_id: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length");
    [&header(length, stream_id, kind, flags)[..], payload].concat()
}

/// A frame's header, true or not.
pub fn header(length: u32, stream_id: u32, kind: u8, flags: u8) -> [u8; 10] {
    let mut header = [0; 10];
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..8].copy_from_slice(&stream_id.to_be_bytes());
    header[8..].copy_from_slice(&[kind, flags]);
    header
}

/// A ttrpc request.
pub fn request(service: &str, method: &str, payload: &[u8]) -> Vec<u8> {
    [bytes_field(1, service.as_bytes()), bytes_field(2, method.as_bytes()), bytes_field(3, payload)]
        .concat()
}

/// A protobuf field of wire type 2: bytes, text, a message.
pub fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    put_varint(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

/// A protobuf field of wire type 0.
pub fn number_field(number: u8, value: u64) -> Vec<u8> {
    let mut field = vec![number << 3];
    put_varint(&mut field, value);
    field
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, as far as it can be read.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while let Some(key) = take_varint(&mut bytes) {
        let Some(value) = take_varint(&mut bytes) else { break };
        match key & 7 {
            0 => fields.push((key >> 3, Value::Number(value))),
            2 => {
                let length = usize::try_from(value).unwrap_or(usize::MAX);
                let Some((field, rest)) = bytes.split_at_checked(length) else { break };
                bytes = rest;
                fields.push((key >> 3, Value::Bytes(field)));
            }
            _ => break,
        }
    }
    fields
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
