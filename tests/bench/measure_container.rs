//! What a container and an exec cost, in guest instructions that the plugin counts: waiting costs nothing.
//!
//! ```text
//! settled | CreateSandbox, CreateContainer, StartContainer, it runs, its exit is reported
//! the same, of a container in a user namespace with an image that is mapped to its ids
//! the same, by StartPod
//! settled | CreateSandbox | settled | CreateContainer | settled | StartContainer, it runs and ends | settled
//! ```
//! The first line is the figure with a budget. The last is taken in other guests and says where it goes: the answer
//! to a request may come before all of its work is done, so each phase is waited for, and has some of an idle guest's
//! timers in it. Every guest is new, since only its first container is the first. An exec is measured in a container
//! that sleeps, several times; a ping is a mean of many.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use harness::vm::Mode;
use harness::{Run, Vm};
use hyperstart::{Process, SandboxConfig};
use tokio::io::AsyncReadExt;

use crate::counter::Counter;
use crate::figures::{Figures, millions, since};
use crate::limit;

const DEADLINE: Duration = Duration::from_secs(90);
/// Guests.
const REPEATS: usize = 3;
/// Execs in each.
const EXECS: usize = 5;
/// Execs before them, which fill the caches of the guest's kernel.
const WARM_UP: usize = 1;
const PINGS: u64 = 50;
/// Of the guest: the mapped container's root.
const FIRST_ID: u32 = 100_000;

/// Samples by row.
#[derive(Default)]
struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    fn take(&mut self, id: &'static str, instructions: u64) {
        let sample = millions(instructions);
        match self.0.iter_mut().find(|(have, _)| *have == id) {
            Some((_, samples)) => samples.push(sample),
            None => self.0.push((id, vec![sample])),
        }
    }
}

pub fn measure(figures: &mut Figures) -> Result<()> {
    let mut samples = Samples::default();
    for _ in 0..REPEATS {
        in_a_guest(&mut samples, first_container)?;
        in_a_guest(&mut samples, mapped)?;
        in_a_guest(&mut samples, pod)?;
        in_a_guest(&mut samples, phases)?;
    }
    for (id, samples) in &samples.0 {
        figures.median(id, samples)?;
    }
    Ok(())
}

type Part = fn(&Vm, &Counter, &mut Samples) -> Result<()>;

fn in_a_guest(samples: &mut Samples, part: Part) -> Result<()> {
    let mut machine = limit::machine(Mode::Initrd);
    let counter = Counter::attach(&mut machine)?;
    let vm = Vm::boot_machine_within(&machine, DEADLINE);
    vm.run("say hello", vm.sandbox().check())?; // the connection is made by the first call
    part(&vm, &counter, samples)?;
    vm.kill();
    Ok(())
}

fn first_container(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let begun = counter.settle()?;
    vm.create_sandbox();
    let first = vm.start("first", &Run::busybox(["echo", "hello"]));
    let ended = vm.run("run a container", run(first.process(), counter, b"hello\n"))?;
    samples.take("container.byte", since(ended.byte, begun)?);
    samples.take("container.exit", since(ended.exit, begun)?);
    pings(vm, counter, samples)?;
    execs(vm, counter, samples)
}

fn mapped(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let begun = counter.settle()?;
    vm.create_sandbox();
    let first = vm.start("first", &Run::busybox(["echo", "hello"]).ids(FIRST_ID));
    let ended = vm.run("run a container", run(first.process(), counter, b"hello\n"))?;
    samples.take("container.mapped", since(ended.exit, begun)?);
    Ok(())
}

/// The same container, in one call.
fn pod(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let begun = counter.settle()?;
    let first = vm.describe("first", &Run::busybox(["echo", "hello"]), |_| {})?;
    let config = SandboxConfig::default();
    let started = vm.run("start a pod", vm.sandbox().start_pod(&config, vec![first]))?;
    let [first] = <[_; 1]>::try_from(started).map_err(|_| anyhow!("not one container"))?;
    let ended = vm.run("run a container", run(&first.process(), counter, b"hello\n"))?;
    samples.take("container.pod", since(ended.exit, begun)?);
    Ok(())
}

fn phases(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let begun = counter.settle()?;
    vm.create_sandbox();
    let with_sandbox = counter.settle()?;
    let first = vm.create("first", &Run::busybox(["echo", "hello"]));
    let created = counter.settle()?;
    vm.run("start a container", first.container().start())?;
    vm.run("run a container", run(first.process(), counter, b"hello\n"))?;
    let ended = counter.settle()?;
    samples.take("container.sandbox", since(with_sandbox, begun)?);
    samples.take("container.create", since(created, with_sandbox)?);
    samples.take("container.start", since(ended, created)?);
    Ok(())
}

/// The counts when a process's first byte and its exit were reported.
struct Ended {
    byte: u64,
    exit: u64,
}

async fn run(process: &Process, counter: &Counter, says: &[u8]) -> Result<Ended> {
    let output = async {
        let mut stdout = process.stdout();
        let mut said = vec![stdout.read_u8().await.context("read stdout")?];
        let byte = counter.read()?.all;
        stdout.read_to_end(&mut said).await.context("read stdout")?;
        anyhow::Ok((byte, said))
    };
    let exit = async {
        let status = process.wait().await?;
        anyhow::Ok((status, counter.read()?.all))
    };
    let ((byte, said), (status, exit)) = tokio::try_join!(output, exit)?;
    ensure!(status.success(), "the process ended with {}", status.code());
    ensure!(said.starts_with(says), "the process said {:?}", String::from_utf8_lossy(&said));
    Ok(Ended { byte, exit })
}

fn pings(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let before = counter.settle()?;
    for _ in 0..PINGS {
        vm.run("ping", vm.sandbox().check())?;
    }
    samples.take("ping.instructions", since(counter.read()?.all, before)? / PINGS);
    Ok(())
}

fn execs(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let sleeper = vm.start("sleeper", &Run::busybox(["sleep", "1000"]));
    for number in 0..WARM_UP + EXECS {
        let begun = counter.settle()?;
        let exec = sleeper.exec(&format!("uname{number}"), &Run::busybox(["uname", "-r"]));
        let ended = vm.run("run an exec", run(exec.process(), counter, b"6."))?;
        if number >= WARM_UP {
            samples.take("exec.exit", since(ended.exit, begun)?);
        }
    }
    Ok(())
}
