//! Streams of processes, a vsock connection each: port 1029, `guest.proto`, "Streams".
//!
//! ```text
//! host: OPEN ─▶ guest: OPENED, then DATA … END ─▶ host: TAKEN …      an output
//!                              ◀─ DATA … END      guest: TAKEN …      stdin
//! ```
//! What does not keep to it is told so by FAILED and ends that connection; nothing else notices. A connection holds
//! at most a small buffer; what it has not taken yet stands in the output's ring, which is bounded. A peer that closes,
//! be it one direction, is gone.

mod input;
mod output;
mod wide;
mod wire;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hyperstart_protocol::guest::{
    StreamFailure, StreamOpen, StreamOpened, stream_open::Which as WireWhich,
};
use hyperstart_protocol::stream::Kind;
use protobuf::{Enum, Message};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_vsock::VsockListener;

use super::kata::ids;
use super::rpc::wire_code;
use super::vsock;
use crate::container::{ContainerId, ExecId, Process};
use crate::error::{Code, Error};
use crate::log;
use crate::sandbox::Sandbox;
use crate::stdio::{Counted, Reader, Start, Which, reader_named};
use wire::{Incoming, Stop, Wire, bad};

/// Connections at a time.
const MOST: usize = 256;
/// Those of them at a time whose output's ring is wide.
const WIDE_MOST: usize = 8;
/// How long a peer may take to say what it wants, and to take the rest of a frame.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take to hang up after it was told of a failure.
const FAREWELL: Duration = Duration::from_secs(2);

pub async fn serve(listener: VsockListener, sandbox: Rc<Sandbox>) {
    let open = Rc::new(Cell::new(0));
    let wide = Rc::new(Cell::new(0));
    for number in 0_u64.. {
        let connection = vsock::next_of_host(&listener).await.into_fd();
        let wire = match Wire::new(connection) {
            Ok(wire) => wire,
            Err(err) => {
                log::warn!("stream: {err}");
                continue;
            }
        };
        let (sandbox, counted) = (Rc::clone(&sandbox), Counted::new(&open, MOST));
        let wide = Rc::clone(&wide);
        spawn_local(async move {
            let mut incoming = Incoming::new(&wire);
            let result = match counted {
                Some(_) => stream(&wire, &mut incoming, &sandbox, &wide, number).await,
                None => Err(Stop::Failed(Error::new(
                    Code::ResourceExhausted,
                    format!("there are {MOST} streams"),
                ))),
            };
            if let Err(Stop::Failed(err)) = result {
                log::warn!("stream: {err}");
                let farewell = say_why(&wire, &mut incoming, &err);
                timeout(FAREWELL, farewell).await.ok(); // it does not listen
            }
        });
    }
}

/// The process whose stream it is.
struct Subject<'a> {
    sandbox: &'a Sandbox,
    wide: &'a Rc<Cell<usize>>,
    id: ContainerId,
    exec_id: Option<ExecId>,
    process: Rc<Process>,
}

async fn stream(
    wire: &Wire,
    incoming: &mut Incoming<'_>,
    sandbox: &Sandbox,
    wide: &Rc<Cell<usize>>,
    number: u64,
) -> Result<(), Stop> {
    let open = timeout(PATIENCE, read_open(incoming)).await;
    let open = open.map_err(|_elapsed| {
        Stop::Failed(Error::new(Code::DeadlineExceeded, "nothing was asked for"))
    })??;
    let (id, exec_id) = ids(&open.container_id, &open.exec_id)?;
    let process = sandbox.process(&id, exec_id.as_ref())?;
    let subject = Subject { sandbox, wide, id, exec_id, process };
    let which = match open.stream.enum_value() {
        Ok(WireWhich::STDOUT_STREAM) => Which::Stdout,
        Ok(WireWhich::STDERR_STREAM) => Which::Stderr,
        Ok(WireWhich::STDIN_STREAM) => {
            return input::receive(wire, incoming, &subject, &open).await;
        }
        Err(number) => return Err(bad(format!("stream {number}: no such stream"))),
    };
    let reader = reader_named(&open.reader)?.unwrap_or(Reader::Connection(number));
    let start = Start { offset: open.offset, or_oldest: open.or_oldest };
    output::send(wire, incoming, &subject, which, reader, start).await
}

async fn read_open(incoming: &mut Incoming<'_>) -> Result<StreamOpen, Stop> {
    let (kind, length) = incoming.header().await?;
    if kind != Kind::Open as u8 {
        return Err(bad(format!("a frame of kind {kind} before OPEN")));
    }
    let payload = incoming.payload(length).await?;
    StreamOpen::parse_from_bytes(payload).map_err(|_err| bad("OPEN: malformed".to_owned()))
}

async fn opened(wire: &Wire, offset: u64) -> Result<(), Stop> {
    let mut opened = StreamOpened::new();
    opened.offset = offset;
    wire.send(Kind::Opened, &encoded(&opened)).await
}

async fn say_why(wire: &Wire, incoming: &mut Incoming<'_>, err: &Error) {
    let mut failure = StreamFailure::new();
    failure.code = u32::try_from(wire_code(err.code()).value()).unwrap_or_default();
    err.message().clone_into(&mut failure.message);
    if wire.send(Kind::Failed, &encoded(&failure)).await.is_ok() {
        incoming.discard().await; // a peer that still sends would not read it
    }
}

/// A message of ours, which is always small enough.
fn encoded(message: &impl Message) -> Vec<u8> {
    message.write_to_bytes().unwrap_or_default()
}
