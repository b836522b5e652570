//! One ttrpc stream, many clients: the host's end of a virtio-serial port.
//!
//! ```text
//! client A ─┐ requests, whole frames          ┌─ route: wire id 7 = (A, 1)
//! client B ─┤────────► queue ► writer ═══════ │ ═════════► guest
//! client C ─┘ ◄──────── each its own queue ◄─ reader ◄════════════
//! ```
//!
//! Each client numbers its streams for itself, so a request gets a stream id of ours, which its answer turns back. Two
//! tasks own the guest's stream; the routes are shared with the clients' tasks. The rules:
//!
//! - Only whole frames are forwarded: a client that dies within one never corrupts the line.
//! - A frame that breaks the rules (too long, a stream id that is in use or unknown) ends the client that sent it;
//!   from the guest it ends the line, because there is nothing to go on from.
//! - Stream ids of ours are odd and grow, as ttrpc wants it; they are given out by the one task that writes. Those of a
//!   client that is gone stay reserved until the guest has answered, so that no answer reaches another client.
//! - Nobody waits for a slow client: what it does not read is queued up to 16 MiB, then it is dropped.
//!   The guest may be slow: all clients wait.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyperstart_protocol::{FRAME_HEADER, MAX_FRAME};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The most clients at one time.
const MAX_CLIENTS: usize = 256;
/// The most streams that one client may have open.
const MAX_STREAMS: usize = 4096;
/// The most bytes that wait for one client to read them.
const MAX_QUEUED: usize = 4 * MAX_FRAME;
/// Frames that wait to be written to the guest.
const QUEUE: usize = 16;

/// Frame types, from ttrpc's protocol description.
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// Both directions of the guest's stream.
pub struct Stream {
    /// From the guest.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// To the guest.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// A running mux; clients and line end when it is dropped.
#[derive(Debug)]
pub struct Mux {
    /// The tasks; they are aborted with it.
    _tasks: JoinSet<()>,
    ended: watch::Receiver<Option<String>>,
}

impl Mux {
    /// Serves `guest` to whoever connects to `clients`.
    pub fn serve(guest: Stream, clients: UnixListener) -> Self {
        let routes = Arc::new(Routes::default());
        let (frames, queue) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(clients, Arc::clone(&routes), frames));
        tasks.spawn(async move {
            let line = tokio::select! {
                result = write_guest(guest.writer, queue, &routes) => result,
                result = read_guest(guest.reader, &routes) => result,
            };
            let reason = line.err().map_or_else(|| "closed".to_owned(), |err| err.to_string());
            log::debug!("serial port: {reason}");
            routes.close();
            end.send_replace(Some(reason));
        });
        Self { _tasks: tasks, ended }
    }

    /// Waits until the guest's stream has ended, and says why.
    pub async fn ended(&self) -> String {
        match self.ended.clone().wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the mux was stopped".to_owned(),
        }
    }
}

/// A frame: the header's fields, and the payload that the header announced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    stream: u32,
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn bytes(&self) -> usize {
        FRAME_HEADER + self.payload.len()
    }

    /// Reads one frame; `None` at an end between frames.
    async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<Self>> {
        let mut header = [0; FRAME_HEADER];
        if reader.read(header.get_mut(..1).unwrap_or_default()).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(header.get_mut(1..).unwrap_or_default()).await?;
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if usize::try_from(length).map_or(true, |length| length > MAX_FRAME) {
            return Err(invalid(format!(
                "a frame of {length} bytes, at most {MAX_FRAME} are possible"
            )));
        }
        // The payload grows as it comes: a claimed length alone takes no memory.
        let mut payload = Vec::new();
        let got = reader.take(u64::from(length)).read_to_end(&mut payload).await?;
        if u32::try_from(got) != Ok(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Self { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, flags, payload }))
    }

    /// Header and payload in one piece: one write is one frame on the line.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX); // `read` has bounded it
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend([self.kind, self.flags]);
        bytes.extend(&self.payload);
        bytes
    }
}

fn invalid(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

type ClientId = u64;

/// Who waits for which stream of the guest.
#[derive(Default)]
struct Routes(Mutex<Table>);

#[derive(Default)]
struct Table {
    closed: bool,
    next_client: ClientId,
    /// The last stream id that was given out; 0 at first, odd after.
    last_stream: Option<u32>,
    clients: HashMap<ClientId, Client>,
    /// By the guest's stream id; a client that is gone may still be named here.
    streams: HashMap<u32, (ClientId, u32)>,
}

struct Client {
    answers: mpsc::UnboundedSender<Frame>,
    queued: Arc<AtomicUsize>,
    /// The client's stream id -> the guest's.
    streams: HashMap<u32, u32>,
}

impl Routes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a client; `None` if there are too many, or the line has ended.
    fn enter(&self) -> Option<(ClientId, mpsc::UnboundedReceiver<Frame>, Arc<AtomicUsize>)> {
        let mut table = self.table();
        if table.closed || table.clients.len() >= MAX_CLIENTS {
            return None;
        }
        let id = table.next_client;
        table.next_client += 1;
        let (answers, queue) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let client = Client { answers, queued: Arc::clone(&queued), streams: HashMap::new() };
        table.clients.insert(id, client);
        Some((id, queue, queued))
    }

    /// Forgets a client. Its tasks end because its queue does; its streams wait for the guest's answer.
    fn leave(&self, id: ClientId) {
        self.table().clients.remove(&id);
    }

    fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        table.clients.clear();
    }

    /// Gives a client's frame the guest's stream id.
    fn to_guest(&self, id: ClientId, mut frame: Frame) -> Result<Frame, String> {
        let mut table = self.table();
        let stream = frame.stream;
        if frame.kind == REQUEST {
            frame.stream = table.open(id, stream)?;
        } else {
            let client = table.clients.get(&id).ok_or("it is gone")?;
            let Some(wire) = client.streams.get(&stream) else {
                return Err(format!("a frame for stream {stream}, which is not open"));
            };
            frame.stream = *wire;
        }
        Ok(frame)
    }

    /// Hands the guest's frame to the client that waits for it, if it is still there.
    fn to_client(&self, mut frame: Frame) {
        let mut table = self.table();
        let wire = frame.stream;
        let Some(&(id, stream)) = table.streams.get(&wire) else {
            log::debug!("serial port: an answer for stream {wire}, which nobody has opened");
            return;
        };
        let is_last = frame.kind == RESPONSE;
        if is_last {
            table.streams.remove(&wire);
        }
        let Some(client) = table.clients.get_mut(&id) else { return };
        if is_last {
            client.streams.remove(&stream);
        }
        frame.stream = stream;
        let queued = client.queued.fetch_add(frame.bytes(), Ordering::Relaxed) + frame.bytes();
        if queued > MAX_QUEUED || client.answers.send(frame).is_err() {
            log::warn!("serial port: client {id} does not read its answers");
            table.clients.remove(&id);
        }
    }
}

impl Table {
    /// A new stream of the guest for the client's `stream`.
    fn open(&mut self, id: ClientId, stream: u32) -> Result<u32, String> {
        let wire = self.next_stream();
        let client = self.clients.get_mut(&id).ok_or("it is gone")?;
        if client.streams.len() >= MAX_STREAMS {
            return Err(format!("more than {MAX_STREAMS} open streams"));
        }
        if client.streams.contains_key(&stream) {
            return Err(format!("a request on stream {stream}, which is open"));
        }
        client.streams.insert(stream, wire);
        self.streams.insert(wire, (id, stream));
        Ok(wire)
    }

    /// The next odd id that is free: after 2^31 requests they begin again.
    fn next_stream(&mut self) -> u32 {
        loop {
            let next = self.last_stream.map_or(1, |last| last.wrapping_add(2));
            self.last_stream = Some(next);
            if !self.streams.contains_key(&next) {
                return next;
            }
        }
    }
}

/// What a client sends, on its way to the one task that writes.
type Outgoing = (ClientId, Frame);

async fn write_guest(
    mut guest: Box<dyn AsyncWrite + Send + Unpin>,
    mut queue: mpsc::Receiver<Outgoing>,
    routes: &Routes,
) -> io::Result<()> {
    while let Some((id, frame)) = queue.recv().await {
        match routes.to_guest(id, frame) {
            Ok(frame) => {
                guest.write_all(&frame.encode()).await?;
                guest.flush().await?;
            }
            Err(reason) => {
                log::debug!("serial port: client {id}: {reason}");
                routes.leave(id);
            }
        }
    }
    Ok(())
}

async fn read_guest(
    mut guest: Box<dyn AsyncRead + Send + Unpin>,
    routes: &Routes,
) -> io::Result<()> {
    while let Some(frame) = Frame::read(&mut guest).await? {
        routes.to_client(frame);
    }
    Ok(())
}

async fn accept(listener: UnixListener, routes: Arc<Routes>, frames: mpsc::Sender<Outgoing>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(serve_client(stream, Arc::clone(&routes), frames.clone()));
                }
                Err(err) => {
                    // Out of file descriptors, mostly: it passes, but not at once.
                    log::warn!("serial port: accept a client: {err}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve_client(stream: UnixStream, routes: Arc<Routes>, frames: mpsc::Sender<Outgoing>) {
    let Some((id, answers, queued)) = routes.enter() else {
        log::warn!("serial port: a client is turned away: too many, or the guest is gone");
        return;
    };
    let (reader, writer) = stream.into_split();
    let ended = tokio::select! {
        result = read_client(reader, id, frames) => result,
        result = write_client(writer, answers, queued) => result,
    };
    if let Err(err) = ended {
        log::debug!("serial port: client {id}: {err}");
    }
    routes.leave(id);
}

async fn read_client<R>(
    mut reader: R,
    id: ClientId,
    frames: mpsc::Sender<Outgoing>,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    while let Some(frame) = Frame::read(&mut reader).await? {
        if frames.send((id, frame)).await.is_err() {
            return Ok(()); // the line has ended
        }
    }
    Ok(())
}

async fn write_client<W>(
    mut writer: W,
    mut answers: mpsc::UnboundedReceiver<Frame>,
    queued: Arc<AtomicUsize>,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some(frame) = answers.recv().await {
        writer.write_all(&frame.encode()).await?;
        queued.fetch_sub(frame.bytes(), Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
