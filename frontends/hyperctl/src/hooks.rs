//! The hooks of a bundle that run on the host (OCI "POSIX-platform Hooks"): programs of the host, run as who typed
//! hyperctl, with the bundle as their working directory and exactly the environment that the bundle says.
//!
//! ```text
//! sandbox ─ prestart ─ createRuntime ─ create [guest: createContainer] ─ start [guest: startContainer] ─ poststart
//!                                                                            end ─ delete ─ poststop
//! ```
//! The first two fail the run, and the container is never there; the last two are warnings. Each is told the container's
//! state in JSON on its standard input; its pid is the VM's, which is what the host has of the container's process.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hyperstart::spec::{HostHooks, take_host_hooks};
use oci_spec::runtime::{Hook, Spec};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

use crate::error::{Context as _, Error, Result};
use crate::output;

/// How much an error says of what a hook wrote to its standard error: the end.
const STDERR_MAX: usize = 1024;
/// How long what a failed hook has written may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What is still to be run when the container is gone, for an heir of its host.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Due {
    poststop: Vec<Hook>,
    bundle: PathBuf,
    state: Value,
}

/// The host's hooks of one container, and where it has got to.
pub struct Hooks {
    hooks: HostHooks,
    bundle: PathBuf,
    state: Value,
    /// The first of them was due, so the last are too.
    has_begun: Cell<bool>,
}

impl Hooks {
    /// Those of a bundle's config.json; none without a bundle.
    pub fn of(bundle: Option<(&Path, &Spec)>, id: &str) -> Self {
        let (hooks, bundle, version, annotations) = match bundle {
            Some((bundle, spec)) => (
                take_host_hooks(&mut spec.clone()),
                bundle.to_owned(),
                spec.version().clone(),
                spec.annotations().clone().unwrap_or_default(),
            ),
            None => Default::default(),
        };
        let state = json!({
            "ociVersion": version, "id": id, "bundle": bundle, "annotations": annotations,
        });
        Self { hooks, bundle, state, has_begun: Cell::new(false) }
    }

    /// Those that a host has left to its heir.
    pub fn left(due: Option<Due>) -> Self {
        let has_begun = Cell::new(due.is_some());
        match due {
            Some(Due { poststop, bundle, state }) => {
                let hooks = HostHooks { poststop, ..HostHooks::default() };
                Self { hooks, bundle, state, has_begun }
            }
            None => Self {
                hooks: HostHooks::default(),
                bundle: PathBuf::new(),
                state: Value::Null,
                has_begun,
            },
        }
    }

    /// What an heir must run, from the moment when the first is due; `None`: nothing.
    pub fn due(&self) -> Option<Due> {
        let poststop = self.hooks.poststop.clone();
        (!poststop.is_empty()).then(|| Due {
            poststop,
            bundle: self.bundle.clone(),
            state: self.state.clone(),
        })
    }

    /// Before the container is created.
    pub async fn before_create(&self, pid: u32) -> Result<()> {
        self.has_begun.set(true);
        for (kind, hooks) in
            [("prestart", &self.hooks.prestart), ("createRuntime", &self.hooks.create_runtime)]
        {
            for (at, hook) in hooks.iter().enumerate() {
                self.run(hook, "creating", Some(pid)).await.context(|| name(kind, at, hook))?;
            }
        }
        Ok(())
    }

    /// After its start.
    pub async fn after_start(&self, pid: u32) {
        self.run_all("poststart", &self.hooks.poststart, "running", Some(pid)).await;
    }

    /// After the container and its VM are gone.
    pub async fn after_delete(&self) {
        if self.has_begun.get() {
            self.run_all("poststop", &self.hooks.poststop, "stopped", None).await;
        }
    }

    /// Whatever comes of each.
    async fn run_all(&self, kind: &str, hooks: &[Hook], status: &str, pid: Option<u32>) {
        for (at, hook) in hooks.iter().enumerate() {
            let ran = self.run(hook, status, pid).await.context(|| name(kind, at, hook));
            if let Err(err) = ran {
                output::warn(format_args!("{}; the container goes on", err.message()));
            }
        }
    }

    async fn run(&self, hook: &Hook, status: &str, pid: Option<u32>) -> Result<()> {
        let mut state = self.state.clone();
        if let Some(members) = state.as_object_mut() {
            members.insert("status".into(), json!(status));
            members.extend(pid.map(|pid| ("pid".into(), json!(pid))));
        }
        let child = command(hook, &self.bundle)?.spawn().context(|| "start it".to_string())?;
        let mut group = Group(child);
        let limit = match hook.timeout() {
            None => None,
            Some(seconds) => Some(Duration::from_secs(match u64::try_from(seconds) {
                Ok(seconds @ 1..) => seconds,
                _ => return Err(Error::new(format!("timeout {seconds}: not more than 0"))),
            })),
        };
        let waited = group.finish(state.to_string());
        match limit {
            None => waited.await,
            Some(limit) => timeout(limit, waited).await.unwrap_or_else(|_| {
                Err(Error::new(format!("not done after {} s", limit.as_secs())))
            }),
        }
    }
}

fn name(kind: &str, at: usize, hook: &Hook) -> String {
    format!("hooks.{kind}[{at}] {:?}", hook.path())
}

fn command(hook: &Hook, bundle: &Path) -> Result<Command> {
    if !hook.path().is_absolute() {
        return Err(Error::new("its path is not absolute"));
    }
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env_clear();
    for variable in hook.env().iter().flatten() {
        match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() => command.env(name, value),
            _ => return Err(Error::new(format!("env {variable:?}: not NAME=value"))),
        };
    }
    command
        .current_dir(bundle)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// A hook's process, which leads a group; if it is dropped before its end, all of the group is killed.
struct Group(Child);

impl Group {
    /// Tells it the state, and waits for its end, which must be a good one.
    async fn finish(&mut self, state: String) -> Result<()> {
        let (stdin, mut stderr) = (self.0.stdin.take(), self.0.stderr.take());
        let mut said = VecDeque::new();
        let status = {
            // Whoever the hook has left behind may hold its streams; that is not waited for.
            let aside = async {
                tokio::join!(tell(stdin, &state), keep_tail(stderr.as_mut(), &mut said));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = aside => return Err(Error::new("wait for it: no end")),
                status = self.0.wait() => status.context(|| "wait for it".to_string())?,
            }
        };
        if status.success() {
            return Ok(());
        }
        // What it said last may still be to be read.
        drop(timeout(LAST_WORDS, keep_tail(stderr.as_mut(), &mut said)).await);
        let said: Vec<u8> = said.into();
        let said = String::from_utf8_lossy(&said);
        Err(Error::new(match said.trim() {
            "" => status.to_string(),
            text => format!("{status}: {text}"),
        }))
    }
}

/// A hook need not read what it is told.
async fn tell(stdin: Option<ChildStdin>, state: &str) {
    if let Some(mut stdin) = stdin {
        stdin.write_all(state.as_bytes()).await.unwrap_or_default();
    }
}

async fn keep_tail(from: Option<&mut ChildStderr>, tail: &mut VecDeque<u8>) {
    let Some(from) = from else { return };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        tail.extend(buffer.iter().take(length));
        tail.drain(..tail.len().saturating_sub(STDERR_MAX));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return }; // waited for
        if let Err(errno) = kill_process_group(pid, Signal::KILL) {
            log::debug!("kill hook {pid:?}: {errno}"); // it has just ended
        }
    }
}
