//! 10,000 random frames against a host that is busy: every call ends, nothing panics, and once the guest comes to its
//! senses the same connection works. Then bytes that are not frames at all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod fake;

use std::time::Duration;

use fake::{Asked, Wire, hostile, response, serving};
use hyperstart::{ContainerId, Sandbox};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const FRAMES: u32 = 10_000;
const SEED: u64 = 0x6879_7065_7273_7461;

/// xorshift64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    /// Noise, or a response that is well-formed up to some depth.
    fn payload(&mut self) -> Vec<u8> {
        let codes =
            [ttrpc::Code::OK, ttrpc::Code::OK, ttrpc::Code::NOT_FOUND, ttrpc::Code::INTERNAL];
        let code = self.one_of(&codes);
        let text = String::from_utf8_lossy(&self.bytes(40)).into_owned();
        let mut payload = match self.below(3) {
            0 => self.bytes(200),
            1 => response(code, &text, self.bytes(60)),
            // One number field, as an exit status or a count of bytes has it.
            _ => response(code, "", [vec![8], self.bytes(10)].concat()),
        };
        if self.below(4) == 0 && !payload.is_empty() {
            let place = usize::try_from(self.below(payload.len() as u64)).unwrap();
            payload[place] ^= 1 << self.below(8);
        }
        payload
    }
}

/// Every kind of call, over and over. How each ends is the guest's affair; that it ends is the host's.
async fn keep_calling(sandbox: Sandbox) {
    let container = sandbox.container(ContainerId::new("web").unwrap());
    let process = container.process();
    let mut rounds = 0_u32;
    loop {
        rounds += 1;
        let (mut stdout, mut stdin) = (process.stdout(), process.stdin());
        let (mut output, limit) = ([0; 4096], Duration::from_millis(50));
        let calls = async {
            tokio::join!(
                timeout(limit, sandbox.check()),
                timeout(limit, sandbox.details()),
                timeout(limit, sandbox.boot_receipt()),
                timeout(limit, sandbox.guest_version()),
                timeout(limit, sandbox.next_oom()),
                timeout(limit, container.wait()),
                timeout(limit, container.start()),
                timeout(limit, stdout.read(&mut output)),
                timeout(limit, stdin.write_all(b"input")),
            )
        };
        let answers = calls.await;
        // An answer that passed is one that makes sense.
        if let Ok(Ok(receipt)) = &answers.2 {
            assert!(receipt.steps.iter().all(|step| !step.name.chars().any(char::is_control)));
        }
        if let Ok(Err(err)) = &answers.0 {
            assert!(!err.message().contains("connection"), "round {rounds}: {err}");
        }
    }
}

/// Sends random frames at the calls that are under way, then answers one check properly.
async fn rave(wire: &mut Wire, random: &mut Random) {
    let mut newest = 1;
    for _ in 0..FRAMES {
        // Look at what is being asked from time to time, so that frames meet calls that wait for them.
        while let Ok(asked) = timeout(Duration::from_millis(1), wire.asked()).await {
            newest = asked.unwrap().stream_id;
        }
        let near = newest.saturating_sub(u32::try_from(random.below(24)).unwrap());
        let stream_id = random.one_of(&[near, near, near, newest, newest + 2, 0, u32::MAX]);
        let kind = random.one_of(&[2, 2, 2, 2, 3, 3, 1, 0, 255]);
        let flags = random.one_of(&[0, 0, 0, 1, 2, 4, 5, 255]);
        let payload = random.payload();
        wire.frame(stream_id, kind, flags, &payload).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_random_frames_leave_the_connection_usable() {
    let (sandbox, mut wire) = hostile();
    let caller = tokio::spawn(keep_calling(sandbox.clone()));
    rave(&mut wire, &mut Random(SEED)).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled(), "a call panicked");

    // In front of this check may be ones of the caller's that nobody waits for any more.
    let guest = tokio::spawn(async move {
        while let Some(asked) = wire.asked().await {
            if asked.method == "Check" {
                wire.answer(&asked, &serving()).await;
            }
        }
    });
    sandbox.check().await.unwrap();
    drop(sandbox);
    guest.await.unwrap();
}

/// Not even frames: the connection may die of it, the host may not, and another connection works.
#[tokio::test(start_paused = true)]
async fn random_bytes_end_in_an_error() {
    let mut random = Random(SEED);
    for _ in 0..300 {
        let (sandbox, mut wire) = hostile();
        let noise = random.bytes(2000);
        tokio::spawn(async move {
            wire.asked().await.unwrap();
            wire.bytes(&noise).await;
        });
        sandbox.check().await.unwrap_err();
    }
    let (sandbox, mut wire) = hostile();
    tokio::spawn(async move {
        let asked: Asked = wire.asked().await.unwrap();
        wire.answer(&asked, &serving()).await;
        wire.asked().await;
    });
    sandbox.check().await.unwrap();
}
