//! `hyperctl exec`: one more process in a running container.

use std::cell::Cell;

use hyperstart::ExecId;

use crate::error::{Context as _, Error, Result};
use crate::pod::client;
use crate::pod::store::{Store, random_hex};
use crate::session::Session;
use crate::signals::Signals;
use crate::spec::{self, ProcessFlags};
use crate::terminal;

const NOTES: &str = "\
Environment, directory and user are the container's own unless said otherwise.
POD/NAME is the same as POD with --container NAME, here and wherever a POD is asked for.
Exits with the process's exit code.";

/// Run one more process in a running container
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Connect standard input
    #[arg(short, long)]
    pub interactive: bool,
    #[command(flatten)]
    pub process: ProcessFlags,
    /// A further container of the pod, by its name [default: the first one]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Name, id, or beginning of an id
    pub pod: String,
    /// What to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    terminal::check_input(args.tty, args.interactive)?;
    let pod = Store::open()?.find_container(&args.pod, args.container.as_deref())?;
    let operation = format!("exec in pod {:?}", pod.state.name);
    let (_sandbox, container) = client::connect(&pod).await.context(|| operation.clone())?;
    let base = pod.state.process.as_ref();
    let base = base.ok_or_else(|| Error::new(format!("{operation}: its process is not known")))?;
    let process = spec::exec_process(base, &args.command, &args.process, args.tty)?;
    let mut signals = Signals::listen()?;
    let id = ExecId::new(format!("exec-{}", random_hex::<8>()?));
    let id = id.map_err(|err| client::guest_error(&err))?;
    let process = container.exec(id, &process).await;
    let process =
        process.map_err(|err| client::command_error(&err)).context(|| operation.clone())?;
    let session = Session {
        process: &process,
        container: None,
        tty: args.tty,
        interactive: args.interactive,
        attached: true,
        log: None,
        first_output: Cell::new(None),
    };
    let outcome = async {
        let _raw = session.prepare().await?;
        session.run(&mut signals).await
    };
    outcome.await.context(|| operation)
}
