//! One QEMU process with all that it says: console, stderr, exit. What explains a failure is gathered here.
//!
//! QEMU can fail before the guest runs (an option, memory, a device) or the guest can end it at once; both look like a
//! QMP connection that breaks. They are told apart by what QEMU says and how it ends: a guest ends it with success and
//! without a word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::{Instant, timeout};

use crate::boot::{self, Evidence};
use crate::console::{Console, create_private};
use crate::error::{Error, Result};
use crate::process::{Exit, Process};
use crate::qmp::Qmp;

/// How long QEMU may take until it answers on QMP.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long QEMU may take to end, or its console to be read, when it must.
pub(crate) const END_DEADLINE: Duration = Duration::from_secs(2);
/// How much of what QEMU says about a guest that it has stopped is quoted.
const STOP_LINES: usize = 3;

/// A QEMU process.
#[derive(Debug)]
pub(crate) struct Instance {
    process: Process,
    console: Console,
    stderr: PathBuf,
    memory_mib: u32,
    started: Instant,
}

impl Instance {
    /// Starts `command` with its logs in `run_dir`.
    pub(crate) fn start(mut command: Command, run_dir: &Path, memory_mib: u32) -> Result<Self> {
        let stderr = run_dir.join("qemu.log");
        let log = create_private(&stderr).map_err(Error::io(format!("make log {stderr:?}")))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let started = Instant::now();
        let process = Process::spawn("qemu", command)?;
        let stdout = process.take_stdout().ok_or(std::io::ErrorKind::BrokenPipe.into());
        let stdout = stdout.map_err(Error::io("read the console"))?;
        let console = Console::read(stdout, &run_dir.join("console.log"))?;
        Ok(Self { process, console, stderr, memory_mib, started })
    }

    /// QEMU's control connection, in command mode, once QEMU has built the whole machine.
    pub(crate) async fn connect(&self, control: &UnixListener) -> Result<Qmp> {
        let connected = async {
            let accepted = control.accept().await;
            let (stream, _) = accepted.map_err(Error::io("accept qemu's control connection"))?;
            let qmp = Qmp::open(stream).await?;
            qmp.query_status().await?; // answered by the main loop: the machine is built
            Ok(qmp)
        };
        let connected = tokio::select! {
            connected = timeout(START_DEADLINE, connected) => connected,
            _ = self.process.wait() => return Err(self.explain_start().await),
        };
        match connected {
            Ok(Ok(qmp)) => Ok(qmp),
            // A connection that breaks is QEMU ending: that explains more.
            Ok(Err(err)) => match timeout(END_DEADLINE, self.process.wait()).await {
                Ok(_) => Err(self.explain_start().await),
                Err(_) => Err(err),
            },
            Err(_) => {
                let detail =
                    format!("no answer within {} s; {}", START_DEADLINE.as_secs(), self.stderr());
                Err(Error::Qmp { command: "greeting".into(), detail })
            }
        }
    }

    /// Why the guest is not ready. After a panic QEMU ends by itself; after an exit the console has an end.
    pub(crate) async fn explain(&self, waited: Duration) -> Error {
        if self.console.transcript().panic().is_some() || self.process.exit().is_some() {
            self.drain_console().await;
        }
        boot::explain(Evidence {
            exit: self.process.exit(),
            memory_mib: self.memory_mib,
            waited,
            console: self.console.transcript(),
            stderr: self.stderr(),
        })
    }

    /// Why QEMU ended before it was connected.
    async fn explain_start(&self) -> Error {
        let stderr = self.stderr();
        match self.process.exit() {
            Some(exit) if !exit.is_success() || !stderr.trim().is_empty() => {
                boot::explain_refusal(exit, &stderr, self.memory_mib)
            }
            Some(_) | None => self.explain(self.started.elapsed()).await,
        }
    }

    /// Waits until QEMU has stopped the guest, and says so. QEMU dumps registers then: the first lines say why.
    pub(crate) async fn stopped(&self, qmp: &Qmp) -> Error {
        qmp.stopped().await;
        let status = match qmp.query_status().await {
            Ok(status) => status,
            Err(err) => err.to_string(),
        };
        let stderr = self.stderr().lines().take(STOP_LINES).collect::<Vec<_>>().join("\n");
        Error::VmStopped { status, stderr: boot::quote(&stderr) }
    }

    /// Waits until it has ended and its console was read to the end.
    pub(crate) async fn wait(&self) -> Exit {
        let exit = self.process.wait().await;
        self.drain_console().await;
        exit
    }

    /// The console's last bytes; not longer than a moment, in case somebody else holds it open.
    async fn drain_console(&self) {
        if timeout(END_DEADLINE, self.console.closed()).await.is_err() {
            log::debug!("console: still open");
        }
    }

    /// What QEMU said until now; nothing if even that cannot be read: the failure itself is being reported.
    fn stderr(&self) -> String {
        fs::read(&self.stderr)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
