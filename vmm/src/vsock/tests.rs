//! READY lines, the daemon's ways to fail, and who listens.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::*;

async fn ready_after(bytes: &[u8]) -> Result<()> {
    let (ours, mut theirs) = tokio::io::duplex(256);
    theirs.write_all(bytes).await.unwrap();
    drop(theirs);
    expect_ready(&mut BufReader::new(ours), &mut Vec::new()).await
}

#[tokio::test]
async fn only_the_ready_line_is_ready() {
    ready_after(READY_LINE.as_bytes()).await.unwrap();
    let err = ready_after(b"HYPERSTART READY 2\n").await.unwrap_err().to_string();
    assert!(err.contains("HYPERSTART READY 2"), "{err}");
    assert!(matches!(ready_after(&[b'x'; 200]).await, Err(Error::NotOurGuest { .. })));
    assert!(matches!(ready_after(b"HYPERSTART").await, Err(Error::Io { .. })));
}

#[tokio::test]
async fn the_port_behind_a_daemon_is_a_socket_with_a_suffix() {
    let dir = tempfile::tempdir().unwrap();
    let uds = dir.path().join("v.sock");
    let mut port = ReadyPort::behind_daemon(&uds).unwrap();
    let mut guest = UnixStream::connect(dir.path().join("v.sock_1028")).await.unwrap();
    guest.write_all(READY_LINE.as_bytes()).await.unwrap();
    port.ready().await.unwrap();
}

#[tokio::test]
async fn a_wait_that_is_given_up_in_the_middle_of_the_line_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut port = ReadyPort::behind_daemon(&dir.path().join("v.sock")).unwrap();
    let mut guest = UnixStream::connect(dir.path().join("v.sock_1028")).await.unwrap();
    let (begin, end) = READY_LINE.split_at(7);
    guest.write_all(begin.as_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_millis(50), port.ready()).await.unwrap_err();
    guest.write_all(end.as_bytes()).await.unwrap();
    port.ready().await.unwrap();
}

fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("daemon");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_daemon_that_fails_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "echo 'bad option' >&2; exit 3");
    let err = Daemon::start(&program, dir.path(), false).await.unwrap_err().to_string();
    assert!(err.starts_with("daemon vhost-device-vsock: it ended with status 3"), "{err}");
    assert!(err.contains("bad option"), "{err}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_never_listens_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "exec sleep 1000");
    let err = Daemon::start(&program, dir.path(), false).await.unwrap_err().to_string();
    assert!(err.contains("does not listen after 20 s"), "{err}");
}

#[test]
fn context_ids_are_never_reserved_ones() {
    for _ in 0..100 {
        let cid = random_cid().unwrap();
        assert!(cid >= 1 << 31 && cid != u32::MAX);
    }
    assert!(cid_was_taken("vhost-vsock: unable to set guest cid: Address already in use"));
    assert!(!cid_was_taken("vhost-vsock: unable to set guest cid: Invalid argument"));
}

#[test]
fn a_socket_path_has_a_limit() {
    let err =
        check_socket_path(Path::new(&format!("/{}", "x".repeat(200)))).unwrap_err().to_string();
    assert!(err.contains("at most 107"), "{err}");
}
