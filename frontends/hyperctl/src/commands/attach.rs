//! `hyperctl attach`: in front of a process that runs already, whoever has started it.
//!
//! Its output is read from the guest by offset, from here on, and held for us while we are attached; of an exec all is
//! shown that nobody has taken yet. Killed, we leave the process as it is.

use std::io::{self, IsTerminal as _};

use hyperstart::{ExecId, ProcessStatus};

use crate::commands::exec::{EXEC, in_front};
use crate::detach_keys::{self, Keys};
use crate::error::{Context as _, Error, Result};
use crate::pod::client;
use crate::pod::front::Front;
use crate::pod::link::Link;
use crate::pod::name::random_hex;
use crate::pod::store::{Pod, Store};
use crate::session::{Offsets, Session};
use crate::signals::Signals;

const NOTES: &str = "\
Standard input goes to the process if that was started with -i or -t; its end is the process's end of input, and one
hyperctl at a time gives it. With a terminal the detach keys leave the process to itself; a signal goes to the process,
and a hang-up does not. What was printed before is in `hyperctl logs`. Exits with the process's exit code.";

/// Connect to the input and output of a container, or of an exec, that runs
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Connect standard input, or fail if the process reads none
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Do not connect standard input
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave the process to itself
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = detach_keys::parse)]
    detach_keys: Keys,
    /// An exec of the container, by the id that `exec -d` printed
    #[arg(long, value_name = "ID")]
    exec: Option<String>,
    /// A further container of the pod, by its name [default: the first one]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Name, id, or beginning of an id
    pod: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let pod = Store::open()?.find_container(&args.pod, args.container.as_deref())?;
    let operation = || format!("attach to pod {:?}", pod.state.name);
    let exec = args.exec.as_deref().map(ExecId::new).transpose();
    let exec = exec.map_err(|err| client::guest_error(&err)).context(operation)?;
    let status = status(&pod, exec.as_ref()).await.context(operation)?;
    let interactive = args.reads_input(&status).context(operation)?;
    let mut signals = Signals::listen()?;
    let attached = match exec {
        None => args.attach(&pod, &status, interactive, &mut signals).await,
        Some(exec) => args.attach_exec(&pod, exec, &status, interactive, &mut signals).await,
    };
    attached.context(operation)
}

/// How far the process is.
async fn status(pod: &Pod, exec: Option<&ExecId>) -> Result<ProcessStatus> {
    let (_sandbox, container) = client::connect(pod).await?;
    let mut status = container.status().await.map_err(|err| client::guest_error(&err))?;
    match exec {
        None => Ok(status.init),
        Some(id) => status.execs.remove(id).ok_or_else(|| {
            Error::new(format!("it has no exec {id}")).hint(
                "an exec that has ended is forgotten with its last output; `exec -d` prints an id",
            )
        }),
    }
}

impl Args {
    /// Whether standard input goes to the process.
    fn reads_input(&self, status: &ProcessStatus) -> Result<bool> {
        if self.no_stdin || (status.input_closed && !self.interactive) {
            return Ok(false);
        }
        if status.input_closed {
            return Err(Error::new("the process's standard input is closed")
                .hint("a process keeps it open that is started with -i"));
        }
        if !status.terminal || io::stdin().is_terminal() {
            return Ok(true);
        }
        match self.interactive {
            true => Err(Error::new("standard input is not a terminal, and the process's is")
                .hint("leave out -i to see its output alone")),
            false => Ok(false),
        }
    }

    async fn attach(
        &self,
        pod: &Pod,
        status: &ProcessStatus,
        interactive: bool,
        signals: &mut Signals,
    ) -> Result<u8> {
        let reader = format!("attach-{}", random_hex::<8>()?);
        let from = Offsets {
            stdin: status.input_offset,
            stdout: status.stdout.end,
            stderr: status.stderr.end,
        };
        let front = Front {
            reader: &reader,
            interactive,
            from,
            to_the_end: false,
            detach_keys: self.detach_keys.clone(),
        };
        front.attach(pod, signals).await
    }

    async fn attach_exec(
        &self,
        pod: &Pod,
        exec: ExecId,
        status: &ProcessStatus,
        interactive: bool,
        signals: &mut Signals,
    ) -> Result<u8> {
        let link = Link::to(pod)?.exec(exec);
        let from = Offsets { stdin: status.input_offset, ..Offsets::default() };
        let session = Session {
            link: &link,
            reader: EXEC,
            tty: status.terminal,
            interactive,
            from,
            ours: false,
            detach_keys: self.detach_keys.clone(),
        };
        in_front(&session, "`hyperctl attach --exec`", signals).await
    }
}
