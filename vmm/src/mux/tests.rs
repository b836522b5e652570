//! The mux between a guest made of one end of a pipe and real clients, among them ones that die and ones that lie.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::*;

const DATA: u8 = 3;

/// The guest's end of the line.
struct Guest {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
}

struct Line {
    mux: Mux,
    guest: Guest,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

fn line() -> Line {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(ours);
    let stream = Stream { reader: Box::new(reader), writer: Box::new(writer) };
    let mux = Mux::serve(stream, UnixListener::bind(&socket).unwrap());
    let (reader, writer) = tokio::io::split(theirs);
    Line { mux, guest: Guest { reader, writer }, socket, _dir: dir }
}

impl Line {
    async fn client(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }
}

impl Guest {
    async fn next(&mut self) -> Frame {
        within(Frame::read(&mut self.reader)).await.unwrap().unwrap()
    }

    async fn say(&mut self, frame: &Frame) {
        self.writer.write_all(&frame.encode()).await.unwrap();
    }

    /// Answers with the request's own payload.
    async fn answer(&mut self, request: &Frame) {
        self.say(&Frame { kind: RESPONSE, ..request.clone() }).await;
    }

    /// Answers every request, for ever.
    async fn echo(mut self) {
        while let Ok(Some(request)) = Frame::read(&mut self.reader).await {
            self.answer(&request).await;
        }
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(10), future).await.expect("nothing came within 10 s")
}

fn request(stream: u32, payload: &[u8]) -> Frame {
    Frame { stream, kind: REQUEST, flags: 0, payload: payload.to_vec() }
}

async fn send(client: &mut UnixStream, frame: &Frame) {
    client.write_all(&frame.encode()).await.unwrap();
}

async fn receive(client: &mut UnixStream) -> Frame {
    within(Frame::read(client)).await.unwrap().unwrap()
}

/// The mux has closed the connection: nothing comes but the end.
async fn assert_closed(client: &mut UnixStream) {
    let mut rest = Vec::new();
    match within(client.read_to_end(&mut rest)).await {
        Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
        // Closed with bytes of ours unread.
        Err(err) => assert_eq!(err.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn clients_with_the_same_stream_ids_get_their_own_answers() {
    let mut line = line();
    let (mut a, mut b) = (line.client().await, line.client().await);
    send(&mut a, &request(1, b"from a")).await;
    let first = line.guest.next().await;
    send(&mut b, &request(1, b"from b")).await;
    let second = line.guest.next().await;
    assert_eq!((first.stream, second.stream), (1, 3), "odd, growing, distinct");

    line.guest.answer(&second).await; // in the other order
    line.guest.answer(&first).await;
    let (to_a, to_b) = (receive(&mut a).await, receive(&mut b).await);
    assert_eq!((to_a.stream, to_a.payload.as_slice()), (1, b"from a".as_slice()));
    assert_eq!((to_b.stream, to_b.payload.as_slice()), (1, b"from b".as_slice()));
}

#[tokio::test]
async fn a_client_that_dies_within_a_frame_leaves_the_line_whole() {
    let mut line = line();
    for cut in [1, 9, 10, 11, 100] {
        let mut dying = line.client().await;
        let bytes = request(1, &[7; 200]).encode();
        dying.write_all(&bytes[..cut]).await.unwrap();
        drop(dying);
        let mut living = line.client().await;
        send(&mut living, &request(5, b"alive")).await;
        let seen = line.guest.next().await;
        assert_eq!(seen.payload, b"alive", "after a cut at byte {cut}");
        line.guest.answer(&seen).await;
        assert_eq!(receive(&mut living).await.stream, 5);
    }
}

#[tokio::test]
async fn an_oversized_frame_ends_its_client_alone() {
    let mut line = line();
    let mut other = line.client().await;
    for length in [u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
        let mut liar = line.client().await;
        let mut header = request(1, b"").encode();
        header[..4].copy_from_slice(&length.to_be_bytes());
        liar.write_all(&header).await.unwrap();
        assert_closed(&mut liar).await;
    }
    send(&mut other, &request(1, b"hello")).await;
    assert_eq!(line.guest.next().await.payload, b"hello");
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let mut line = line();
    let mut client = line.client().await;
    let frame = request(1, &vec![42; MAX_FRAME]);
    let (guest, ()) = tokio::join!(line.guest.next(), send(&mut client, &frame));
    assert_eq!(guest.payload.len(), MAX_FRAME);
    let answer = Frame { kind: RESPONSE, ..guest };
    let (to_client, ()) = tokio::join!(receive(&mut client), line.guest.say(&answer));
    assert_eq!(to_client.payload, frame.payload);
}

#[tokio::test]
async fn a_stream_id_is_free_again_after_its_answer_and_not_before() {
    let mut line = line();
    let mut client = line.client().await;
    for round in 0..3_u32 {
        send(&mut client, &request(1, b"again")).await;
        let seen = line.guest.next().await;
        assert_eq!(seen.stream, 1 + 2 * round);
        line.guest.answer(&seen).await;
        receive(&mut client).await;
    }
    send(&mut client, &request(9, b"first")).await;
    send(&mut client, &request(9, b"second")).await;
    assert_closed(&mut client).await;
    assert_eq!(line.guest.next().await.payload, b"first");
}

#[tokio::test]
async fn data_for_a_stream_that_is_not_open_ends_its_client() {
    let line = line();
    let mut client = line.client().await;
    send(&mut client, &Frame { kind: DATA, ..request(1, b"?") }).await;
    assert_closed(&mut client).await;
}

#[tokio::test]
async fn a_stream_carries_data_both_ways_until_its_response() {
    let mut line = line();
    let mut client = line.client().await;
    send(&mut client, &request(7, b"open")).await;
    let wire = line.guest.next().await.stream;
    let up = Frame { stream: 7, kind: DATA, flags: 0, payload: b"up".to_vec() };
    send(&mut client, &up).await;
    assert_eq!(line.guest.next().await, Frame { stream: wire, ..up });
    let down = Frame { stream: wire, kind: DATA, flags: 4, payload: b"down".to_vec() };
    line.guest.say(&down).await;
    assert_eq!(receive(&mut client).await, Frame { stream: 7, ..down });
    line.guest.say(&Frame { stream: wire, ..Frame { kind: RESPONSE, ..request(0, b"end") } }).await;
    assert_eq!(receive(&mut client).await.payload, b"end");
    send(&mut client, &Frame { stream: 7, kind: DATA, flags: 0, payload: Vec::new() }).await;
    assert_closed(&mut client).await;
}

#[tokio::test]
async fn an_answer_for_a_client_that_is_gone_reaches_nobody() {
    let mut line = line();
    let mut gone = line.client().await;
    send(&mut gone, &request(1, b"secret")).await;
    let old = line.guest.next().await;
    drop(gone);
    let mut next = line.client().await;
    send(&mut next, &request(1, b"mine")).await;
    let new = line.guest.next().await;
    assert_ne!(old.stream, new.stream);
    line.guest.answer(&old).await;
    line.guest.answer(&old).await; // and a stream that nobody has open any more
    line.guest.answer(&new).await;
    assert_eq!(receive(&mut next).await.payload, b"mine");
}

#[tokio::test]
async fn many_clients_with_many_calls_at_once() {
    let Line { mux: _mux, guest, socket, _dir } = line();
    let echo = tokio::spawn(guest.echo());
    let mut clients = JoinSet::new();
    for number in 0..64_u8 {
        let socket = socket.clone();
        clients.spawn(async move {
            let (mut reader, mut writer) = UnixStream::connect(socket).await.unwrap().into_split();
            let payload = |call: u32| vec![number; (call * 37 % 5000) as usize];
            let writing = async {
                for call in 0..100 {
                    writer.write_all(&request(call, &payload(call)).encode()).await.unwrap();
                }
            };
            let reading = async {
                for _ in 0..100 {
                    let answer = Frame::read(&mut reader).await.unwrap().unwrap();
                    assert_eq!(answer.payload, payload(answer.stream));
                }
            };
            within(async { tokio::join!(writing, reading) }).await;
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    echo.abort();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_nobody_waits_for_it() {
    let Line { mux: _mux, guest, socket, _dir } = line();
    let echo = tokio::spawn(guest.echo());
    let mut slow = UnixStream::connect(&socket).await.unwrap();
    let big = vec![1; MAX_FRAME];
    for call in 0..8 {
        // Its own requests pass; its answers, 32 MiB, do not fit the queue.
        if slow.write_all(&request(call, &big).encode()).await.is_err() {
            break;
        }
    }
    let mut other = UnixStream::connect(&socket).await.unwrap();
    send(&mut other, &request(1, b"quick")).await;
    assert_eq!(receive(&mut other).await.payload, b"quick");
    let mut rest = Vec::new();
    let ended = within(slow.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || rest.len() < 8 * MAX_FRAME, "it was dropped before its last answer");
    echo.abort();
}

#[tokio::test]
async fn a_guest_that_breaks_the_rules_ends_the_line() {
    for bytes in [[255; 10].as_slice(), &[0, 0, 0, 9, 0, 0, 0, 1, 2, 0, b'x']] {
        let Line { mux, mut guest, socket, _dir } = line();
        let mut client = UnixStream::connect(&socket).await.unwrap();
        send(&mut client, &request(1, b"hello")).await;
        guest.next().await;
        guest.writer.write_all(bytes).await.unwrap();
        drop(guest);
        assert_closed(&mut client).await;
        let reason = within(mux.ended()).await;
        assert!(reason.contains("4294967295 bytes") || reason.contains("end of file"), "{reason}");
        let mut late = UnixStream::connect(&socket).await.unwrap();
        assert_closed(&mut late).await;
    }
}

#[tokio::test]
async fn one_client_too_many_is_turned_away() {
    let mut line = line();
    let mut clients = Vec::new();
    for _ in 0..MAX_CLIENTS {
        let mut client = line.client().await;
        send(&mut client, &request(1, b"in")).await;
        line.guest.next().await; // so it has entered
        clients.push(client);
    }
    assert_closed(&mut line.client().await).await;
    clients.pop();
    // A place is free once the mux has seen the end; until then the newcomer is turned away.
    let entered = async {
        loop {
            let mut client = line.client().await;
            send(&mut client, &request(1, b"me")).await;
            if timeout(Duration::from_millis(200), Frame::read(&mut line.guest.reader))
                .await
                .is_ok()
            {
                return;
            }
        }
    };
    within(entered).await;
}

#[test]
fn stream_ids_begin_again_and_skip_those_in_use() {
    let mut table = Table { last_stream: Some(u32::MAX - 2), ..Table::default() };
    table.streams.insert(1, (0, 0));
    assert_eq!(table.next_stream(), u32::MAX);
    assert_eq!(table.next_stream(), 3, "1 is in use");
}
