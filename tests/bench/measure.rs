//! The measurements, group by group.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Mode, Run, Vm, VmConfig, guest};
use hyperstart::{Code, SandboxConfig};
use hyperstart_vmm::{Machine, TransportKind};

use crate::count::{Counters, Counts};
use crate::limit;
use crate::table::{Row, Table};

const MIB: f64 = 1048576.0;
const DEADLINE: Duration = Duration::from_secs(300);
/// How long a guest takes, at the most, to have nothing left to do.
const SETTLE: Duration = Duration::from_millis(300);
const EXECS: u32 = 20;
const WALL_RUNS: usize = 7;

/// The machine that all boot numbers are of: 128 MiB, a serial port, no disks.
fn machine(mode: Mode) -> Machine {
    let config = VmConfig { mode, transport: Some(TransportKind::Serial), ..VmConfig::default() };
    let mut machine = config.machine();
    machine.disks.clear();
    machine
}

fn millions(instructions: u64) -> f64 {
    instructions as f64 / 1e6
}

/// Files, as they are shipped.
pub fn sizes(table: &mut Table) {
    let size = |path: std::path::PathBuf| fs::metadata(path).expect("stat").len() as f64 / MIB;
    let row = |name, path| Row::new("sizes", name, "MiB", size(path));
    table.push(row("init, static, stripped", guest::payload("init")).budget(1.3).goal(1.0));
    table.push(row("kernel, bzImage", guest::file("bzImage")).budget(5e6 / MIB));
    table.push(row("kernel, vmlinux (PVH, stripped)", guest::file("vmlinux")));
    table.push(row("initrd", guest::file("initrd.img")));
    table.push(row("rootfs for DAX", guest::file("rootfs.erofs")));
}

/// From the start of the VM to ready, in guest instructions and in virtual time, which adds idle time to them.
pub fn boot(table: &mut Table) {
    boot_of(
        table,
        Mode::Initrd,
        [
            "boot to init, microvm initrd, virtual",
            "boot to init, microvm initrd",
            "init's first instruction to ready",
            "  of them in user mode",
        ],
    );
    boot_of(
        table,
        Mode::Dax,
        [
            "boot to init, q35 dax, virtual",
            "boot to init, q35 dax",
            "init's first instruction to ready, q35 dax",
            "  of them in user mode, q35 dax",
        ],
    );
}

fn boot_of(table: &mut Table, mode: Mode, names: [&'static str; 4]) {
    let mut trivial = machine(mode);
    limit::replace_root(&mut trivial, mode);
    let counters = Counters::attach_to_boot(&mut trivial);
    let limit = limit::run(&trivial);
    let limit_counts = counters.read();

    let mut ours = machine(mode);
    let counters = Counters::attach(&mut ours);
    let vm = Vm::boot_machine(&ours, DEADLINE);
    thread::sleep(SETTLE);
    let counts = counters.read();
    let receipt = vm.run("the receipt", vm.sandbox().boot_receipt()).expect("a receipt");
    vm.kill();
    let virtual_time = |name: &str| {
        let step =
            receipt.steps.iter().find(|step| step.name == name).expect("a step of the receipt");
        step.tsc.expect("a time stamp counter")
    };
    let to_init =
        Row::new("boot", names[0], "ms", millions(virtual_time("init"))).limit(millions(limit.tsc));
    let in_budget = mode == Mode::Initrd;
    table.push(if in_budget { to_init.budget(45.0).goal(34.0) } else { to_init });
    let instructions = Row::new("boot", names[1], "M", millions(counts.first_user));
    table.push(instructions.limit(millions(limit_counts.first_user)));
    let to_ready = virtual_time("ready") - virtual_time("init");
    let note = format!(
        "{:.2} M counted from the first instruction until idle",
        millions(counts.all - counts.first_user)
    );
    table.push(
        Row::new("boot", names[2], "M", millions(to_ready)).budget(3.0).goal(0.87).note(note),
    );
    table.push(Row::new("boot", names[3], "M", millions(counts.user)));
}

/// A first container and an exec, in guest instructions without those of an idle guest.
pub fn work(table: &mut Table) {
    let config = VmConfig {
        transport: Some(TransportKind::Serial),
        deadline: DEADLINE,
        ..VmConfig::default()
    };
    let mut counted = config.machine();
    let counters = Counters::attach(&mut counted);
    let vm = Vm::boot_machine(&counted, DEADLINE);
    let idle = Idle::watch(&counters);
    let (first, second) =
        (first_container(&vm, &counters, &idle), second_container(&vm, &counters, &idle));
    let container = Row::new("work", "CreateSandbox to first container's exit", "M", first);
    table.push(container.budget(12.0).goal(6.0));
    table.push(Row::new("work", "a later container, create to exit", "M", second));
    let (median, spread) = execs(&vm, &counters, &idle);
    let exec = Row::new("work", "exec `uname -r`, call to exit and output", "M", median);
    table.push(exec.budget(3.0).goal(1.4).note(format!("median of {EXECS}, spread {spread:.1} %")));
    vm.kill();
}

/// What a guest with nothing to do executes in a second.
struct Idle {
    per_second: f64,
}

impl Idle {
    fn watch(counters: &Counters) -> Self {
        thread::sleep(SETTLE);
        let (before, begun) = (counters.read(), Instant::now());
        thread::sleep(Duration::from_secs(1));
        let after = counters.read();
        Self { per_second: (after.all - before.all) as f64 / begun.elapsed().as_secs_f64() }
    }

    /// What `work` cost in millions, until the guest was idle again.
    fn count<T>(&self, counters: &Counters, work: impl FnOnce() -> T) -> f64 {
        let (before, begun) = (counters.read(), Instant::now());
        work();
        let after = settled(counters);
        let idle = self.per_second * begun.elapsed().as_secs_f64();
        ((after.all - before.all) as f64 - idle) / 1e6
    }
}

/// The counters when the guest has gone idle.
fn settled(counters: &Counters) -> Counts {
    thread::sleep(Duration::from_millis(30));
    counters.read()
}

fn first_container(vm: &Vm, counters: &Counters, idle: &Idle) -> f64 {
    idle.count(counters, || {
        vm.run("create the sandbox", vm.sandbox().create(&SandboxConfig::default()))
            .expect("a sandbox");
        vm.start("first", &Run::busybox(["true"])).finish()
    })
}

fn second_container(vm: &Vm, counters: &Counters, idle: &Idle) -> f64 {
    idle.count(counters, || vm.start("second", &Run::busybox(["true"])).finish())
}

/// The median and the spread in percent of it.
fn execs(vm: &Vm, counters: &Counters, idle: &Idle) -> (f64, f64) {
    let web = vm.start("web", &Run::busybox(["sleep", "1000000"]));
    let once = |index: u32| {
        idle.count(counters, || {
            let said = web.exec(&format!("exec-{index}"), &Run::busybox(["uname", "-r"])).finish();
            assert!(said.code == 0 && !said.stdout.is_empty(), "{said:?}");
        })
    };
    once(0); // the first one brings pages in
    let mut counts: Vec<f64> = (1..=EXECS).map(once).collect();
    counts.sort_by(f64::total_cmp);
    let median = counts[counts.len() / 2];
    let (least, most) = (counts[counts.len() / 10], counts[counts.len() * 9 / 10]);
    (median, 100.0 * (most - least) / median)
}

/// Memory of the guest at ready, of PID 1 idle and with many connections, and the least with which a container runs.
pub fn memory(table: &mut Table) {
    for (mode, name, over) in [
        (Mode::Initrd, "guest memory used at ready, initrd, -m 128", 2.0),
        (Mode::Dax, "guest memory used at ready, dax, -m 128", 1.0),
    ] {
        let mut trivial = machine(mode);
        limit::replace_root(&mut trivial, mode);
        let limit = limit::run(&trivial).used_kib as f64 / 1024.0;
        let vm = Vm::boot_machine(&machine(mode), DEADLINE);
        let receipt = vm.run("the receipt", vm.sandbox().boot_receipt()).expect("a receipt");
        vm.kill();
        let used = (receipt.mem_total_bytes - receipt.mem_available_bytes) as f64 / MIB;
        table.push(Row::new("memory", name, "MiB", used).limit(limit).budget(limit + over));
    }
    init_memory(table);
    smallest_memory(table);
}

fn init_memory(table: &mut Table) {
    let transport = Some(TransportKind::VhostUserVsock);
    let vm = Vm::boot(&VmConfig { transport, deadline: DEADLINE, ..VmConfig::default() });
    let idle = vm.init_memory();
    let many: Vec<_> = (0..64).map(|_| vm.connect()).collect();
    let busy = vm.init_memory();
    drop(many);
    vm.shutdown();
    let row = |name, unit, value: u64| Row::new("memory", name, unit, value as f64);
    table.push(row("init, Pss, idle", "KiB", idle.number("Pss")).budget(1536.0));
    table.push(row("init, anonymous, idle", "KiB", idle.number("Anonymous")).budget(256.0));
    table.push(row("init, threads, idle", "", idle.number("threads")).budget(1.0));
    table.push(row("init, Pss, 64 connections", "KiB", busy.number("Pss")));
    table.push(row("init, anonymous, 64 connections", "KiB", busy.number("Anonymous")));
    table.push(row("init, threads, 64 connections", "", busy.number("threads")).budget(1.0));
}

/// By halving: less memory than enough is never enough.
fn smallest_memory(table: &mut Table) {
    let least = |works: &dyn Fn(u32) -> bool| {
        let (mut too_little, mut enough) = (8, 64);
        while enough - too_little > 1 {
            let middle = (too_little + enough) / 2;
            if works(middle) { enough = middle } else { too_little = middle }
        }
        f64::from(enough)
    };
    for (mode, name) in [
        (Mode::Initrd, "smallest -m that runs busybox, initrd"),
        (Mode::Dax, "smallest -m that runs busybox, dax"),
    ] {
        let limit = least(&|memory_mib| {
            let mut trivial = Machine { memory_mib, ..machine(mode) };
            limit::replace_root(&mut trivial, mode);
            limit::try_run(&trivial).is_some()
        });
        let ours = least(&|memory_mib| runs_busybox(mode, memory_mib));
        table.push(Row::new("memory", name, "MiB", ours).limit(limit).budget(40.0).goal(24.0));
    }
}

fn runs_busybox(mode: Mode, memory_mib: u32) -> bool {
    const PATIENCE: Duration = Duration::from_secs(30);
    let config = VmConfig {
        mode,
        memory_mib,
        transport: Some(TransportKind::Serial),
        ..VmConfig::default()
    };
    // A guest that has too little panics, or hangs: both end the attempt, whose message is of no interest.
    let attempt = std::panic::catch_unwind(|| {
        let vm = Vm::boot_machine(&config.machine(), PATIENCE);
        vm.create_sandbox();
        let said = vm.finish("web", &Run::busybox(["echo", "hello"]));
        let alive = vm
            .run("check", vm.sandbox().check())
            .map_err(|err| err.code() == Code::Unavailable)
            .is_ok();
        vm.kill();
        alive && said.code == 0 && said.stdout() == "hello\n"
    });
    attempt.unwrap_or(false)
}

/// Wall times: medians, of a machine that is as busy as it is.
pub fn wall(table: &mut Table) {
    for (mode, ready, ran) in [
        (
            Mode::Initrd,
            "wall: VM start to ready, initrd",
            "wall: VM start to first container's exit, initrd",
        ),
        (
            Mode::Dax,
            "wall: VM start to ready, dax",
            "wall: VM start to first container's exit, dax",
        ),
    ] {
        let limit = median(|| {
            let mut trivial = machine(mode);
            limit::replace_root(&mut trivial, mode);
            limit::run(&trivial).wall
        });
        let mut first = Vec::new();
        let ready_after = median(|| {
            let config = VmConfig { mode, deadline: DEADLINE, ..VmConfig::default() };
            let vm = Vm::boot(&config);
            vm.start("first", &Run::busybox(["true"])).finish();
            first.push(vm.machine().uptime());
            let ready = vm.ready_after();
            vm.kill();
            ready
        });
        first.sort_unstable();
        table.push(
            Row::new("wall", ready, "ms", ready_after)
                .limit(limit)
                .note("limit: until QEMU has ended"),
        );
        table.push(Row::new("wall", ran, "ms", first[first.len() / 2].as_secs_f64() * 1e3));
    }
    let vm = Vm::boot(&VmConfig { deadline: DEADLINE, ..VmConfig::default() });
    let web = vm.start("web", &Run::busybox(["sleep", "1000000"]));
    let mut index = 0;
    let exec = median(|| {
        index += 1;
        let begun = Instant::now();
        web.exec(&format!("exec-{index}"), &Run::busybox(["uname", "-r"])).finish();
        begun.elapsed()
    });
    table.push(Row::new("wall", "wall: exec `uname -r`", "ms", exec));
    let bytes = 32 << 20;
    let begun = Instant::now();
    let said =
        web.exec("flood", &Run::busybox(["head", "-c", &bytes.to_string(), "/dev/zero"])).finish();
    let rate = said.stdout.len() as f64 / begun.elapsed().as_secs_f64() / 1e6;
    vm.kill();
    let cost = Row::new("wall", "wall: a megabyte through stdout", "ms", 1e3 / rate);
    table.push(cost.note(format!("{rate:.1} MB/s")));
}

/// In milliseconds.
fn median(mut run: impl FnMut() -> Duration) -> f64 {
    let mut times: Vec<Duration> = (0..WALL_RUNS).map(|_| run()).collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
