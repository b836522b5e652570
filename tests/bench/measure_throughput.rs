//! How fast output comes: over a stream of its own, and by ReadStdout, on the same vsock in the same run. The ratio is
//! judged; the rates depend on the machine.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Run, Vm, VmConfig, pattern};
use hyperstart::{Process, Stream};
use hyperstart_vmm::TransportKind;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::figures::Figures;

/// Safety nets: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(1800);
/// What comes over the stream; all of it is compared by its hash.
const STREAMED: usize = 1 << 30;
/// What comes by ReadStdout, which would need minutes for as much. Before and after the stream, so that a machine that
/// slows down meanwhile favours neither.
const BY_REQUESTS: usize = 16 << 20;
/// What may be on its way: on a busy host an answer takes milliseconds, and the default is 64 KiB. Both ways have it.
const RING: &str = "hyperstart.output_ring=524288";
/// Comes over a stream before: what is measured is not QEMU's translation.
const WARM_UP: usize = 8 << 20;

pub fn measure(figures: &mut Figures) -> Result<()> {
    let transport = Some(TransportKind::VhostUserVsock);
    let vm = Vm::boot(&VmConfig {
        transport,
        cmdline: vec![RING.to_owned()],
        deadline: DEADLINE,
        ..VmConfig::default()
    });
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let rate = |name: &str, bytes: usize, streamed: bool| -> Result<f64> {
        let exec = web.exec(name, &Run::probe(["pour", &bytes.to_string()]));
        let process = exec.process().clone();
        let begun = Instant::now();
        let hash = vm.run(name, async {
            if streamed { by_stream(&process).await } else { by_requests(&process).await }
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(hash == expected(bytes), "{name}: other bytes came than were written");
        ensure!(exec.wait() == 0, "{name}: it failed");
        Ok(bytes as f64 / 1e6 / seconds)
    };
    rate("warm-up", WARM_UP, true)?;
    let before = rate("requests-before", BY_REQUESTS, false)?;
    let stream = rate("stream", STREAMED, true)?;
    let after = rate("requests-after", BY_REQUESTS, false)?;
    vm.kill();
    let requests = f64::midpoint(before, after);
    figures.once("stdout.stream", stream);
    figures.median("stdout.requests", &[before, after])?;
    figures.once("stdout.ratio", stream / requests);
    Ok(())
}

type Hash = Vec<u8>;

async fn by_stream(process: &Process) -> Result<Hash> {
    let mut hash = Sha256::new();
    let mut output = process.output(Stream::Stdout).open().await?;
    while let Some(chunk) = output.next().await? {
        hash.update(&chunk.data);
    }
    Ok(hash.finalize().to_vec())
}

async fn by_requests(process: &Process) -> Result<Hash> {
    let (mut hash, mut output, mut buffer) = (Sha256::new(), process.stdout(), vec![0; 64 << 10]);
    loop {
        match output.read(&mut buffer).await? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// That of what the probe writes.
fn expected(bytes: usize) -> Hash {
    let (mut hash, mut rest, piece) = (Sha256::new(), bytes, pattern(251 * 4096));
    while rest > 0 {
        let piece = piece.get(..rest).unwrap_or(&piece);
        hash.update(piece);
        rest -= piece.len();
    }
    hash.finalize().to_vec()
}
