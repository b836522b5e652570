//! `hyperctl update`: other limits for a container that runs. The VM stays as large as it was made.

use oci_spec::runtime::LinuxResources;

use crate::error::{Error, Result};
use crate::flags::limits::ResourceFlags;
use crate::output;
use crate::pod::client;
use crate::pod::state::State;
use crate::pod::store::Pod;
use crate::several;

const NOTES: &str = "\
What is not said stays as it is. The VM is as large as it was made when the pod began: a limit above that bounds
nothing, which is said on standard error.";

/// Change the limits of pods' containers while they run
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    #[command(flatten)]
    resources: ResourceFlags,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    if args.resources.is_empty() {
        return Err(Error::new("update pods: no limit is said")
            .hint("say at least one of --memory, --cpus and --pids-limit"));
    }
    let mut resources = LinuxResources::default();
    args.resources.edit_resources(&mut resources);
    several::each(&args.pods, "update", |pod| update(pod, &args.resources, &resources)).await
}

async fn update(pod: Pod, said: &ResourceFlags, resources: &LinuxResources) -> Result<()> {
    let (_sandbox, container) = client::connect(&pod).await?;
    container.update(resources).await.map_err(|err| client::guest_error(&err))?;
    for excess in excesses(&pod.state, said) {
        output::warn(format_args!("update pod {:?}: {excess}", pod.state.name));
    }
    Ok(())
}

/// Limits that the VM keeps the container from ever reaching.
fn excesses(pod: &State, said: &ResourceFlags) -> Vec<String> {
    let (cpus, memory_mib) = (u64::from(pod.vm.cpus), u64::from(pod.vm.memory_mib));
    let cpus = said.whole_cpus().filter(|said| *said > cpus).map(|_| {
        format!("its VM has {cpus} CPU{}; a pod with more begins with --vm-cpus", plural(cpus))
    });
    let memory = said
        .memory_mib()
        .filter(|said| *said > memory_mib)
        .map(|_| format!("its VM has {memory_mib} MiB; a pod with more begins with --vm-memory"));
    cpus.into_iter().chain(memory).collect()
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::state::Vm;

    #[test]
    fn a_limit_above_the_vm_is_told() {
        let vm = Vm { cpus: 1, memory_mib: 64, ..Vm::default() };
        let state = State::new("0123456789ab".into(), "web".into(), "busybox".into(), vm);
        let said = |memory_mib: u64, cpu_quota_us: u64| ResourceFlags {
            memory: Some(memory_mib << 20),
            cpu_quota_us: Some(cpu_quota_us),
            pids_limit: None,
        };
        assert!(excesses(&state, &said(64, 100_000)).is_empty());
        let told = excesses(&state, &said(65, 100_001));
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("its VM has 1 CPU; "), "{told:?}");
        assert!(told[1].starts_with("its VM has 64 MiB; "), "{told:?}");
    }
}
