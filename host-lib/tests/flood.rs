//! A guest that sends without an end: what the host keeps of it. A process of its own, since it looks at its memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod fake;

use fake::{hostile, serving};
use hyperstart::Code;

/// What this process has in memory, in bytes: the second number of proc_pid_statm(5), in pages.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A quarter of a gigabyte behind a header of 4 GiB, then two hundred thousand frames that nobody asked for: neither is kept.
#[tokio::test(start_paused = true)]
async fn a_flood_takes_no_memory() {
    const MOST: u64 = 32 << 20;
    let before = resident();
    let control = vec![1_u8; 64 << 20];
    assert!(resident() > before + (48 << 20), "{} bytes are not noticed", control.len());
    drop(control);
    let (sandbox, mut wire) = hostile();
    let guest = tokio::spawn(async move {
        let asked = wire.asked().await.unwrap();
        for index in 0..200_000_u32 {
            wire.frame(2 * index, 2, 0, b"nobody asked for this").await;
        }
        wire.answer(&asked, &serving()).await;
        let asked = wire.asked().await.unwrap();
        let mut header = vec![0xff; 4];
        header.extend(asked.stream_id.to_be_bytes());
        header.extend([2, 0]);
        wire.bytes(&header).await;
        for _ in 0..(256 << 20) / (64 << 10) {
            wire.bytes(&[0x55; 64 << 10]).await;
        }
    });
    sandbox.check().await.unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes for frames that nobody asked for");
    assert_eq!(sandbox.check().await.unwrap_err().code(), Code::Unavailable);
    let grown = resident().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes for a frame of 4 GiB");
    guest.await.unwrap();
}
