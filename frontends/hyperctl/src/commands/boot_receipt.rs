//! `hyperctl boot-receipt`: where the time of a start went, as a table and as a picture.

use std::fs;
use std::path::PathBuf;

use crate::error::{Context as _, Result};
use crate::output;
use crate::pod::client;
use crate::pod::store::{Pod, Store};
use crate::receipt::{GuestReceipt, Timeline, svg, table};

/// Show where the time of a pod's start went
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a timeline picture too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Name, id, or beginning of an id
    pod: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let pod = Store::open()?.find(&args.pod)?;
    let operation = || format!("read boot receipt of pod {:?}", pod.state.name);
    let guest = client::receipt_of(&pod).await.context(operation)?;
    let timeline = timeline(&pod, &guest);
    if let Some(path) = &args.svg {
        fs::write(path, svg::render(&timeline)).context(|| format!("write {path:?}"))?;
    }
    output::print(table::render(&timeline))?;
    Ok(0)
}

fn timeline(pod: &Pod, guest: &GuestReceipt) -> Timeline {
    let (vm, state) = (&pod.state.vm, &pod.state);
    let cpus = if vm.cpus == 1 { "1 CPU".into() } else { format!("{} CPUs", vm.cpus) };
    let vm = format!("{}, {} boot, {cpus}, {} MiB", vm.machine, vm.boot, vm.memory_mib);
    Timeline::new(format!("pod {} ({})", state.name, state.image), &vm, &state.steps, guest)
}
