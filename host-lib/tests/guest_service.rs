//! What a user does with the methods that Kata's API lacks: events over any number of connections, lists.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod fake;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fake::{Guest, hostile};
use hyperstart::{
    Code, ConnectOptions, ContainerId, ContainerOptions, Event, ExecId, Happened, NextEvent,
    PodContainer, Sandbox, SandboxConfig, State, spec,
};
use hyperstart_protocol::guest;
use hyperstart_protocol::guest::event::Kind;
use tempfile::TempDir;
use ttrpc::asynchronous::Server;

const QUICK: ConnectOptions =
    ConnectOptions { deadline: Duration::from_secs(20), attempt: Duration::from_secs(5) };

async fn guest() -> (Arc<Guest>, Sandbox, (Server, TempDir)) {
    Guest::connected(QUICK).await
}

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

fn event(sequence: u64, kind: Kind, container_id: &str) -> guest::Event {
    guest::Event {
        sequence,
        time_ns: 1_000_000_000 * sequence,
        kind: kind.into(),
        container_id: container_id.to_owned(),
        ..Default::default()
    }
}

fn happens(guest: &Guest, event: guest::Event) {
    guest.events.send_modify(|events| events.push(event));
}

fn told(next: NextEvent) -> Event {
    match next {
        NextEvent::Event(event) => event,
        NextEvent::Lost(count) => panic!("{count} lost"),
    }
}

#[tokio::test]
async fn events_are_told_in_order_and_what_is_lost_is_counted() {
    let (guest, sandbox, _server) = guest().await;
    let mut exit = event(5, Kind::PROCESS_EXITED, "web");
    (exit.exec_id, exit.exit_status) = ("e1".to_owned(), 137);
    happens(&guest, event(4, Kind::OOM, "web"));
    happens(&guest, exit);
    let mut events = sandbox.events(1);
    assert_eq!(events.next().await.unwrap(), NextEvent::Lost(2));
    let oom = told(events.next().await.unwrap());
    assert_eq!(oom.what, Happened::Oom(id("web")));
    assert_eq!(oom.time, SystemTime::UNIX_EPOCH + Duration::from_secs(4));
    let Happened::ProcessExited(container, exec, status) = told(events.next().await.unwrap()).what
    else {
        panic!("no exit");
    };
    assert_eq!((container, exec, status.code()), (id("web"), ExecId::new("e1").ok(), 137));
    assert_eq!(events.last(), 5);
}

#[tokio::test]
async fn events_outlive_their_connection() {
    let (guest, sandbox, (mut server, dir)) = guest().await;
    let mut events = sandbox.events(0);
    happens(&guest, event(1, Kind::CONTAINER_CREATED, "web"));
    assert_eq!(told(events.next().await.unwrap()).sequence, 1);
    let next = tokio::spawn(async move { (events.next().await, events) });
    while !guest.log().iter().any(|request| request == "events 1") {
        tokio::time::sleep(Duration::from_millis(5)).await; // until it waits
    }
    server.shutdown().await.unwrap();
    drop(server);
    happens(&guest, event(2, Kind::CONTAINER_STARTED, "web"));
    let path = dir.path().join("agent.sock");
    std::fs::remove_file(&path).ok();
    let _server = guest.listen(&path).await;
    let (next, mut events) = next.await.unwrap();
    assert_eq!(told(next.unwrap()).what, Happened::ContainerStarted(id("web")));
    happens(&guest, event(3, Kind::CONTAINER_REMOVED, "web"));
    assert_eq!(told(events.next().await.unwrap()).sequence, 3);
}

#[tokio::test]
async fn a_future_that_is_dropped_loses_no_event() {
    let (guest, sandbox, _server) = guest().await;
    let mut events = sandbox.events(0);
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_millis(20), events.next()).await;
        assert!(waited.is_err(), "nothing has happened");
    }
    happens(&guest, event(1, Kind::OOM, "web"));
    assert_eq!(told(events.next().await.unwrap()).sequence, 1);
}

/// Each answer makes no sense: an error, no loop and no panic.
#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_are_refused() {
    let gap = vec![event(2, Kind::OOM, "web")];
    let bad_id = vec![event(1, Kind::OOM, "../x")];
    let mut bad_status = event(1, Kind::PROCESS_EXITED, "web");
    bad_status.exit_status = 256;
    let answers = [
        (vec![], 0, "no event"),
        (gap, 0, "2 after 0"),
        (bad_id, 0, "id \"../x\""),
        (vec![bad_status], 0, "exit status 256"),
    ];
    for (events, lost, words) in answers {
        let (sandbox, mut wire) = hostile();
        let answer = guest::EventsResponse { events, lost, ..Default::default() };
        tokio::spawn(async move {
            let asked = wire.asked().await.unwrap();
            wire.answer(&asked, &answer).await;
            wire.asked().await; // the connection stays
        });
        let err = sandbox.events(0).next().await.unwrap_err();
        assert_eq!(err.code(), Code::Internal, "{err}");
        assert!(err.message().contains(words), "{err}");
    }
}

#[tokio::test]
async fn what_is_listed_is_what_there_is() {
    let (guest, sandbox, _server) = guest().await;
    let init = guest::Process {
        pid: 71,
        state: guest::State::RUNNING.into(),
        started_ns: 5_000_000_000,
        ..Default::default()
    };
    let exec = guest::Process {
        exec_id: "e1".to_owned(),
        state: guest::State::STOPPED.into(),
        exit_status: 137,
        exited_ns: 6_000_000_000,
        ..Default::default()
    };
    let web = guest::Container {
        container_id: "web".to_owned(),
        state: guest::State::PAUSED.into(),
        processes: vec![init, exec],
        annotations: [("a".to_owned(), "line\nline".to_owned())].into(),
        ..Default::default()
    };
    *guest.listing.lock().unwrap() =
        guest::ListResponse { containers: vec![web], last_event: 9, ..Default::default() };
    let listing = sandbox.list().await.unwrap();
    assert_eq!(listing.last_event, 9);
    let web = &listing.containers[0];
    assert_eq!(
        (web.state, web.init.state, web.init.pid),
        (State::Paused, State::Running, Some(71))
    );
    assert_eq!(web.init.started, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)));
    assert_eq!((web.init.exit, web.init.exited), (None, None));
    let exec = &web.execs[&ExecId::new("e1").unwrap()];
    assert_eq!((exec.pid, exec.exit.map(|exit| exit.code())), (None, Some(137)));
    assert_eq!(web.annotations["a"], "line\nline");
    assert_eq!(&sandbox.container(id("web")).status().await.unwrap(), web);
    let err = sandbox.container(id("db")).status().await.unwrap_err();
    assert_eq!(err.code(), Code::Internal, "{err}");
    guest.listing.lock().unwrap().containers[0].processes.clear();
    assert_eq!(sandbox.list().await.unwrap_err().code(), Code::Internal);
    assert_eq!(guest.log(), ["list ", "list web", "list db", "list "]);
}

#[tokio::test]
async fn a_pod_is_one_call() {
    let (guest, sandbox, _server) = guest().await;
    let config = SandboxConfig { hostname: "pod".to_owned(), ..Default::default() };
    let container = |name: &str| {
        let process =
            spec::default_process(vec![name.to_owned()], vec![], "/", spec::user(""), false);
        let spec = spec::default_spec(&id(name), process);
        PodContainer { id: id(name), spec, options: ContainerOptions::default() }
    };
    let pod = vec![container("web"), container("db")];
    let started = sandbox.start_pod(&config, pod).await.unwrap();
    let ids: Vec<&ContainerId> = started.iter().map(hyperstart::Container::id).collect();
    assert_eq!(ids, [&id("web"), &id("db")]);
    assert_eq!(guest.log(), ["start pod pod [\"web\", \"db\"]"]);
    let mut large = container("large");
    let text = "x".repeat(4 << 20);
    large.spec.set_annotations(Some([("large".to_owned(), text)].into()));
    let err = sandbox.start_pod(&config, vec![large]).await.unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument, "{err}");
    assert_eq!(guest.log(), Vec::<String>::new(), "it was not sent");
}

#[tokio::test]
async fn the_log_is_read_at_offsets() {
    let (guest, sandbox, _server) = guest().await;
    let answer = |offset, data: &[u8]| {
        let data = data.to_owned();
        *guest.journal.lock().unwrap() =
            guest::ReadLogResponse { offset, data, ..Default::default() };
    };
    answer(7, b"a\x1b\n");
    let part = sandbox.log(3).await.unwrap();
    assert_eq!((part.offset, part.data.as_slice(), part.end()), (7, b"a\x1b\n".as_slice(), 10));
    answer(10, b"");
    assert_eq!(sandbox.log(10).await.unwrap().end(), 10);
    let err = sandbox.next_log(10).await.unwrap_err();
    assert_eq!(err.code(), Code::Internal, "nothing, where it was to wait: {err}");
    let err = sandbox.log(11).await.unwrap_err();
    assert_eq!(err.code(), Code::Internal, "not what was asked for: {err}");
    assert_eq!(guest.log(), ["log 3 true", "log 10 true", "log 10 false", "log 11 true"]);
}

#[tokio::test]
async fn clock_and_random_numbers_are_set() {
    let (guest, sandbox, _server) = guest().await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042);
    sandbox.set_time(time).await.unwrap();
    sandbox.reseed(&[7; 32]).await.unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(sandbox.set_time(before).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(guest.log(), ["time 1700000000.000042", "reseed 32"]);
}
