//! Wall times, as a user of the library sees them: from the call that starts QEMU. Judged by nobody; they depend on
//! the machine and on what else it does. Every VM is new, the host's page cache is warm.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::vm::Mode;
use harness::{Run, Vm};
use hyperstart::SandboxConfig;
use tokio::io::AsyncReadExt;

use crate::figures::Figures;
use crate::limit;

const DEADLINE: Duration = Duration::from_secs(60);
/// Guests.
const REPEATS: usize = 5;
/// Execs and pings in each: the first ones warm QEMU's translations and are not taken.
const WARM_UP: usize = 2;
const EXECS: usize = 5;
const PINGS: usize = 50;

pub fn measure(figures: &mut Figures) -> Result<()> {
    let (mut ready, mut byte, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    let (mut execs, mut pings) = (Vec::new(), Vec::new());
    limit::run(&limit::limit_machine(Mode::Initrd)?)?; // warms the page cache
    for _ in 0..REPEATS {
        limits.push(milliseconds(limit::run(&limit::limit_machine(Mode::Initrd)?)?.wall));
        let begun = Instant::now();
        let vm = Vm::boot_machine_within(&limit::machine(Mode::Initrd), DEADLINE);
        ready.push(milliseconds(begun.elapsed()));
        vm.run("create the sandbox", vm.sandbox().create(&SandboxConfig::default()))?;
        let first = vm.start("first", &Run::busybox(["echo", "hello"]));
        let process = first.process();
        vm.run("read the first byte", async { process.stdout().read_u8().await })
            .context("read stdout")?;
        byte.push(milliseconds(begun.elapsed()));
        execs.extend(in_a_container(&vm));
        pings.extend(round_trips(&vm)?);
        vm.kill();
    }
    figures.beside("wall.ready", &ready, Some(&limits))?;
    figures.beside("wall.byte", &byte, Some(&limits))?;
    figures.median("wall.exec", &execs)?;
    figures.median("wall.ping", &pings)
}

fn in_a_container(vm: &Vm) -> Vec<f64> {
    let sleeper = vm.start("sleeper", &Run::busybox(["sleep", "1000"]));
    let exec = |number| {
        let begun = Instant::now();
        let finished =
            sleeper.exec(&format!("uname{number}"), &Run::busybox(["uname", "-r"])).finish();
        assert_eq!(finished.code, 0, "uname -r");
        milliseconds(begun.elapsed())
    };
    (0..WARM_UP + EXECS).map(exec).skip(WARM_UP).collect()
}

fn round_trips(vm: &Vm) -> Result<Vec<f64>> {
    let ping = |_| {
        let begun = Instant::now();
        vm.run("ping", vm.sandbox().check())?;
        Ok(milliseconds(begun.elapsed()))
    };
    (0..WARM_UP + PINGS).map(ping).skip(WARM_UP).collect()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
