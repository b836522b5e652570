//! `hyperctl exec`: one more process in a running container.
//!
//! It goes on if its hyperctl is killed, and what it writes is kept for the reader [`EXEC`], up to the size of the guest's
//! ring: then it waits, as at a full pipe. A hyperctl that has delivered all of it forgets it.

use hyperstart::ExecId;

use crate::detach_keys::Keys;
use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::client;
use crate::pod::follow::hold;
use crate::pod::link::Link;
use crate::pod::name::random_hex;
use crate::pod::store::Store;
use crate::session::{self, Offsets, Session};
use crate::signals::Signals;
use crate::spec::{self, ProcessFlags};
use crate::terminal;

const NOTES: &str = "\
Environment, directory and user are the container's own unless said otherwise.
POD/NAME is the same as POD with --container NAME, here and wherever a POD is asked for.
Exits with the process's exit code. With -d it prints the process's id instead.";
/// The reader that an exec's output is kept for.
pub const EXEC: &str = "exec";

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
    /// Run in the background and print the process's id
    #[arg(short, long)]
    pub detach: bool,
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
    if !args.detach {
        terminal::check_input(args.tty, args.interactive)?;
    }
    let pod = Store::open()?.find_container(&args.pod, args.container.as_deref())?;
    let operation = format!("exec in pod {:?}", pod.state.name);
    let (_sandbox, container) = client::connect(&pod).await.context(|| operation.clone())?;
    let base = pod.state.process.as_ref();
    let base = base.ok_or_else(|| Error::new(format!("{operation}: its process is not known")))?;
    let process = spec::exec_process(base, &args.command, &args.process, args.tty)?;
    let mut signals = Signals::listen()?;
    let id = ExecId::new(format!("exec-{}", random_hex::<8>()?));
    let id = id.map_err(|err| client::guest_error(&err))?;
    let process = container.exec(id.clone(), &process).await;
    let process =
        process.map_err(|err| client::command_error(&err)).context(|| operation.clone())?;
    let size = terminal::size().filter(|_| !args.detach);
    let prepared = async {
        hold(&process, EXEC).await?; // whoever reads it when
        session::prepare(&process, args.tty, args.interactive, size).await
    };
    prepared.await.context(|| operation.clone())?;
    if args.detach {
        return output::print(format!("{}\n", id.as_str())).map(|()| 0);
    }
    let come_back = format!("`hyperctl attach --exec {} {}`", id.as_str(), args.pod);
    let link = Link::to(&pod)?.exec(id);
    let session = Session {
        link: &link,
        reader: EXEC,
        tty: args.tty,
        interactive: args.interactive,
        from: Offsets::default(),
        ours: true,
        detach_keys: Keys::default(),
    };
    in_front(&session, &come_back, &mut signals).await.context(|| operation)
}

/// Stays in front of an exec until it has ended, and forgets it then. `come_back` is for who leaves it.
pub async fn in_front(session: &Session<'_>, come_back: &str, signals: &mut Signals) -> Result<u8> {
    let outcome = session.run(signals).await;
    if outcome.as_ref().is_err_and(Error::is_detached) {
        output::say(format_args!("detached: {come_back} comes back"));
    }
    if outcome.is_ok() {
        forget(session.link).await;
    }
    outcome
}

/// All of it was delivered.
async fn forget(link: &Link) {
    match link.call(async |process| process.delete().await).await {
        Ok(Ok(())) => {}
        // The pod has ended meanwhile, or a child of the exec's is left: it goes with the container.
        Ok(Err(err)) => log::debug!("{err}"),
        Err(err) => log::debug!("{}", err.message()),
    }
}
