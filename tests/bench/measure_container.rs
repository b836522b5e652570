//! What a container and an exec cost, in guest instructions that the plugin counts: waiting costs nothing.
//!
//! ```text
//! settled | CreateSandbox | CreateContainer | StartContainer | run ... exit reported | settled
//!         0               a                 b                c                       d
//! ```
//! A phase ends when its answer has come; what the guest still does then is the next one's. Every VM is new, since
//! only a guest's first container is the first. An exec is measured in a container that sleeps, several times.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::vm::Mode;
use harness::{Run, Vm};
use hyperstart::{ContainerId, ContainerOptions, ExecId, Process, SandboxConfig, Storage};
use tokio::io::AsyncReadExt;

use crate::counter::Counter;
use crate::figures::{Figures, millions, since};
use crate::limit;

const DEADLINE: Duration = Duration::from_secs(90);
/// Guests.
const REPEATS: usize = 3;
/// Execs in each.
const EXECS: usize = 5;
const PINGS: usize = 5;

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
        let mut machine = limit::machine(Mode::Initrd);
        let counter = Counter::attach(&mut machine)?;
        let vm = Vm::boot_machine(&machine, DEADLINE);
        vm.run("say hello", vm.sandbox().check())?; // the connection is made by the first call
        first_container(&vm, &counter, &mut samples)?;
        pings(&vm, &counter, &mut samples)?;
        execs(&vm, &counter, &mut samples)?;
        vm.kill();
    }
    for (id, samples) in &samples.0 {
        figures.median(id, samples)?;
    }
    Ok(())
}

fn first_container(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let begun = counter.settle()?;
    let sandbox = vm.sandbox();
    vm.run("create the sandbox", sandbox.create(&SandboxConfig::default()))?;
    let with_sandbox = counter.read()?.all;

    let id = ContainerId::new("first")?;
    let spec = Run::busybox(["echo", "hello"]).spec(&id);
    let device = vm.machine().disk_device(Vm::BUSYBOX_DISK).context("no busybox")?;
    let image = Storage::image(device.driver, &device.source, &ContainerId::new("busybox")?);
    let storages = vec![image.clone(), Storage::overlay(&id, &image)];
    let options = ContainerOptions { storages };
    let container = vm.run("create a container", sandbox.create_container(&id, &spec, options))?;
    let created = counter.read()?.all;

    vm.run("start a container", container.start())?;
    let started = counter.read()?.all;
    let ended = vm.run("run a container", run(container.process(), counter, b"hello\n"))?;

    samples.take("container.sandbox", since(with_sandbox, begun)?);
    samples.take("container.create", since(created, with_sandbox)?);
    samples.take("container.start", since(started, created)?);
    samples.take("container.run", since(ended.exit, started)?);
    samples.take("container.byte", since(ended.byte, begun)?);
    samples.take("container.exit", since(ended.exit, begun)?);
    Ok(())
}

/// The counts when a process's first byte and its exit were reported.
struct Ended {
    byte: u64,
    exit: u64,
}

async fn run(process: Process, counter: &Counter, says: &[u8]) -> Result<Ended> {
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
    for _ in 0..PINGS {
        let before = counter.settle()?;
        vm.run("ping", vm.sandbox().check())?;
        samples.take("ping.instructions", since(counter.settle()?, before)?);
    }
    Ok(())
}

fn execs(vm: &Vm, counter: &Counter, samples: &mut Samples) -> Result<()> {
    let sleeper = vm.start("sleeper", &Run::busybox(["sleep", "1000"]));
    let uname = Run::busybox(["uname", "-r"]).process();
    for number in 0..EXECS {
        let begun = counter.settle()?;
        let id = ExecId::new(format!("uname{number}"))?;
        let process = vm.run("exec", sleeper.container().exec(id, &uname))?;
        let called = counter.read()?.all;
        let ended = vm.run("run an exec", run(process, counter, b"6."))?;
        samples.take("exec.call", since(called, begun)?);
        samples.take("exec.exit", since(ended.exit, begun)?);
    }
    Ok(())
}
