//! What much of one thing costs, in one guest of 256 MiB: containers alive at a time and one after another, execs at a
//! time, orphans.
//!
//! Instructions are counted by the plugin, so the ratio of the last cycles to the first is one of work and not of time;
//! where memory alone is looked at they are not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::vm::Mode;
use harness::{Run, Running, Vm};
use hyperstart::{ExecId, Process};
use hyperstart_vmm::Machine;
use tokio::io::AsyncReadExt;

use crate::counter::Counter;
use crate::figures::{Figures, kib, millions, since};
use crate::limit;

/// A safety net: two thousand containers take minutes.
const DEADLINE: Duration = Duration::from_secs(3600);
const MEMORY_MIB: u32 = 256;
const CONTAINERS: usize = 200;
const CYCLES: usize = 2_000;
/// Of cycles in the guest whose instructions are counted.
const COUNTED: usize = 400;
/// The first and the last so many of them are compared.
const COMPARED: usize = 100;
/// Cycles before PID 1's memory is looked at first: they fill the table of events, and the allocator's gaps.
const WARM_UP: usize = 140;
const EXECS: usize = 500;
const ORPHANS: usize = 100_000;

pub fn measure(figures: &mut Figures) -> Result<()> {
    for part in [alive, growth] {
        let vm = guest(&machine());
        let measured = part(&vm, figures);
        vm.kill();
        measured?;
    }
    for part in [cycles, execs, orphans] {
        let mut machine = machine();
        let counter = Counter::attach(&mut machine)?;
        let vm = guest(&machine);
        let measured = part(&vm, &counter, figures);
        vm.kill();
        measured?;
    }
    Ok(())
}

fn machine() -> Machine {
    Machine { memory_mib: MEMORY_MIB, ..limit::machine(Mode::Initrd) }
}

fn guest(machine: &Machine) -> Vm {
    let vm = Vm::boot_machine_within(machine, DEADLINE);
    vm.create_sandbox();
    vm
}

fn available(vm: &Vm) -> Result<u64> {
    let receipt = vm.run("ask for the boot receipt", vm.sandbox().boot_receipt())?;
    Ok(receipt.mem_available_bytes)
}

fn anonymous(vm: &Vm) -> f64 {
    vm.init_memory().number("Anonymous") as f64
}

fn sleeper<'vm>(vm: &'vm Vm, name: &str) -> Running<'vm> {
    vm.start(name, &Run::busybox(["sleep", "100000"]))
}

fn alive(vm: &Vm, figures: &mut Figures) -> Result<()> {
    let first = sleeper(vm, "first");
    let (free, init) = (available(vm)?, anonymous(vm));
    let more: Vec<_> = (0..CONTAINERS).map(|index| sleeper(vm, &format!("web-{index}"))).collect();
    let taken = since(free, available(vm)?)?;
    figures.once("load.container_memory", kib(taken) / CONTAINERS as f64);
    figures.once("load.container_init", (anonymous(vm) - init) / CONTAINERS as f64);
    drop((first, more));
    Ok(())
}

fn cycle(vm: &Vm) {
    let web = vm.start("web", &Run::busybox(["true"]));
    assert_eq!(web.wait(), 0, "true");
    web.remove();
}

fn growth(vm: &Vm, figures: &mut Figures) -> Result<()> {
    (0..WARM_UP).for_each(|_| cycle(vm));
    let before = anonymous(vm);
    (0..CYCLES).for_each(|_| cycle(vm));
    figures.once("load.cycle_init", anonymous(vm) - before);
    Ok(())
}

fn cycles(vm: &Vm, counter: &Counter, figures: &mut Figures) -> Result<()> {
    cycle(vm); // the first has more to make
    let counted = || {
        let begun = counter.settle()?;
        (0..COMPARED).for_each(|_| cycle(vm));
        since(counter.settle()?, begun)
    };
    let first = counted()?;
    (0..COUNTED - 2 * COMPARED).for_each(|_| cycle(vm));
    let last = counted()?;
    figures.once("load.cycle", millions(last) / COMPARED as f64);
    figures.once("load.cycle_ratio", last as f64 / first as f64);
    Ok(())
}

fn execs(vm: &Vm, counter: &Counter, figures: &mut Figures) -> Result<()> {
    let web = sleeper(vm, "web");
    let start = |index: usize| {
        let container = web.container().clone();
        async move {
            let id = ExecId::new(format!("exec-{index}"))?;
            let process = container.exec(id, &Run::busybox(["uname", "-r"]).process()).await?;
            finish(&process).await
        }
    };
    let round = || {
        let begun = counter.settle()?;
        let finished = vm.run_together("execs at a time", (0..EXECS).map(start));
        finished.into_iter().collect::<Result<()>>()?;
        since(counter.settle()?, begun)
    };
    let (first, second) = (round()?, round()?);
    figures.once("load.exec", millions(first) / EXECS as f64);
    figures.once("load.exec_ratio", second as f64 / first as f64);
    Ok(())
}

/// Reads both outputs to their ends, so that the exec is forgotten.
async fn finish(process: &Process) -> Result<()> {
    let (mut said, mut complaint) = (String::new(), String::new());
    process.stdout().read_to_string(&mut said).await.context("read stdout")?;
    process.stderr().read_to_string(&mut complaint).await.context("read stderr")?;
    let status = process.wait().await?;
    ensure!(status.success() && said.starts_with("6."), "{} {said:?}", status.code());
    Ok(())
}

fn orphans(vm: &Vm, counter: &Counter, figures: &mut Figures) -> Result<()> {
    let begun = counter.settle()?;
    let run = Run::probe(["orphans-at-once", &ORPHANS.to_string()]).init();
    let said = vm.finish("orphans", &run);
    ensure!(said.code == 0, "{said:?}");
    let counted = since(counter.settle()?, begun)?;
    figures.once("load.orphan", millions(counted) / ORPHANS as f64);
    Ok(())
}
