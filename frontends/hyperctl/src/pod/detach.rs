//! Every pod has a host: a hyperctl of its own, in a session of its own, which lives as long as the pod.
//!
//! ```text
//! hyperctl run                                 hyperctl host
//!   arguments as JSON ───────stdin──────────>  plan, boot, start
//!   is attached, prints the   <──stdout──      {"started": id} or {"ended": why not}, once; then stdout is closed
//!   id, or the error
//! ```
//! The arguments go over the pipe and not over the command line, where everybody on this machine could read the
//! environment variables among them for as long as the pod lives. The program is started anew rather than forked: a
//! fork of a process that has a runtime is a process in an unknown state. Whoever started it may be killed: the pod
//! goes on, and `ps` shows it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::LocalSet;

use crate::commands::run;
use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::control::{Answer, Ended};
use crate::pod::state::State;
use crate::pod::store::{Pod, Store};
use crate::pod::{heir, host};
use crate::progress;
use crate::signals::Signals;
use crate::terminal::Size;

/// What a host is to do.
#[derive(Debug, Deserialize, Serialize)]
pub struct Request {
    pub args: run::Args,
    /// Who will be in front: the name of a reader; `None`: nobody.
    pub reader: Option<String>,
    /// Of the terminal in front.
    pub size: Option<Size>,
}

/// Starts a host and waits until its container runs.
pub async fn spawn(request: &Request, store: &Store, signals: &mut Signals) -> Result<Pod> {
    let operation = || "start a host".to_string();
    let mut child = start_host().context(operation)?;
    hand_over(&mut child, request).context(operation)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let report = progress::during("starting the VM", hear(&mut child));
    tokio::pin!(report);
    let report = loop {
        tokio::select! {
            report = &mut report => break report.context(operation)?,
            // The host ends its boot in order and says so: that is what we then report.
            signal = signals.next_ending() => forward(signal, pid)?,
        }
    };
    match report {
        Answer::Started { id } => store.find(&id),
        Answer::Ended(ended) => {
            ended.say();
            Err(ended.refusal())
        }
    }
}

fn start_host() -> io::Result<Child> {
    // Not by our path: that may hold another build by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hyperctl").arg("host");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn hand_over(child: &mut Child, request: &Request) -> Result<()> {
    let Some(mut stdin) = child.stdin.take() else { return Err(Error::new("it has no stdin")) };
    Ok(stdin.write_all(&serde_json::to_vec(request)?)?)
}

/// The one thing that the host tells whoever started it.
async fn hear(child: &mut Child) -> Result<Answer> {
    let Some(stdout) = child.stdout.take() else { return Err(Error::new("it has no stdout")) };
    let mut stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).await?;
    if text.is_empty() {
        let status = child.wait()?; // it closed its only pipe without a word: it is ending
        return Err(Error::new(format!("it ended before it started the pod ({status})")));
    }
    Ok(serde_json::from_slice(&text)?)
}

/// The host is our child and not waited for while we hear from it, so the pid is its own.
fn forward(signal: u32, pid: Option<Pid>) -> Result<()> {
    let signal = i32::try_from(signal).ok().and_then(Signal::from_named_raw);
    let (Some(pid), Some(signal)) = (pid, signal) else {
        return Err(Error::new("end the host: it cannot be signalled"));
    };
    rustix::process::kill_process(pid, signal).context(|| "end the host".into())
}

/// The host's whole life. Its exit code is read by nobody; the report is what counts.
pub async fn serve() -> Result<u8> {
    rustix::process::setsid().context(|| "leave the session".into())?;
    let mut report = take_report_pipe().context(|| "take over the report pipe".into())?;
    let mut signals = Signals::listen()?;
    let served = serve_order(&mut report, &mut signals);
    let outcome = LocalSet::new().run_until(served).await;
    match (outcome, report.take()) {
        (outcome @ Err(_), Some(pipe)) => {
            let ended = Ended::of(&outcome, output::said());
            let code = ended.code;
            tell(pipe, &Answer::Ended(ended))?;
            Ok(code)
        }
        (outcome, _) => Ok(outcome.unwrap_or_else(|err| err.code())),
    }
}

async fn serve_order(report: &mut Option<File>, signals: &mut Signals) -> Result<u8> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).context(|| "read the order".into())?;
    let request: Request = serde_json::from_slice(&text).context(|| "read the order".into())?;
    let order = request.args.order(request.reader, request.size)?;
    // The directory that we were called from must be free to be removed or unmounted.
    std::env::set_current_dir("/").context(|| "leave the directory".into())?;
    let started = |state: &State| match report.take() {
        Some(pipe) => tell(pipe, &Answer::Started { id: state.id.clone() }),
        None => Ok(()),
    };
    host::host(order, &Store::open()?, signals, started).await
}

/// The life of an heir, which a guardian has started. A good end is an end in order: the guardian goes too.
pub async fn adopt(dir: &Path) -> Result<u8> {
    if let Err(err) = rustix::process::setsid() {
        log::debug!("leave the session: {err}"); // the leader of one is in none but its own
    }
    if !dir.exists() {
        return Ok(0);
    }
    let mut signals = Signals::listen()?;
    let store = Store::open()?;
    let adopted = heir::adopt(&store, dir, &mut signals);
    LocalSet::new().run_until(adopted).await.map(|()| 0)
}

/// Keeps the pipe to ourselves: what we start must not hold it open, and nothing else may be written to it.
fn take_report_pipe() -> io::Result<Option<File>> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(Some(File::from(pipe)))
}

/// A parent that was killed does not hear it, and the pod runs all the same: `ps` shows it.
fn tell(mut pipe: File, report: &Answer) -> Result<()> {
    match pipe.write_all(&serde_json::to_vec(report)?) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => Err(err.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_pipe() {
        let said = "hyperctl: hooks.poststop[0]: exit status 5\n".to_string();
        let failed = Err(Error::new("m").hint("h").with_code(127));
        let text = serde_json::to_vec(&Answer::Ended(Ended::of(&failed, said.clone()))).unwrap();
        let Answer::Ended(ended) = serde_json::from_slice(&text).unwrap() else {
            panic!("{text:?}")
        };
        assert_eq!(ended.said, said);
        let err = ended.refusal();
        assert_eq!((err.message(), err.hint_text(), err.code()), ("m", Some("h"), 127));
    }
}
