//! One QEMU process with all that it says: console, stderr, exit. What explains a failure is gathered here.
//!
//! QEMU can fail before the guest runs (an option, memory, a device) or the guest can end it at once; both look like a
//! QMP connection that breaks. They are told apart by what QEMU says and how it ends: a guest ends it with success and
//! without a word.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::boot::{self, Evidence};
use crate::console::{Console, Transcript, create_private};
use crate::error::{Error, Result};
use crate::process::{Exit, Process};
use crate::qmp::Qmp;

/// How long QEMU may take until it answers on QMP.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long QEMU may take to end, or its console to be read, when it must.
pub(crate) const END_DEADLINE: Duration = Duration::from_secs(2);
/// How long an heir waits before it asks again to be let in.
const AGAIN: Duration = Duration::from_millis(50);
/// How much of what QEMU says about a guest that it has stopped is quoted.
const STOP_LINES: usize = 3;

/// In the run directory: what QEMU says, and what its guest does.
const STDERR: &str = "qemu.log";
const CONSOLE: &str = "console.log";

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
    /// Starts `command` with its logs in `run_dir`. Its console is the pipe of that name, if one is given.
    pub(crate) fn start(
        mut command: Command,
        run_dir: &Path,
        memory_mib: u32,
        pipe: Option<&Path>,
    ) -> Result<Self> {
        let stderr = run_dir.join(STDERR);
        let log = create_private(&stderr).map_err(Error::io(format!("make log {stderr:?}")))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let console_log = run_dir.join(CONSOLE);
        let named = match pipe {
            None => None,
            Some(pipe) => {
                let (reader, writer) =
                    make_pipe(pipe).map_err(Error::io(format!("make pipe {pipe:?}")))?;
                command.stdout(writer);
                Some(reader)
            }
        };
        let started = Instant::now();
        let process = Process::spawn("qemu", command)?;
        let console = match named {
            Some(reader) => Console::read_named(reader, &console_log)?,
            None => {
                let stdout = process.take_stdout().ok_or(io::ErrorKind::BrokenPipe.into());
                let stdout = stdout.map_err(Error::io("read the console"))?;
                Console::read(stdout, &console_log)?
            }
        };
        Ok(Self { process, console, stderr, memory_mib, started })
    }

    /// Takes over one that another owner has started.
    pub(crate) fn adopt(
        process: Process,
        run_dir: &Path,
        memory_mib: u32,
        pipe: &Path,
    ) -> Result<Self> {
        let console = Console::resume(pipe, &run_dir.join(CONSOLE))?;
        let stderr = run_dir.join(STDERR);
        Ok(Self { process, console, stderr, memory_mib, started: Instant::now() })
    }

    /// The control connection of an heir, and what `learn` asks on it. Tried for as long as QEMU lives: it has one client
    /// at a time and few that wait, so it refuses an heir while it still serves those that were killed; and it may be
    /// given no CPU for long.
    pub(crate) async fn reconnect<T>(
        &self,
        monitor: &Path,
        learn: impl AsyncFn(&Qmp) -> Result<T>,
    ) -> Result<(Qmp, T)> {
        let connected = async {
            loop {
                let connected = async {
                    let qmp = open_monitor(monitor).await?;
                    let learnt = learn(&qmp).await?;
                    Ok::<_, Error>((qmp, learnt))
                };
                match connected.await {
                    Ok(connected) => return connected,
                    Err(err) => log::debug!("vm: {err}"),
                }
                sleep(AGAIN).await;
            }
        };
        tokio::select! {
            connected = connected => Ok(connected),
            _ = self.process.wait() => Err(self.explain(self.started.elapsed()).await),
        }
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

    pub(crate) fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.process.exit().is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What the logs say of a QEMU that ended while nobody watched it.
pub(crate) fn explain_ended(run_dir: &Path, memory_mib: u32) -> Error {
    let mut console = Transcript::default();
    console.push(&fs::read(run_dir.join(CONSOLE)).unwrap_or_default()); // what is there must do
    let stderr = fs::read(run_dir.join(STDERR)).unwrap_or_default();
    boot::explain(Evidence {
        exit: Some(Exit::Unknown),
        memory_mib,
        waited: Duration::ZERO,
        console,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

async fn open_monitor(monitor: &Path) -> Result<Qmp> {
    let stream = UnixStream::connect(monitor).await;
    let qmp = Qmp::open(stream.map_err(Error::io(format!("connect to {monitor:?}")))?).await?;
    qmp.learn_status().await?;
    Ok(qmp)
}

/// A pipe with a name. Its writing end can be read too, so that it never is without a reader: what is written while
/// nobody reads waits.
fn make_pipe(path: &Path) -> io::Result<(pipe::Receiver, File)> {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    let writer = File::options().read(true).write(true).open(path)?;
    Ok((pipe::OpenOptions::new().open_receiver(path)?, writer))
}
