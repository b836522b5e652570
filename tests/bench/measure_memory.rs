//! Guest memory at ready, and what of it is init's.
//!
//! The guest's is MemTotal - MemAvailable, as init's boot receipt has it; the limit's is that of the trivial init, in
//! the same machine. What init holds is looked up from a container that sees the guest's own /proc, so the figures
//! are those of an init that has made one container.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::vm::Mode;
use harness::{Vm, guest};

use crate::figures::{Figures, median};
use crate::limit;

const DEADLINE: Duration = Duration::from_secs(60);
/// Boots: MemAvailable varies by some pages.
const REPEATS: usize = 3;
/// Beside the bench's own connection.
const CONNECTIONS: usize = 64;

pub fn measure(figures: &mut Figures) -> Result<()> {
    let mut used_in = Vec::new();
    for (mode, id) in [(Mode::Initrd, "memory.initrd"), (Mode::Dax, "memory.dax")] {
        let (mut used, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            let vm = Vm::boot_machine_within(&limit::machine(mode), DEADLINE);
            let receipt = vm.run("ask for the boot receipt", vm.sandbox().boot_receipt())?;
            vm.kill();
            let bytes = receipt.mem_total_bytes.saturating_sub(receipt.mem_available_bytes);
            used.push(bytes as f64 / 1e6);
            let limit = limit::run(&limit::limit_machine(mode)?)?;
            limits.push((limit.used_kib * 1024) as f64 / 1e6);
        }
        figures.beside(id, &used, Some(&limits))?;
        used_in.extend(median(&used));
    }
    if let [initrd, dax] = used_in[..] {
        let image = fs::metadata(guest::file("initrd.img")).context("stat the initrd")?.len();
        figures.once("memory.saved", (initrd - dax) / (image as f64 / 1e6));
    }
    init(figures)
}

fn init(figures: &mut Figures) -> Result<()> {
    let vm = Vm::boot_machine_within(&limit::machine(Mode::Initrd), DEADLINE);
    vm.create_sandbox();
    take(figures, &vm, ["init.pss", "init.anonymous", "init.threads"]);
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| vm.connect()).collect();
    for connection in &connections {
        vm.run("ping on each connection", connection.check())?;
    }
    take(figures, &vm, ["init64.pss", "init64.anonymous", "init64.threads"]);
    vm.kill();
    Ok(())
}

fn take(figures: &mut Figures, vm: &Vm, [pss, anonymous, threads]: [&'static str; 3]) {
    let memory = vm.init_memory();
    figures.once(pss, memory.number("Pss") as f64);
    figures.once(anonymous, memory.number("Anonymous") as f64);
    figures.once(threads, memory.number("threads") as f64);
}
