//! From the VM's start to init, and from there to ready, by the guest's own clock under icount.
//!
//! The time stamp counter of such a VM begins at 0 with the VM and adds 1 for each instruction, and the nanoseconds that
//! the guest was idle. The boot receipt has its value at every step. The agent is reached by the serial port: with a
//! vsock daemon, or a disk whose partitions are looked for, the guest's clock would leap on while the host works.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::Vm;
use harness::vm::Mode;
use hyperstart::BootReceipt;
use hyperstart_vmm::{Machine, TransportKind};

use crate::counter::Counter;
use crate::figures::{Figures, millions, since};
use crate::limit;

const DEADLINE: Duration = Duration::from_secs(60);
/// Boots of each kind: two tell whether they repeat, a third outvotes one that the host has disturbed.
const REPEATS: usize = 3;

pub fn measure(figures: &mut Figures) -> Result<()> {
    for (mode, init, ready) in
        [(Mode::Initrd, "boot.init", "boot.ready"), (Mode::Dax, "boot.dax_init", "boot.dax_ready")]
    {
        let (mut to_init, mut to_ready, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            let receipt = boot(&by_serial(limit::machine(mode)))?;
            let (init, ready) = (tsc(&receipt, "init")?, tsc(&receipt, "ready")?);
            to_init.push(millions(init));
            to_ready.push(millions(since(ready, init)?));
            limits.push(millions(limit::run(&by_serial(limit::limit_machine(mode)?))?.tsc));
        }
        figures.beside(init, &to_init, Some(&limits))?;
        figures.median(ready, &to_ready)?;
    }
    instructions(figures)
}

/// The same without the idle moments.
fn instructions(figures: &mut Figures) -> Result<()> {
    let (mut counts, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        counts.push(counted(limit::machine(Mode::Initrd), |machine| boot(machine).map(drop))?);
        let limit = limit::limit_machine(Mode::Initrd)?;
        limits.push(counted(limit, |machine| limit::run(machine).map(drop))?);
    }
    figures.beside("boot.init_instructions", &counts, Some(&limits))
}

fn counted(machine: Machine, run: impl FnOnce(&Machine) -> Result<()>) -> Result<f64> {
    let mut machine = by_serial(machine);
    let counter = Counter::attach(&mut machine)?;
    run(&machine)?;
    Ok(millions(counter.read()?.first_user))
}

fn by_serial(mut machine: Machine) -> Machine {
    machine.transport = Some(TransportKind::Serial);
    machine.disks.clear();
    machine.icount = true;
    machine
}

fn boot(machine: &Machine) -> Result<BootReceipt> {
    let vm = Vm::boot_machine_within(machine, DEADLINE);
    let receipt = vm.run("ask for the boot receipt", vm.sandbox().boot_receipt())?;
    vm.kill();
    Ok(receipt)
}

fn tsc(receipt: &BootReceipt, name: &str) -> Result<u64> {
    let step = receipt.steps.iter().find(|step| step.name == name);
    step.and_then(|step| step.tsc).with_context(|| format!("the boot receipt has no tsc of {name}"))
}
