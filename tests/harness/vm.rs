//! One guest, from boot to an end that finds what was left behind.

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyperstart::{Sandbox, SandboxConfig, Transport};
use hyperstart_vmm::{AgentAddress, Boot, Disk, Exit, Machine, Nic, TransportKind};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::PATIENCE;
use crate::guest;
use crate::raw::Raw;

/// Where the guest's root comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An initrd on a microvm.
    Initrd,
    /// An EROFS in persistent memory on a q35.
    Dax,
}

/// What a test may choose about its VM.
#[derive(Clone, Debug)]
pub struct VmConfig {
    pub mode: Mode,
    /// `None`: the best that this host has.
    pub transport: Option<TransportKind>,
    pub memory_mib: u32,
    pub cpus: u32,
    /// More words for the kernel's command line.
    pub cmdline: Vec<String>,
    /// Directories for the guest to mount by 9p: path and tag.
    pub shares: Vec<(PathBuf, String)>,
    pub nics: Vec<Nic>,
    pub sandbox: SandboxConfig,
    /// For the whole test.
    pub deadline: Duration,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Initrd,
            transport: None,
            memory_mib: 128,
            cpus: 1,
            cmdline: Vec::new(),
            shares: Vec::new(),
            nics: Vec::new(),
            sandbox: SandboxConfig::default(),
            deadline: PATIENCE,
        }
    }
}

impl VmConfig {
    /// The machine that this describes, with both images attached: [`Vm::PROBE_DISK`] and [`Vm::BUSYBOX_DISK`].
    pub fn machine(&self) -> Machine {
        let boot = match self.mode {
            Mode::Initrd => Boot::Initrd(guest::file("initrd.img")),
            Mode::Dax => Boot::Rootfs(guest::file("rootfs.erofs")),
        };
        let mut machine = Machine::new(guest::file("vmlinux"), boot);
        machine.transport = self.transport;
        machine.memory_mib = self.memory_mib;
        machine.cpus = self.cpus;
        machine.cmdline = self.cmdline.clone();
        machine.nics = self.nics.clone();
        let images = [guest::probe_image().to_owned(), guest::file("images/busybox.erofs")];
        machine.disks = images.map(|path| Disk { path, read_only: true }).into();
        machine.shares = self
            .shares
            .iter()
            .map(|(path, tag)| hyperstart_vmm::Share {
                kind: hyperstart_vmm::ShareKind::NineP,
                path: path.clone(),
                tag: tag.clone(),
                read_only: false,
            })
            .collect();
        machine
    }
}

/// A booted guest with a sandbox in it. A test ends it by [`Vm::shutdown`], or says by [`Vm::kill`] that it needs no
/// clean end.
pub struct Vm {
    // In the order in which they are dropped: handles before the VM, the directory last.
    sandbox: Sandbox,
    machine: hyperstart_vmm::Vm,
    runtime: Runtime,
    deadline: Instant,
    ready_after: Duration,
    ended: bool,
    shares_pids: Cell<bool>,
    _directory: TempDir,
}

impl Vm {
    /// The index of the probe's image among the disks.
    pub const PROBE_DISK: usize = 0;
    /// The index of busybox.
    pub const BUSYBOX_DISK: usize = 1;

    /// Boots a guest and makes the sandbox.
    pub fn boot(config: &VmConfig) -> Self {
        let vm = Self::boot_machine_within(&config.machine(), config.deadline);
        vm.create_sandbox_of(&config.sandbox);
        vm
    }

    /// Makes a sandbox that asks for nothing.
    pub fn create_sandbox(&self) {
        self.create_sandbox_of(&SandboxConfig::default());
    }

    fn create_sandbox_of(&self, config: &SandboxConfig) {
        self.run("create the sandbox", self.sandbox.create(config)).expect("create the sandbox");
        self.shares_pids.set(config.shared_pid);
    }

    /// Boots any machine whose guest is ours. There is no sandbox yet.
    pub fn boot_machine(machine: &Machine) -> Self {
        Self::boot_machine_within(machine, PATIENCE)
    }

    /// The same, with so long for the whole test.
    pub fn boot_machine_within(machine: &Machine, deadline: Duration) -> Self {
        let directory =
            tempfile::Builder::new().prefix("hs").tempdir().expect("make a run directory");
        let runtime = Builder::new_current_thread().enable_all().build().expect("start a runtime");
        let deadline = Instant::now() + deadline;
        let run_dir = directory.path().to_owned();
        let boot = async {
            let vm = hyperstart_vmm::Vm::launch(machine, &run_dir)
                .await
                .unwrap_or_else(|err| panic!("{err}"));
            vm.ready(left(deadline)).await.unwrap_or_else(|err| panic!("{err}"));
            let ready_after = vm.uptime();
            let sandbox = Sandbox::connect(&transport(vm.address()))
                .await
                .unwrap_or_else(|err| panic!("{err}"));
            (vm, sandbox, ready_after)
        };
        let (machine, sandbox, ready_after) = within(&runtime, deadline, "boot", boot);
        Self {
            sandbox,
            machine,
            runtime,
            deadline,
            ready_after,
            ended: false,
            shares_pids: Cell::new(false),
            _directory: directory,
        }
    }

    /// Runs `future` to its end, or fails the test when its deadline has passed; `what` says what it waited for.
    pub fn run<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        within(&self.runtime, self.deadline, what, future)
    }

    /// Runs many at a time, and gives their results in the same order.
    pub fn run_together<T: Send + 'static>(
        &self,
        what: &str,
        futures: impl IntoIterator<Item: Future<Output = T> + Send + 'static>,
    ) -> Vec<T> {
        self.run(what, async {
            let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
            let mut results = Vec::with_capacity(tasks.len());
            for task in tasks {
                results.push(task.await.unwrap_or_else(|err| panic!("{what}: {err}")));
            }
            results
        })
    }

    pub(crate) fn shares_pids(&self) -> bool {
        self.shares_pids.get()
    }

    /// The host library's handle.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The VMM's handle.
    pub fn machine(&self) -> &hyperstart_vmm::Vm {
        &self.machine
    }

    /// How long it took from the start of QEMU until the guest said that it is ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// One more connection of the library's.
    pub fn connect(&self) -> Sandbox {
        let transport = transport(self.machine.address());
        self.run("connect", Sandbox::connect(&transport)).expect("connect once more")
    }

    /// A connection that carries any bytes at all.
    pub fn raw(&self) -> Raw<'_> {
        self.run("connect", Raw::connect(self)).expect("connect without a library")
    }

    /// Looks for what the test has left behind, powers the guest off, and sees QEMU end by itself. Containers must be
    /// gone by then. Fails on a kernel warning, a zombie, a process, or a mount left behind.
    pub fn shutdown(mut self) {
        self.assert_clean();
        self.power_off();
    }

    /// As [`Vm::shutdown`], of a guest that cannot be looked into: no container can be made in it.
    pub fn power_off(&mut self) {
        self.run("destroy the sandbox", self.sandbox.destroy()).expect("destroy the sandbox");
        let exit = self.run("power off", self.machine.shutdown(PATIENCE));
        assert!(matches!(exit, Exit::Status(0)), "qemu {exit}");
        self.ended = true;
    }

    /// Ends the VM without asking the guest.
    pub fn kill(mut self) {
        self.ended = true;
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("console of the guest:\n{}", self.machine.console().tail());
        } else {
            assert!(self.ended, "a test says how its VM ends: shutdown() or kill()");
        }
    }
}

/// What the library makes of the VMM's address.
pub fn transport(address: &AgentAddress) -> Transport {
    match address.clone() {
        AgentAddress::Vsock { cid, port } => Transport::Vsock { cid, port },
        AgentAddress::Hybrid { path, port } => Transport::Hybrid { path, port },
        AgentAddress::Unix { path } => Transport::Unix { path },
    }
}

fn within<T>(
    runtime: &Runtime,
    deadline: Instant,
    what: &str,
    future: impl Future<Output = T>,
) -> T {
    runtime
        .block_on(async { tokio::time::timeout(left(deadline), future).await })
        .unwrap_or_else(|_| panic!("{what}: the test's deadline has passed"))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
