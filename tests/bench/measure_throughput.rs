//! How fast output comes: over a stream of its own, and by ReadStdout, on the same vsock in the same run, in turns. The
//! ratio is judged; the rates depend on the machine.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::vm::Mode;
use harness::{Run, Running, Vm, VmConfig, pattern};
use hyperstart::{Process, Stream};
use hyperstart_vmm::TransportKind;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::counter::Counter;
use crate::figures::{Figures, millions, since};
use crate::limit;

/// Safety nets: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(1800);
/// A busy machine is busy for both: each reads its part, then the other.
const TURNS: usize = 16;
/// What comes over the stream in a turn: 1 GiB in all. All of it is compared by its hash.
const STREAMED: usize = 64 << 20;
/// What comes by ReadStdout, which would need minutes for as much.
const BY_REQUESTS: usize = 4 << 20;
/// What is read each way where instructions are counted.
const COUNTED: usize = 16 << 20;

pub fn measure(figures: &mut Figures) -> Result<()> {
    let transport = Some(TransportKind::VhostUserVsock);
    let vm = Vm::boot(&VmConfig { transport, deadline: DEADLINE, ..VmConfig::default() });
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let by_stream = pour(&web, "stream", STREAMED);
    let opened = vm.run("open", by_stream.output(Stream::Stdout).open())?;
    let mut by_stream = Poured::new(by_stream, opened, STREAMED);
    let by_requests = pour(&web, "requests", BY_REQUESTS);
    let mut by_requests = Poured::new(by_requests.clone(), by_requests.stdout(), BY_REQUESTS);
    // What is measured is not QEMU's translation.
    by_stream.turn(&vm)?;
    by_requests.turn(&vm)?;
    let (mut stream, mut requests, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (one, other) = (by_stream.turn(&vm)?, by_requests.turn(&vm)?);
        stream.push(one);
        requests.push(other);
        ratio.push(one / other);
    }
    by_stream.finish(&vm)?;
    by_requests.finish(&vm)?;
    vm.kill();
    figures.median("stdout.stream", &stream)?;
    figures.median("stdout.requests", &requests)?;
    figures.median("stdout.ratio", &ratio)?;
    instructions(figures)
}

/// The guest's work for a MiB, which no load on the host changes much.
fn instructions(figures: &mut Figures) -> Result<()> {
    let mut machine = limit::machine(Mode::Initrd);
    machine.transport = Some(TransportKind::VhostUserVsock);
    let counter = Counter::attach(&mut machine)?;
    let vm = Vm::boot_machine_within(&machine, DEADLINE);
    vm.create_sandbox();
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    let by_stream = pour(&web, "stream", COUNTED);
    let opened = vm.run("open", by_stream.output(Stream::Stdout).open())?;
    let mut by_stream = Poured::new(by_stream, opened, COUNTED);
    let stream = by_stream.counted(&vm, &counter)?;
    let by_requests = pour(&web, "requests", COUNTED);
    let mut by_requests = Poured::new(by_requests.clone(), by_requests.stdout(), COUNTED);
    let requests = by_requests.counted(&vm, &counter)?;
    vm.kill();
    figures.once("stdout.stream_instructions", stream);
    figures.once("stdout.requests_instructions", requests);
    Ok(())
}

/// A process that writes what one of the two reads.
fn pour(web: &Running<'_>, name: &str, turn: usize) -> Process {
    web.exec(name, &Run::probe(["pour", &all(turn).to_string()])).process().clone()
}

/// With the turn before those that count.
fn all(turn: usize) -> usize {
    (TURNS + 1) * turn
}

struct Poured<R> {
    process: Process,
    reader: R,
    hash: Sha256,
    /// What a turn reads. It is hashed afterwards: that costs as much as the way from the guest.
    turn: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Poured<R> {
    fn new(process: Process, reader: R, turn: usize) -> Self {
        Self { process, reader, hash: Sha256::new(), turn: vec![0; turn] }
    }

    /// Megabytes a second.
    fn turn(&mut self, vm: &Vm) -> Result<f64> {
        let begun = Instant::now();
        vm.run("read", self.reader.read_exact(&mut self.turn))?;
        let seconds = begun.elapsed().as_secs_f64();
        self.hash.update(&self.turn);
        Ok(self.turn.len() as f64 / 1e6 / seconds)
    }

    /// Millions of instructions for a MiB.
    fn counted(&mut self, vm: &Vm, counter: &Counter) -> Result<f64> {
        let begun = counter.settle()?;
        self.turn(vm)?;
        let counted = since(counter.settle()?, begun)?;
        Ok(millions(counted) * f64::from(1 << 20) / self.turn.len() as f64)
    }

    /// Nothing more comes, and all was as it was written.
    fn finish(mut self, vm: &Vm) -> Result<()> {
        let more = vm.run("read the end", self.reader.read(&mut self.turn))?;
        ensure!(more == 0, "{}: more came than was written", self.process);
        ensure!(vm.run("wait", self.process.wait())?.success(), "{}: it failed", self.process);
        let hash = self.hash.finalize();
        ensure!(
            hash[..] == expected(all(self.turn.len()))[..],
            "{}: other bytes came",
            self.process
        );
        Ok(())
    }
}

/// The hash of what the probe writes.
fn expected(bytes: usize) -> Vec<u8> {
    let (mut hash, mut rest, piece) = (Sha256::new(), bytes, pattern(251 * 4096));
    while rest > 0 {
        let piece = piece.get(..rest).unwrap_or(&piece);
        hash.update(piece);
        rest -= piece.len();
    }
    hash.finalize().to_vec()
}
