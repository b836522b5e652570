//! A guest that lies: the host neither panics nor fills its memory, each call fails with an error of its own, and the
//! connection outlives what is not the end of it. Time is tokio's paused clock, so deadlines cost nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod fake;

use std::time::Duration;

use fake::{hostile, hostile_with, response, serving};
use hyperstart::{Code, ContainerId, ContainerOptions, Sandbox, spec};
use hyperstart_protocol::{agent, guest};
use protobuf::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn web(sandbox: &Sandbox) -> hyperstart::Container {
    sandbox.container(ContainerId::new("web").unwrap())
}

/// A header says 4 GiB. The bytes that follow are thrown away, not kept; the end of them is the end of the connection.
#[tokio::test(start_paused = true)]
async fn a_frame_of_4_gib_is_not_believed() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        let mut header = vec![0xff; 4];
        header.extend(asked.stream_id.to_be_bytes());
        header.extend([2, 0]);
        wire.bytes(&header).await;
        for _ in 0..256 {
            wire.bytes(&[0x55; 64 << 10]).await;
        }
    });
    let err = sandbox.check().await.unwrap_err();
    assert_eq!(err.code(), Code::Unavailable, "{err}");
    guest.await.unwrap();
}

/// Two calls under way, each answered with the other's content: none takes what is not of its type for its own.
#[tokio::test(start_paused = true)]
async fn swapped_answers_stay_typed() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        let (first, second) = (wire.asked().await.unwrap(), wire.asked().await.unwrap());
        let exit = agent::WaitProcessResponse { status: 7, ..Default::default() };
        let data = vec![b'x'; 10];
        let output = agent::ReadStreamResponse { data, ..Default::default() };
        for asked in [first, second] {
            match asked.method.as_str() {
                "WaitProcess" => wire.answer(&asked, &output).await,
                _ => wire.answer(&asked, &exit).await,
            }
        }
        wire
    });
    let container = web(&sandbox);
    let mut stderr = container.process().stderr();
    let mut byte = [0; 1];
    let (exit, read) = tokio::join!(container.wait(), stderr.read(&mut byte));
    assert_ne!(exit.map(|status| status.code()).unwrap_or_default(), 7);
    assert!(read.is_err() || matches!(read, Ok(0)), "{byte:?} is no output");
    guest.await.unwrap();
}

/// Texts that are for people hold no control characters, however they come.
#[tokio::test(start_paused = true)]
async fn texts_about_the_guest_are_plain() {
    const NASTY: &str = "\x1b]0;owned\x07\r\n\u{9b}2J";
    let (sandbox, mut wire) = hostile();
    tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        let details = agent::AgentDetails {
            version: NASTY.repeat(100_000),
            storage_handlers: vec![NASTY.to_owned(); 3],
            ..Default::default()
        };
        let details = protobuf::MessageField::some(details);
        let answer = agent::GuestDetailsResponse { agent_details: details, ..Default::default() };
        wire.answer(&asked, &answer).await;
        let asked = wire.asked().await.unwrap();
        let answer = guest::VersionResponse {
            protocol_major: hyperstart_protocol::PROTOCOL_MAJOR,
            guest_version: NASTY.to_owned(),
            kernel_release: NASTY.to_owned(),
            ..Default::default()
        };
        wire.answer(&asked, &answer).await;
        wire.asked().await;
    });
    let details = sandbox.details().await.unwrap();
    let version = sandbox.guest_version().await.unwrap();
    let texts =
        [&details.version, &details.storage_handlers[0], &version.guest, &version.kernel_release];
    for text in texts {
        assert!(text.len() < 5000 && !text.chars().any(char::is_control), "{text}");
        assert!(text.contains("owned"), "{text}");
    }
}

/// 4 MiB and a byte: refused for that call alone.
#[tokio::test(start_paused = true)]
async fn an_oversized_answer_fails_its_call_only() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        wire.frame(asked.stream_id, 2, 0, &vec![0; (4 << 20) + 1]).await;
        let asked = wire.asked().await.unwrap();
        wire.answer(&asked, &serving()).await;
        wire
    });
    sandbox.check().await.unwrap_err();
    sandbox.check().await.unwrap();
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_to_questions_that_were_not_asked_are_ignored() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        for stream_id in [0, 2, asked.stream_id + 2, u32::MAX] {
            wire.frame(stream_id, 2, 0, b"").await;
            wire.frame(stream_id, 3, 1, b"x").await;
            wire.frame(stream_id, 9, 255, b"x").await;
        }
        wire.answer(&asked, &serving()).await;
        wire
    });
    sandbox.check().await.unwrap();
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_ends_with_the_deadline() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        wire.asked().await.unwrap();
        wire.asked().await.unwrap();
        wire
    });
    let err = sandbox.check().await.unwrap_err();
    assert_eq!(err.to_string(), "check sandbox: no answer within 30 s");
    assert_eq!(err.code(), Code::DeadlineExceeded);
    let err = web(&sandbox).start().await.unwrap_err();
    assert_eq!(err.code(), Code::DeadlineExceeded);
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn garbage_is_an_error_of_its_call() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        for payload in [vec![0xff; 100], response(ttrpc::Code::OK, "", vec![0xff; 100])] {
            let asked = wire.asked().await.unwrap();
            wire.frame(asked.stream_id, 2, 0, &payload).await;
        }
        let asked = wire.asked().await.unwrap();
        wire.answer(&asked, &serving()).await;
        wire
    });
    for _ in 0..2 {
        let err = sandbox.details().await.unwrap_err();
        assert_eq!(err.code(), Code::Internal, "{err}");
    }
    sandbox.check().await.unwrap();
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_exit_status_is_a_byte() {
    let (sandbox, mut wire) = hostile();
    let statuses = [-1, 256, i32::MIN, i32::MAX];
    let guest = tokio::spawn(async move {
        for status in statuses {
            let asked = wire.asked().await.unwrap();
            let answer = agent::WaitProcessResponse { status, ..Default::default() };
            wire.answer(&asked, &answer).await;
        }
        wire
    });
    for status in statuses {
        let err = web(&sandbox).wait().await.unwrap_err();
        let expected = format!("wait for process \"web\": guest answered exit status {status}");
        assert_eq!((err.code(), err.to_string()), (Code::Internal, expected));
    }
    guest.await.unwrap();
}

/// A guest that always has more: a reader that takes a little makes the host fetch a little.
#[tokio::test(start_paused = true)]
async fn endless_output_is_fetched_as_fast_as_it_is_read() {
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        let mut chunks = 0;
        let data = vec![b'x'; 64 << 10];
        let answer = agent::ReadStreamResponse { data, ..Default::default() };
        while let Some(asked) = wire.asked().await {
            wire.answer(&asked, &answer).await;
            chunks += 1;
        }
        chunks
    });
    let mut stdout = web(&sandbox).process().stdout();
    let mut some = vec![0; 200 << 10];
    stdout.read_exact(&mut some).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    drop((stdout, sandbox));
    let chunks = guest.await.unwrap();
    assert!(chunks <= 5, "{chunks} chunks of 64 KiB for a reader of 200 KiB");
}

#[tokio::test(start_paused = true)]
async fn more_output_than_was_asked_for_is_an_error() {
    let (sandbox, mut wire) = hostile();
    tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        let data = vec![b'x'; (64 << 10) + 1];
        wire.answer(&asked, &agent::ReadStreamResponse { data, ..Default::default() }).await;
        wire.asked().await;
    });
    let mut stdout = web(&sandbox).process().stdout();
    let err = stdout.read_u8().await.unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::InvalidData, "{err}");
    // After an error there is nothing more, and the guest is not asked again.
    assert_eq!(stdout.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn input_that_is_taken_twice_or_never_is_an_error() {
    let (sandbox, mut wire) = hostile();
    tokio::spawn(async move {
        for len in [0, 6, u32::MAX] {
            let asked = wire.asked().await.unwrap();
            wire.answer(&asked, &agent::WriteStreamResponse { len, ..Default::default() }).await;
        }
        wire.asked().await;
    });
    let mut stdin = web(&sandbox).process().stdin();
    for _ in 0..3 {
        stdin.write_all(b"hello").await.unwrap();
        let err = stdin.flush().await.unwrap_err();
        assert_eq!(err.kind(), std::io::ErrorKind::InvalidData, "{err}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_receipt_has_few_steps_and_plain_names() {
    let (sandbox, mut wire) = hostile();
    let step = guest::boot_receipt_response::Step {
        name: "\x1b]0;owned\x07".to_owned(),
        ..Default::default()
    };
    tokio::spawn(async move {
        for count in [1, 100_000] {
            let steps = vec![step.clone(); count];
            let asked = wire.asked().await.unwrap();
            let answer = guest::BootReceiptResponse { steps, ..Default::default() };
            wire.answer(&asked, &answer).await;
        }
        wire.asked().await;
    });
    let receipt = sandbox.boot_receipt().await.unwrap();
    assert_eq!(receipt.steps[0].name, "\\u{1b}]0;owned\\u{7}");
    assert_eq!(sandbox.boot_receipt().await.unwrap_err().code(), Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn another_major_version_is_refused() {
    let (sandbox, mut wire) = hostile();
    tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        let answer = guest::VersionResponse { protocol_major: 9, ..Default::default() };
        wire.answer(&asked, &answer).await;
        wire.asked().await;
    });
    let err = sandbox.guest_version().await.unwrap_err();
    assert_eq!(err.code(), Code::FailedPrecondition, "{err}");
}

/// A caller gives up on a request of which the guest has read the first bytes only. The rest still goes out: the next
/// call finds the stream in step.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_half_sent_does_not_break_the_connection() {
    let (sandbox, mut wire) = hostile_with(64);
    let id = ContainerId::new("web").unwrap();
    let process = spec::default_process(vec!["x".repeat(9000)], vec![], "/", spec::user(""), false);
    let spec = spec::default_spec(&id, process);
    let create = sandbox.create_container(&id, &spec, ContainerOptions::default());
    tokio::time::timeout(Duration::from_millis(10), create).await.err().unwrap();
    let guest = tokio::spawn(async move {
        assert_eq!(wire.asked().await.unwrap().method, "CreateContainer");
        let asked = wire.asked().await.unwrap();
        wire.answer(&asked, &serving()).await;
        wire
    });
    sandbox.check().await.unwrap();
    guest.await.unwrap();
}

/// A wait that nobody listens to does not hold the connection open, and ends when the guest is gone.
#[tokio::test(start_paused = true)]
async fn the_connection_closes_with_the_last_handle() {
    let (sandbox, mut wire) = hostile();
    let container = web(&sandbox);
    drop(sandbox);
    let wait = tokio::time::timeout(Duration::from_millis(10), container.wait());
    assert!(wait.await.is_err());
    assert_eq!(wire.asked().await.unwrap().method, "WaitProcess");
    drop(container);
    assert!(wire.asked().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn calls_end_when_the_guest_is_gone() {
    let (sandbox, mut wire) = hostile();
    let container = web(&sandbox);
    let wait = tokio::spawn(async move { container.wait().await });
    wire.asked().await.unwrap();
    drop(wire);
    let err = wait.await.unwrap().unwrap_err();
    assert!(err.code() == Code::Unavailable && err.retryable(), "{err}");
    let err = sandbox.check().await.unwrap_err();
    assert_eq!(err.code(), Code::Unavailable, "{err}");
}

#[tokio::test(start_paused = true)]
async fn an_errors_text_is_cut_and_escaped() {
    let (sandbox, mut wire) = hostile();
    tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        let message = "\x1b[2J".repeat(100_000);
        let payload = response(ttrpc::Code::INTERNAL, &message, Vec::new());
        wire.frame(asked.stream_id, 2, 0, &payload).await;
        let asked = wire.asked().await.unwrap();
        let answer = agent::OOMEvent { container_id: "../\x1b".repeat(1000), ..Default::default() };
        wire.answer(&asked, &answer).await;
        wire.asked().await;
    });
    for err in [sandbox.check().await.unwrap_err(), sandbox.next_oom().await.unwrap_err()] {
        assert_eq!(err.code(), Code::Internal);
        let text = err.to_string();
        assert!(text.len() < 5000 && !text.chars().any(char::is_control), "{text}");
    }
    assert!(guest::VersionResponse::new().write_to_bytes().unwrap().is_empty());
}
