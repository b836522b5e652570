//! The heir of a host that was killed: goes on with what the record says there is.
//!
//! ```text
//! record            what the heir does
//! none, or booting  ends what is left of the VM and removes it: it never ran
//! running           takes the VM over, goes on with the log, waits for the exit: a host as any other
//!   VM gone too     records the exit if it was known, else how the VM ended
//! exited            ends what is left of the VM
//! ```
//! It is started by the pod's guardian, or by that which the next command appoints. It ends in order when the pod does.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use hyperstart::Sandbox;
use hyperstart_vmm::{Plugged, RunDir, Vm, end_remains};

use crate::error::{Context as _, Error, Result};
use crate::hooks::Hooks;
use crate::output;
use crate::pod::client;
use crate::pod::contained::Log;
use crate::pod::disks::{Attached, Disks};
use crate::pod::failure::{failure, give_way};
use crate::pod::further;
use crate::pod::host::{HOST_LOG, finish, live};
use crate::pod::hosting::{Hosting, container_id};
use crate::pod::output_log::Writer;
use crate::pod::state::{State, Status};
use crate::pod::store::{Claim, Store};
use crate::signals::Signals;

/// Hosts the pod in `dir` to its end.
pub async fn adopt(store: &Store, dir: &Path, signals: &mut Signals) -> Result<()> {
    output::say_into(&dir.join(HOST_LOG))?;
    if !State::is_there(dir) {
        end_remains(dir)?;
        drop(RunDir::inherit(dir)); // its host was killed before it wrote a word
        return Ok(());
    }
    let mut claim = store.inherit(dir)?;
    match claim.state.status {
        Status::Booting => {
            end_remains(dir)?;
            Hooks::left(claim.state.hooks.take()).after_delete().await;
            drop(claim);
            Ok(())
        }
        Status::Exited { .. } => {
            end_remains(dir)?;
            claim.keep()
        }
        Status::Running { .. } => {
            claim.state.host_pid = rustix::process::getpid().as_raw_nonzero().get();
            claim.save()?;
            go_on(claim, signals).await
        }
    }
}

async fn go_on(claim: Claim, signals: &mut Signals) -> Result<()> {
    let hooks = Hooks::left(claim.state.hooks.clone());
    let dir = claim.dir.clone();
    let taken = tokio::select! {
        taken = take_over(&dir) => taken,
        signal = signals.next_ending() => {
            Err(Error::interrupted(signal)).context(|| "take over".into())
        }
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(err) => return too_late(claim, &hooks, err).await,
    };
    let hosting = match house(taken, claim).await {
        Ok(hosting) => hosting,
        Err((claim, err)) => return too_late(claim, &hooks, err).await,
    };
    let (log, ends) = Log::resume(Writer::resume(&dir));
    let run = async {
        hosting.listen()?;
        hosting.first.run_to_end(log, ends).await
    };
    let outcome = live(&hosting, signals, run).await;
    let known = hosting.first.state()?.exit;
    let outcome = outcome.or_else(|err| known.ok_or(err)); // it ended before the VM did
    drop(finish(hosting, &hooks, signals, outcome).await); // recorded, and told to who is in front
    Ok(())
}

/// What outlived the host before.
struct Taken {
    vm: Vm,
    plugged: Vec<Plugged>,
    sandbox: Sandbox,
}

/// For as long as the VM lives, however slow it and this machine are: only its end is a reason to end the pod.
async fn take_over(dir: &Path) -> Result<Taken> {
    let (vm, plugged) = Vm::adopt(dir).await?;
    vm.ready(Duration::MAX).await?;
    let address = client::address_of(vm.address());
    let sandbox = loop {
        let reached = tokio::select! {
            reached = client::reach(&address) => reached,
            err = failure(&vm) => {
                give_way(&vm, &err);
                return Err(err);
            }
        };
        match reached {
            Ok(sandbox) => break sandbox,
            Err(err) if err.is_lost() => output::warn(format_args!("take over: {}", err.message())),
            Err(err) => return Err(err),
        }
    };
    Ok(Taken { vm, plugged, sandbox })
}

/// Everything as it was in the hands of the host before.
async fn house(taken: Taken, claim: Claim) -> std::result::Result<Rc<Hosting>, (Claim, Error)> {
    let Taken { vm, plugged, sandbox } = taken;
    let prepared = async {
        let id = container_id(&claim.state.id)?;
        let further = further::left(&claim.dir);
        let used: Vec<Attached> = std::iter::once(&claim.state)
            .chain(further.iter().map(|claim| &claim.state))
            .flat_map(|state: &State| state.attached.iter().chain(&state.disks).cloned())
            .collect();
        let disks = Disks::adopt(&vm, &claim.dir, id.as_str(), plugged, &used).await?;
        Ok((id, disks, further))
    };
    match prepared.await {
        Ok((id, disks, further)) => {
            let container = sandbox.container(id);
            let hosting = Hosting::new(vm, sandbox, disks, container, claim);
            for claim in further {
                hosting.spawn(further::go_on(Rc::clone(&hosting), claim));
            }
            Ok(hosting)
        }
        Err(err) => Err((claim, err)),
    }
}

/// The VM has ended, or cannot be taken over, and is ended: what is known is recorded.
async fn too_late(mut claim: Claim, hooks: &Hooks, err: Error) -> Result<()> {
    let outcome = match claim.state.exit {
        Some(code) => Ok(code),
        None => Err(err).context(|| format!("run {:?}", claim.state.image)),
    };
    end_remains(&claim.dir)?;
    claim.state.hooks = None;
    claim.save()?;
    hooks.after_delete().await;
    if claim.state.remove {
        return Ok(()); // dropped, and so removed
    }
    claim.state.exited(&outcome);
    claim.keep()
}
