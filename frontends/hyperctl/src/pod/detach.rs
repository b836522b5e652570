//! `run -d`: a hyperctl of its own hosts the pod in the background.
//!
//! ```text
//! hyperctl run -d                              hyperctl host (a session of its own)
//!   arguments as JSON ───────stdin──────────>  plan, boot, start
//!   prints the id, or the error  <──stdout──   {"started": id} or {"failed": ...}, once; then stdout is closed
//! ```
//! The arguments go over the pipe and not over the command line, where everybody on this machine could read the
//! environment variables among them for as long as the pod lives. The program is started anew rather than forked: a
//! fork of a process that has a runtime is a process in an unknown state.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::commands::run;
use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::state::State;
use crate::pod::store::Store;
use crate::progress;
use crate::signals::Signals;

/// The one thing that the host tells whoever started it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Started { id: String },
    Failed { message: String, hint: Option<String>, code: u8 },
}

/// Starts a host and waits until its container runs. Prints the pod's id.
pub async fn spawn(args: &run::Args) -> Result<u8> {
    let operation = || "start a host".to_string();
    let mut signals = Signals::listen()?;
    let mut child = start_host().context(operation)?;
    hand_over(&mut child, args).context(operation)?;
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
        Report::Started { id } => output::print(format!("{id}\n")).map(|()| 0),
        Report::Failed { message, hint, code } => {
            let err = Error::new(message).with_code(code);
            Err(match hint {
                Some(hint) => err.hint(hint),
                None => err,
            })
        }
    }
}

fn start_host() -> io::Result<Child> {
    // Not by our path: that may hold another build by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hyperctl").arg("host");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn hand_over(child: &mut Child, args: &run::Args) -> Result<()> {
    let Some(mut stdin) = child.stdin.take() else { return Err(Error::new("it has no stdin")) };
    Ok(stdin.write_all(&serde_json::to_vec(args)?)?)
}

async fn hear(child: &mut Child) -> Result<Report> {
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
    let outcome = serve_order(&mut report, &mut signals).await;
    if let Err(err) = &outcome {
        output::say(err); // into host.log, once there is one
    }
    match (outcome, report.take()) {
        (Err(err), Some(pipe)) => {
            let code = err.code();
            let (message, hint, _) = err.into_parts();
            tell(pipe, &Report::Failed { message, hint, code })?;
            Ok(code)
        }
        (outcome, _) => Ok(outcome.unwrap_or_else(|err| err.code())),
    }
}

async fn serve_order(report: &mut Option<File>, signals: &mut Signals) -> Result<u8> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).context(|| "read the order".into())?;
    let args: run::Args = serde_json::from_slice(&text).context(|| "read the order".into())?;
    let work = args.work()?;
    // The directory that we were called from must be free to be removed or unmounted.
    std::env::set_current_dir("/").context(|| "leave the directory".into())?;
    let started = |state: &State| match report.take() {
        Some(pipe) => tell(pipe, &Report::Started { id: state.id.clone() }),
        None => Ok(()),
    };
    work.carry_out(&Store::open()?, signals, started).await
}

/// Keeps the pipe to ourselves: what we start must not hold it open, and nothing else may be written to it.
fn take_report_pipe() -> io::Result<Option<File>> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(Some(File::from(pipe)))
}

/// A parent that was killed does not hear it, and the pod runs all the same: `ps` shows it.
fn tell(mut pipe: File, report: &Report) -> Result<()> {
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
        let failed = Report::Failed { message: "m".into(), hint: Some("h".into()), code: 127 };
        let text = serde_json::to_vec(&failed).unwrap();
        let Report::Failed { message, hint, code } = serde_json::from_slice(&text).unwrap() else {
            panic!("{text:?}")
        };
        assert_eq!((message.as_str(), hint.as_deref(), code), ("m", Some("h"), 127));
    }
}
