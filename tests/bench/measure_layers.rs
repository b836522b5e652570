//! What it costs that an image has layers: the same image, as three and flattened to one, attached to the same machine.
//!
//! ```text
//! settled | CreateSandbox, CreateContainer from 3 layers, StartContainer, it runs, its exit is reported
//! the same from the one
//! ```
//! As in `measure_container`, every guest is new.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::image::{self, Tar};
use harness::vm::Mode;
use harness::{Run, Vm, guest};
use hyperstart::{ContainerId, ContainerOptions, Storage};
use hyperstart_vmm::Disk;
use image_builder::progress::Silent;
use image_builder::store::Store;
use tokio::io::AsyncReadExt;

use crate::counter::Counter;
use crate::figures::{Figures, median, millions, since};
use crate::limit;

const DEADLINE: Duration = Duration::from_secs(300);
/// Guests for each of the two.
const REPEATS: usize = 3;
const LAYERS: usize = 3;

pub fn measure(figures: &mut Figures) -> Result<()> {
    let directory = tempfile::tempdir_in(guest::scratch()).context("make a directory")?;
    let store = Store::open(directory.path())?;
    let file = |name: &str| Tar::new().file(name, name.as_bytes());
    let layers = vec![image::base_layer(), file("middle"), file("top")];
    let image = image::import(directory.path(), "bench", &serde_json::json!({}), layers);
    let mut files = image::paths(&image);
    ensure!(files.len() == LAYERS, "{} layers", files.len());
    files.push(store.flatten(&image, &Silent)?);
    let (mut stacked, mut flat) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        stacked.push(start(&files, 0..LAYERS)?);
        flat.push(start(&files, LAYERS..LAYERS + 1)?);
    }
    figures.median("layers.three", &stacked)?;
    figures.median("layers.flat", &flat)?;
    let ratio = median(&stacked).zip(median(&flat)).map(|(stacked, flat)| stacked / flat);
    figures.once("layers.ratio", ratio.context("nothing was measured")?);
    Ok(())
}

/// Millions of instructions for a container whose root is made of these of the machine's disks.
fn start(files: &[PathBuf], disks: std::ops::Range<usize>) -> Result<f64> {
    let mut machine = limit::machine(Mode::Initrd);
    machine.disks = files.iter().map(|path| Disk { path: path.clone(), read_only: true }).collect();
    let counter = Counter::attach(&mut machine)?;
    let vm = Vm::boot_machine_within(&machine, DEADLINE);
    vm.run("say hello", vm.sandbox().check())?; // the connection is made by the first call
    let id = ContainerId::new("first")?;
    let mut storages = Vec::new();
    for index in disks {
        let device = vm.machine().disk_device(index).context("a layer without a disk")?;
        let name = ContainerId::new(format!("layer{index}"))?;
        storages.push(Storage::image(device.driver, &device.source, &name));
    }
    storages.push(Storage::overlay(&id, &storages));
    let run = Run::busybox(["echo", "hello"]);
    let options = ContainerOptions { storages, ..ContainerOptions::default() };
    let begun = counter.settle()?;
    vm.create_sandbox();
    let ended = vm.run("run a container", async {
        let container = vm.sandbox().create_container(&id, &run.spec(&id), options).await?;
        container.start().await?;
        let mut said = String::new();
        container.process().stdout().read_to_string(&mut said).await?;
        let status = container.wait().await?;
        let ended = counter.read()?.all;
        ensure!(status.success() && said == "hello\n", "{}, said {said:?}", status.code());
        Ok(ended)
    })?;
    let instructions = since(ended, begun)?;
    vm.kill();
    Ok(millions(instructions))
}
