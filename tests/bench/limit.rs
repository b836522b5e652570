//! The limit: the same kernel and machine with a PID 1 that only says a line (`probe/src/limit_init.rs`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest;
use harness::vm::{Mode, VmConfig};
use hyperstart_vmm::{Boot, Machine, Vm};
use image_builder::cpio::{self, Compression};
use image_builder::erofs;
use image_builder::progress::Silent;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// How long a trivial init may take to boot.
const DEADLINE: Duration = Duration::from_secs(30);
/// How the line ends: what was heard of it so far may be a part.
const LAST_WORD: &str = "total_kib=";
/// How often the console is looked at; the error of a wall time.
const POLL: Duration = Duration::from_millis(1);

/// What the trivial init said, and when it was heard.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub tsc: u64,
    pub used_kib: u64,
    /// From before QEMU's start until the line was seen.
    pub wall: Duration,
}

/// The bench's own machine: as a test's, with 128 MiB.
pub fn machine(mode: Mode) -> Machine {
    VmConfig { mode, ..VmConfig::default() }.machine()
}

/// That machine with the trivial init.
pub fn limit_machine(mode: Mode) -> Result<Machine> {
    let mut machine = machine(mode);
    machine.boot = match mode {
        Mode::Initrd => Boot::Initrd(image(mode, "limit-initrd.img")?),
        Mode::Dax => Boot::Rootfs(image(mode, "limit-rootfs.erofs")?),
    };
    Ok(machine)
}

/// Boots it until it has said its line.
pub fn run(machine: &Machine) -> Result<Limit> {
    let runtime = Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let directory = tempfile::Builder::new().prefix("hs").tempdir().context("make a directory")?;
    runtime.block_on(async {
        let begun = Instant::now();
        let vm = Vm::launch(machine, directory.path()).await?;
        let said =
            timeout(DEADLINE, line(&vm)).await.context("the trivial init does not boot")??;
        let wall = begun.elapsed();
        vm.kill(); // all is said
        let number = |name: &str| {
            let word =
                said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|number| number.parse().ok())
                .with_context(|| format!("{said:?}: no {name}"))
        };
        Ok(Limit { tsc: number("tsc")?, used_kib: number("used_kib")?, wall })
    })
}

/// The line that the trivial init writes to the console.
async fn line(vm: &Vm) -> Result<String> {
    loop {
        let tail = vm.console().tail();
        let said = tail.lines().find_map(|line| line.strip_prefix("limit: "));
        if let Some(line) = said.filter(|line| line.contains(LAST_WORD)) {
            return Ok(line.to_owned());
        }
        ensure!(vm.console().panic().is_none(), "the limit's kernel panics: {tail}");
        sleep(POLL).await;
    }
}

fn image(mode: Mode, name: &str) -> Result<PathBuf> {
    let tree = image_builder::guest::tree(&guest::payload("limit-init"))?;
    let output = guest::scratch().join(name);
    let written = match mode {
        Mode::Initrd => cpio::write(&tree, Compression::None, &output),
        Mode::Dax => erofs::write(&tree, &erofs::Options::default(), &output, &Silent),
    };
    written.with_context(|| format!("write {output:?}"))?;
    Ok(output)
}
