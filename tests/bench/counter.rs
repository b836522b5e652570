//! Counts guest instructions by the TCG plugin `count.c`, which it compiles for the QEMU that is here.
//!
//! One vCPU under `-icount shift=0,sleep=on`: an instruction is a nanosecond, so timer interrupts come after so many
//! instructions and not after so much of the host's time, and what is counted repeats; while the guest is idle its clock
//! goes at the pace of the wall and no instruction runs, so waiting costs nothing. (Under `sleep=off`, as the boot is
//! measured, an idle guest's clock leaps from timer to timer, and the guest is never idle for long.)

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::guest;
use hyperstart_vmm::Machine;
use tempfile::NamedTempFile;

/// How long no more than [`QUIET_COUNT`] instructions may run until a guest counts as idle.
const QUIET: Duration = Duration::from_millis(60);
/// What an idle guest's timers may run in that time.
const QUIET_COUNT: u64 = 20_000;
const QUIET_DEADLINE: Duration = Duration::from_secs(20);

/// The counters of `count.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions since the machine's reset.
    pub all: u64,
    /// Those of them in user mode.
    pub user: u64,
    /// `all` when PID 1 executed its first.
    pub first_user: u64,
}

/// The counters of one VM.
#[derive(Debug)]
pub struct Counter(NamedTempFile);

impl Counter {
    /// Gives a machine counters, and a clock that counts instructions.
    pub fn attach(machine: &mut Machine) -> Result<Self> {
        let file = NamedTempFile::new().context("make the counters' file")?;
        fs::write(file.path(), [0; size_of::<[u64; 3]>()]).context("write the counters' file")?;
        let plugin = compile()?;
        machine.plugin = Some(format!("{},counters={}", plugin.display(), file.path().display()));
        machine.icount = true;
        machine.qemu_args.extend(["-icount".into(), "shift=0,sleep=on".into()]); // the last word wins
        Ok(Self(file))
    }

    pub fn read(&self) -> Result<Counts> {
        let bytes = fs::read(self.0.path()).context("read the counters")?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let [all, user, first_user] = numbers else { bail!("there are not three counters") };
        let number = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        Ok(Counts { all: number(all), user: number(user), first_user: number(first_user) })
    }

    /// Waits until the guest does nothing any more, and gives the count then.
    pub fn settle(&self) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let before = self.read()?.all;
            thread::sleep(QUIET);
            let after = self.read()?.all;
            if after - before <= QUIET_COUNT {
                return Ok(after);
            }
            ensure!(begun.elapsed() < QUIET_DEADLINE, "the guest does not come to rest");
        }
    }
}

/// Makes the plugin; a QEMU takes the interface versions of its time.
fn compile() -> Result<PathBuf> {
    let version = if qemu_major()? < 9 { 1 } else { 2 };
    let source = guest::workspace().join("tests/bench/count.c");
    let output = guest::scratch().join(format!("count-{version}.so"));
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"])
        .arg(format!("-DPLUGIN_VERSION={version}"))
        .arg("-o")
        .arg(&output)
        .arg(&source)
        .status()
        .context("run cc")?;
    ensure!(status.success(), "compile {source:?}: {status}");
    Ok(output)
}

fn qemu_major() -> Result<u32> {
    let qemu = std::env::var("HYPERSTART_QEMU").unwrap_or_else(|_| "qemu-system-x86_64".to_owned());
    let output =
        Command::new(&qemu).arg("--version").output().with_context(|| format!("run {qemu:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_once("version ").and_then(|(_, rest)| rest.split('.').next()?.parse().ok()) {
        Some(major) => Ok(major),
        None => bail!("{qemu} --version: {text:?} names no version"),
    }
}
