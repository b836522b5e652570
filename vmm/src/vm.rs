//! A running VM: launched, waited for, ended; and everything of it removed.
//!
//! ```text
//! launch ──► QEMU answers on QMP ──► ready ──► (in use) ──► shutdown | kill | drop
//!    └ error: typed, nothing left       └ error: what the console, QEMU and the daemon say of it
//! ```
//!
//! In the run directory, which is the caller's, stay the logs: `console.log` and `qemu.log`. Sockets live in its
//! subdirectory `vm`, which goes away with the VM even if the owner is killed (see `rundir`). A VM that outlives its
//! owner has there what an heir needs (see `kept`).

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use hyperstart_protocol::{AGENT_PORT, READY_PORT};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::accel::Accel;
use crate::error::{Error, Result};
use crate::instance::{END_DEADLINE, Instance};
use crate::kept::{self, Kept};
use crate::machine::{Disk, Machine, ShareKind};
use crate::mux::Mux;
use crate::plan::{Plan, Transport};
use crate::plug::{Plugged, Plugs};
use crate::process::Exit;
use crate::program::{loose, tied};
use crate::qemu::{self, Channel, DiskDevice, Wiring};
use crate::qmp::Qmp;
use crate::rundir::{RunDir, make_private, make_private_directories};
use crate::serial::SerialPort;
use crate::virtiofs;
use crate::vsock::{self, Daemon, ReadyPort};

/// In the run directory, and gone with the VM.
pub(crate) const DIRECTORY: &str = "vm";
/// How often a context id is drawn: one in 2^31 is taken for each VM of the host.
const CID_DRAWS: u32 = 5;

/// How to reach the agent: the three forms that the host library's transport has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentAddress {
    /// AF_VSOCK.
    Vsock {
        /// The guest's context id.
        cid: u32,
        /// The agent's port.
        port: u32,
    },
    /// A unix socket on which one says `CONNECT <port>` first.
    Hybrid {
        /// The socket.
        path: PathBuf,
        /// The agent's port.
        port: u32,
    },
    /// A unix socket, served by this process: for as long as the [`Vm`] lives.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

/// A VM. Dropping it kills it and removes what it had on disk, but the logs.
#[derive(Debug)]
pub struct Vm {
    // In the order in which they are dropped: QEMU before its daemon, the directory last.
    qemu: Instance,
    qmp: Qmp,
    readiness: Mutex<Readiness>,
    /// Serves a serial port, from READY on.
    mux: OnceLock<Mux>,
    daemon: Option<Daemon>,
    share_daemons: Vec<virtiofs::Daemon>,
    disks: Vec<DiskDevice>,
    plugs: Plugs,
    address: AgentAddress,
    accel: Accel,
    _dir: RunDir,
}

/// What a [`Vm`] is put together from, by its first owner or by an heir.
pub(crate) struct Parts {
    pub(crate) qemu: Instance,
    pub(crate) qmp: Qmp,
    pub(crate) readiness: Readiness,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) share_daemons: Vec<virtiofs::Daemon>,
    pub(crate) disks: Vec<DiskDevice>,
    pub(crate) plugs: Plugs,
    pub(crate) address: AgentAddress,
    pub(crate) accel: Accel,
    pub(crate) dir: RunDir,
}

/// Whether the guest has said READY, and where it will.
#[derive(Debug)]
pub(crate) enum Readiness {
    Port(ReadyPort),
    Serial(SerialPort),
    Ready,
}

impl Vm {
    /// Starts the VM, with its logs in `run_dir` (made if missing, mode 0700) and its sockets below. The guest boots
    /// when this returns; wait for it by [`Vm::ready`].
    ///
    /// # Errors
    /// [`Error::Machine`], [`Error::GuestFile`], [`Error::Attachment`], [`Error::QemuMissing`], [`Error::Accel`],
    /// [`Error::Transport`] before anything is started; [`Error::Daemon`], [`Error::QemuRefused`],
    /// [`Error::HostMemory`], [`Error::GuestMemory`], [`Error::Qmp`] or [`Error::Io`] from the start itself. Nothing is left then but logs.
    pub async fn launch(machine: &Machine, run_dir: &Path) -> Result<Self> {
        machine.check()?;
        let mut plan = Plan::make(machine)?;
        make_private_directories(run_dir)?;
        make_private(run_dir)?;
        let mut draws = 1;
        loop {
            match plan.launch(machine, run_dir).await {
                Err(Error::QemuRefused { stderr, .. })
                    if vsock::cid_was_taken(&stderr) && draws < CID_DRAWS =>
                {
                    log::info!("vsock: the context id was taken: drawing another");
                    draws += 1;
                }
                Err(Error::QemuRefused { stderr, .. })
                    if plan.sandbox && qemu::cannot_confine_itself(&stderr) =>
                {
                    log::warn!("qemu: it cannot confine itself by seccomp here: {stderr}");
                    plan.sandbox = false;
                }
                result => return result,
            }
        }
    }

    pub(crate) fn of(parts: Parts) -> Self {
        let Parts {
            qemu,
            qmp,
            readiness,
            daemon,
            share_daemons,
            disks,
            plugs,
            address,
            accel,
            dir,
        } = parts;
        let (readiness, mux) = (Mutex::new(readiness), OnceLock::new());
        Self {
            qemu,
            qmp,
            readiness,
            mux,
            daemon,
            share_daemons,
            disks,
            plugs,
            address,
            accel,
            _dir: dir,
        }
    }

    /// Waits until the guest says that it is ready, at most `deadline` from now. Returns at once when it has said so.
    ///
    /// # Errors
    /// [`Error::GuestPanicked`], [`Error::GuestMemory`], [`Error::VmEnded`], [`Error::VmStopped`] or
    /// [`Error::NotReady`], with the evidence; [`Error::Daemon`] if the vsock daemon ended; [`Error::NotOurGuest`] if
    /// something else than our guest speaks.
    pub async fn ready(&self, deadline: Duration) -> Result<()> {
        let begun = Instant::now();
        let said = tokio::select! {
            said = timeout(deadline, self.hear_ready()) => said.ok(),
            _ = self.qemu.wait() => None,
            () = self.qemu.console().panicked() => None,
            err = self.daemon_ended() => return Err(err),
            err = self.qemu.stopped(&self.qmp) => return Err(err),
        };
        match said {
            Some(Err(err @ Error::Io { .. })) => {
                match timeout(END_DEADLINE, self.qemu.wait()).await {
                    // The line breaks when QEMU ends, and its exit explains more.
                    Ok(_) => Err(self.qemu.explain(begun.elapsed()).await),
                    Err(_) => Err(err),
                }
            }
            Some(said) => said,
            None => Err(self.qemu.explain(begun.elapsed()).await),
        }
    }

    /// Waits for READY. After it nobody else may say it, and a serial port is served.
    async fn hear_ready(&self) -> Result<()> {
        let mut readiness = self.readiness.lock().await;
        readiness.wait().await?;
        let mux = match std::mem::replace(&mut *readiness, Readiness::Ready) {
            Readiness::Serial(port) => port.serve(),
            Readiness::Port(_) | Readiness::Ready => None,
        };
        if let Some(mux) = mux {
            self.mux.get_or_init(|| mux); // unset until here: only one READY is taken
        }
        Ok(())
    }

    /// How to reach the agent, once the guest is ready.
    pub fn address(&self) -> &AgentAddress {
        &self.address
    }

    /// Where the machine's disk of this index is in the guest.
    pub fn disk_device(&self, index: usize) -> Option<&DiskDevice> {
        self.disks.get(index)
    }

    /// Adds a disk while the VM runs, in one of the machine's [`slots`](Machine::slots). The guest sees it a moment later.
    ///
    /// # Errors
    /// [`Error::NoSlot`]: all are in use. [`Error::Attachment`]: the file cannot be used. [`Error::Qmp`]: QEMU refuses.
    pub async fn attach(&self, disk: &Disk) -> Result<Plugged> {
        self.plugs.attach(&self.qmp, disk).await
    }

    /// Takes a disk away that [`Vm::attach`] has added; returns when the guest has let it go, which takes some seconds
    /// (a guest waits for a second thought) or, without its help, for ever.
    ///
    /// # Errors
    /// [`Error::Qmp`]: QEMU refuses, or has ended.
    pub async fn detach(&self, plugged: Plugged) -> Result<()> {
        self.plugs.detach(&self.qmp, plugged).await
    }

    /// The control channel.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// What runs guest code.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// How long it has been since QEMU was started.
    pub fn uptime(&self) -> Duration {
        self.qemu.uptime()
    }

    /// The file that has the console's bytes.
    pub fn console_log(&self) -> &Path {
        self.qemu.console().log()
    }

    /// The console's last lines, and what they say about the boot.
    pub fn console(&self) -> crate::console::Transcript {
        self.qemu.console().transcript()
    }

    /// Waits until the VM has ended, by itself or not, and its console was read to the end.
    pub async fn wait(&self) -> Exit {
        self.qemu.wait().await
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.qemu.has_ended()
    }

    /// Waits until the guest has powered off (it was asked to, by `DestroySandbox`), at most `deadline`; then makes
    /// QEMU quit, and kills it if it does not.
    pub async fn shutdown(&self, deadline: Duration) -> Exit {
        if let Ok(exit) = timeout(deadline, self.wait()).await {
            return exit;
        }
        log::warn!(
            "vm: the guest has not powered off after {:.1} s: quitting qemu",
            deadline.as_secs_f64()
        );
        if let Err(err) = self.qmp.quit().await {
            log::debug!("vm: {err}"); // the kill below does not depend on it
        }
        if let Ok(exit) = timeout(END_DEADLINE, self.wait()).await {
            return exit;
        }
        self.kill();
        self.wait().await
    }

    /// Kills QEMU. The guest is not asked.
    pub fn kill(&self) {
        self.qemu.kill();
    }

    /// Waits until the agent cannot be reached any more though QEMU may still run, and says why. Only after
    /// [`Vm::ready`]; [`Vm::wait`] waits for the end of QEMU itself.
    pub async fn broken(&self) -> Error {
        tokio::select! {
            () = self.qemu.console().panicked() => self.qemu.explain(self.qemu.uptime()).await,
            reason = self.line_ended() => Error::Transport { transport: "serial", reason },
            err = self.daemon_ended() => err,
            err = self.qemu.stopped(&self.qmp) => err,
        }
    }

    async fn line_ended(&self) -> String {
        match self.mux.get() {
            Some(mux) => format!("the line has ended: {}", mux.ended().await),
            None => std::future::pending().await,
        }
    }

    async fn daemon_ended(&self) -> Error {
        let vsock = async {
            match &self.daemon {
                Some(daemon) => daemon.ended().await,
                None => std::future::pending().await,
            }
        };
        let mut endings: Vec<_> =
            self.share_daemons.iter().map(|daemon| Box::pin(daemon.ended())).collect();
        let shares = poll_fn(|context| {
            for ending in &mut endings {
                if let Poll::Ready(err) = ending.as_mut().poll(context) {
                    return Poll::Ready(err);
                }
            }
            Poll::Pending
        });
        tokio::select! {
            err = vsock => err,
            err = shares => err,
        }
    }
}

impl Readiness {
    async fn wait(&mut self) -> Result<()> {
        match self {
            Self::Port(port) => port.ready().await,
            Self::Serial(port) => port.ready().await,
            Self::Ready => Ok(()),
        }
    }
}

impl Plan {
    /// One attempt to start what was planned.
    async fn launch(&self, machine: &Machine, run_dir: &Path) -> Result<Vm> {
        let outlives = machine.outlives_owner;
        let make_dir = if outlives { RunDir::unguarded } else { RunDir::create };
        let dir = make_dir(run_dir.join(DIRECTORY))?;
        let path = |name: &str| dir.path().join(name);
        let (channel, readiness, address, daemon) = self.wire(dir.path(), outlives).await?;
        let wiring = Wiring {
            accel: self.accel,
            needs_rng: self.needs_rng,
            sandbox: self.sandbox,
            clocks: self.clocks,
            qmp: path("qmp.sock"),
            monitor: outlives.then(|| path(kept::MONITOR)),
            channel,
            rootfs_bytes: self.rootfs_bytes,
            verity: self.verity.clone(),
            disks: self.disks.clone(),
            privileged: rustix::process::geteuid().is_root(),
            share_sockets: dir.path().to_path_buf(),
        };
        let (kept_daemons, share_daemons) = self.serve_shares(machine, dir.path()).await?;
        let control = vsock::bind(&wiring.qmp)?;
        let mut command = if outlives { loose(&self.qemu, dir.path()) } else { tied(&self.qemu) };
        command.args(qemu::arguments(machine, &wiring));
        log::debug!("vm: start {command:?}");
        let pipe = outlives.then(|| path(kept::CONSOLE_PIPE));
        let qemu = Instance::start(command, run_dir, machine.memory_mib, pipe.as_deref())?;
        let qmp = qemu.connect(&control).await?;
        let (disks, slots) = (qemu::disk_devices(machine, &wiring), qemu::slots(machine, &wiring));
        if outlives {
            for socket in wiring.monitor.iter().chain(wiring.channel.listener()) {
                make_private(socket)?; // QEMU has made it, with our umask
            }
            Kept {
                qemu: qemu.pid(),
                daemon: daemon.as_ref().map(Daemon::pid),
                share_daemons: kept_daemons,
                memory_mib: qemu.memory_mib(),
                accel: wiring.accel,
                address: address.clone(),
                disks: disks.clone(),
                slots: slots.clone(),
            }
            .save(dir.path())?;
        }
        let (plugs, accel) = (Plugs::new(slots), wiring.accel);
        Ok(Vm::of(Parts {
            qemu,
            qmp,
            readiness,
            daemon,
            share_daemons,
            disks,
            plugs,
            address,
            accel,
            dir,
        }))
    }

    /// Starts the daemons of those shares that have one; their pids by the shares' indices.
    async fn serve_shares(
        &self,
        machine: &Machine,
        dir: &Path,
    ) -> Result<(Vec<(usize, u32)>, Vec<virtiofs::Daemon>)> {
        let (mut pids, mut daemons) = (Vec::new(), Vec::new());
        let Some(program) = &self.virtiofsd else { return Ok((pids, daemons)) };
        for (index, share) in machine.shares.iter().enumerate() {
            if share.kind == ShareKind::VirtioFs {
                let outlives = machine.outlives_owner;
                let daemon = virtiofs::Daemon::start(program, dir, index, share, outlives).await?;
                pids.push((index, daemon.pid()));
                daemons.push(daemon);
            }
        }
        Ok((pids, daemons))
    }

    /// Makes the host's side of the transport.
    async fn wire(
        &self,
        dir: &Path,
        outlives: bool,
    ) -> Result<(Channel, Readiness, AgentAddress, Option<Daemon>)> {
        match &self.transport {
            Transport::VhostVsock => {
                let cid = vsock::random_cid()?;
                let (port, ready_port) = ReadyPort::on_vsock(cid)?;
                let address = AgentAddress::Vsock { cid, port: AGENT_PORT };
                Ok((Channel::VhostVsock { cid, ready_port }, Readiness::Port(port), address, None))
            }
            Transport::VhostUserVsock { daemon } => {
                let daemon = Daemon::start(daemon, dir, outlives).await?;
                let port = ReadyPort::behind_daemon(&daemon.uds)?;
                let channel = Channel::VhostUserVsock {
                    socket: daemon.vhost.clone(),
                    ready_port: READY_PORT,
                };
                let address = AgentAddress::Hybrid { path: daemon.uds.clone(), port: AGENT_PORT };
                Ok((channel, Readiness::Port(port), address, Some(daemon)))
            }
            Transport::Serial => {
                let socket = dir.join(kept::SERIAL);
                let agent = dir.join("agent.sock");
                let port = match outlives {
                    true => SerialPort::connect(&socket, &agent, false)?,
                    false => SerialPort::listen(&socket, &agent)?,
                };
                let channel = Channel::Serial { socket, listens: outlives };
                let address = AgentAddress::Unix { path: agent };
                Ok((channel, Readiness::Serial(port), address, None))
            }
        }
    }
}
