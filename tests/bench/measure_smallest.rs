//! The smallest guest that runs a container of busybox, found by halving; and the smallest that reaches a trivial init.
//!
//! A guest that is too small panics, has its container killed, or hangs until the deadline: all of it is a no. That the
//! answer is a yes from some size on is assumed for the halving, and then tried twice more for the size found.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::Run;
use harness::vm::{Mode, VmConfig, transport};
use hyperstart::{ContainerId, ContainerOptions, Sandbox, SandboxConfig, Storage};
use hyperstart_vmm::{Machine, Vm};
use tokio::io::AsyncReadExt;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::figures::Figures;
use crate::limit;

/// For one try. A guest that is large enough needs a tenth of it.
const DEADLINE: Duration = Duration::from_secs(10);
const SIZES_MIB: Range<u32> = 16..64;
const CONFIRMATIONS: usize = 2;

pub fn measure(figures: &mut Figures) -> Result<()> {
    let machine = VmConfig::default().machine();
    let mut smallest = first(SIZES_MIB, |size| runs_busybox(&with_memory(&machine, size)));
    while !(0..CONFIRMATIONS).all(|_| runs_busybox(&with_memory(&machine, smallest))) {
        smallest += 1;
        ensure!(smallest <= 2 * SIZES_MIB.end, "busybox runs in no guest of {smallest} MiB");
    }
    let trivial = limit::limit_machine(Mode::Initrd)?;
    let limit = first(SIZES_MIB, |size| limit::run(&with_memory(&trivial, size)).is_ok());
    figures.beside("smallest", &[f64::from(smallest)], Some(&[f64::from(limit)]))
}

/// The first for which it is so, given that it is so for all after it and for the end of the range.
fn first(range: Range<u32>, mut is_so: impl FnMut(u32) -> bool) -> u32 {
    let (mut no, mut yes) = (range.start - 1, range.end);
    while yes - no > 1 {
        let middle = no.midpoint(yes);
        if is_so(middle) { yes = middle } else { no = middle }
    }
    yes
}

fn with_memory(machine: &Machine, memory_mib: u32) -> Machine {
    Machine { memory_mib, ..machine.clone() }
}

fn runs_busybox(machine: &Machine) -> bool {
    let tried = try_busybox(machine);
    if let Err(err) = &tried {
        eprintln!("bench: {} MiB: {err}", machine.memory_mib);
    }
    tried.is_ok()
}

fn try_busybox(machine: &Machine) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("hs").tempdir()?;
    runtime.block_on(async {
        let vm = Vm::launch(machine, directory.path()).await?;
        timeout(DEADLINE, say_hello(&vm)).await?
    })
}

async fn say_hello(vm: &Vm) -> Result<()> {
    vm.ready(DEADLINE).await?;
    let sandbox = Sandbox::connect(&transport(vm.address())).await?;
    sandbox.create(&SandboxConfig::default()).await?;
    let id = ContainerId::new("first")?;
    let Some(device) = vm.disk_device(harness::Vm::BUSYBOX_DISK) else {
        anyhow::bail!("no busybox");
    };
    let image = Storage::image(device.driver, &device.source, &ContainerId::new("busybox")?);
    let options = ContainerOptions {
        storages: vec![image.clone(), Storage::overlay(&id, &[image])],
        ..Default::default()
    };
    let spec = Run::busybox(["echo", "hello"]).spec(&id);
    let container = sandbox.create_container(&id, &spec, options).await?;
    container.start().await?;
    let mut said = String::new();
    container.process().stdout().read_to_string(&mut said).await?;
    let status = container.wait().await?;
    ensure!(status.success() && said == "hello\n", "exit code {}, said {said:?}", status.code());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_finds_the_first() {
        for first_yes in 16..=64 {
            assert_eq!(first(16..64, |size| size >= first_yes), first_yes);
        }
    }
}
