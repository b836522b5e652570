//! What the guest's image costs its host: guests of one image side by side, and a large file that is read in every way
//! in which a container can have it.
//!
//! Host memory is each QEMU's Pss (proc_pid_smaps(5)), in which a page that N processes map counts for one Nth in each: the
//! sum over all guests of what they map of the root image is what the image takes of the host. Without KVM most of a
//! QEMU is its translation cache; the further guest's share is to be looked at beside the first one's.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::edit::push;
use harness::vm::Mode;
use harness::{Finished, Run, Running, Vm, VmConfig, guest, pattern};
use hyperstart::Storage;
use hyperstart_vmm::{Disk, Machine, Share, TransportKind};
use image_builder::content::Content;
use image_builder::erofs;
use image_builder::progress::Silent;
use image_builder::tree::{Kind, Meta, Tree};
use serde_json::json;

use crate::figures::{Figures, median, mib};
use crate::limit;

/// How many guests are alive when their memory is looked at.
const GUESTS: [(usize, &str); 3] =
    [(2, "guests.second"), (4, "guests.fourth"), (8, "guests.eighth")];
const ROOT_IMAGE: &str = "rootfs.erofs";
/// What is read.
const FILE_BYTES: usize = 100_000_000;
const REPEATS: usize = 3;
/// Where the ways to the file are mounted in the guest, and seen by the container.
const WAYS: [(&str, &str, &str); 3] = [
    ("dax", "read.dax", "read.dax_cache"),
    ("blk", "read.blk", "read.blk_cache"),
    ("9p", "read.9p", "read.9p_cache"),
];

pub fn measure(figures: &mut Figures) -> Result<()> {
    side_by_side(figures)?;
    reading(figures)
}

fn side_by_side(figures: &mut Figures) -> Result<()> {
    let mut machine = limit::machine(Mode::Dax);
    machine.transport = Some(TransportKind::Serial);
    let mut vms = vec![Vm::boot_machine(&machine)];
    let first = pss(&vms, "")?;
    let image_of_one = pss(&vms, ROOT_IMAGE)?;
    figures.once("guests.first", mib(first));
    for (count, id) in GUESTS {
        while vms.len() < count {
            vms.push(Vm::boot_machine(&machine));
        }
        let further = pss(&vms, "")?.saturating_sub(first) / (count as u64 - 1);
        figures.once(id, mib(further));
    }
    ensure!(image_of_one > 0, "no QEMU maps {ROOT_IMAGE}");
    figures.once("guests.image", pss(&vms, ROOT_IMAGE)? as f64 / image_of_one as f64);
    vms.into_iter().for_each(Vm::kill);
    Ok(())
}

/// The sum of what all of them take, in bytes: of mappings of files whose names end so, or of all.
fn pss(vms: &[Vm], name: &str) -> Result<u64> {
    let mut sum = 0;
    for vm in vms {
        let path = format!("/proc/{}/smaps", vm.machine().pid());
        let smaps = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mut counts = false;
        for line in smaps.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if !first.ends_with(':') {
                counts = line.ends_with(name); // ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH
            } else if first == "Pss:" && counts {
                let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
                sum += kib.with_context(|| format!("{path}: {line:?}"))? * 1024;
            }
        }
    }
    Ok(sum)
}

fn reading(figures: &mut Figures) -> Result<()> {
    let directory = tempfile::tempdir_in(guest::scratch()).context("make a directory")?;
    let machine = machine_with_the_file(directory.path())?;
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let [mapped, block] = [2, 3].map(|disk| vm.machine().disk_device(disk).cloned());
    let (mapped, block) = (mapped.context("a disk")?, block.context("a disk")?);
    ensure!(mapped.is_pmem() && !block.is_pmem(), "one is mapped: {mapped:?}, {block:?}");
    let storage = |way: &str, driver: &str, source: &str, fstype: &str, options: &[&str]| Storage {
        driver: driver.into(),
        source: source.into(),
        fstype: fstype.into(),
        mount_point: format!("/run/{way}"),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Storage::default()
    };
    let share = ["trans=virtio", "version=9p2000.L", "cache=mmap", "msize=262144"];
    let run = Run::busybox(["sleep", "100000"])
        .storage(storage("dax", mapped.driver, &mapped.source, "erofs", &["ro", "dax=always"]))
        .storage(storage("blk", block.driver, &block.source, "erofs", &["ro"]))
        .storage(storage("9p", "9p", "share", "9p", &share));
    let container = vm.start_with("reader", &run, |spec| {
        for (way, _, _) in WAYS {
            let (destination, source) = (format!("/{way}"), format!("/run/{way}"));
            let mount = json!({
                "destination": destination, "type": "bind", "source": source, "options": ["rbind"],
            });
            push(spec, "/mounts", mount);
        }
    });
    read_each_way(figures, &container)?;
    vm.kill();
    Ok(())
}

/// In turns, so that a busy machine is busy for all. The first turn is for the page cache, of the host too.
fn read_each_way(figures: &mut Figures, container: &Running<'_>) -> Result<()> {
    let mut rates: [Vec<f64>; WAYS.len()] = Default::default();
    for turn in 0..=REPEATS {
        for ((way, _, cache), rates) in WAYS.iter().zip(&mut rates) {
            let before = cached_kib(container, &format!("{way}{turn}a"))?;
            let begun = Instant::now();
            let said =
                exec(container, &format!("{way}{turn}"), &format!("cat /{way}/blob > /dev/null"));
            let seconds = begun.elapsed().as_secs_f64();
            ensure!(said.stderr().is_empty(), "{way}: {}", said.stderr());
            if turn == 0 {
                let grown = cached_kib(container, &format!("{way}b"))?.saturating_sub(before);
                figures.once(cache, (grown * 1024) as f64 / 1e6);
            } else {
                rates.push(FILE_BYTES as f64 / 1e6 / seconds);
            }
        }
    }
    for ((way, rate, _), rates) in WAYS.iter().zip(&rates) {
        ensure!(median(rates).is_some(), "{way}: nothing was read");
        figures.median(rate, rates)?;
    }
    Ok(())
}

fn exec(container: &Running<'_>, name: &str, script: &str) -> Finished {
    container.exec(name, &Run::shell(script)).finish()
}

fn cached_kib(container: &Running<'_>, name: &str) -> Result<u64> {
    let said = exec(container, name, "grep ^Cached: /proc/meminfo");
    let kib = said.stdout().split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
    kib.with_context(|| format!("Cached of {:?}", said.stdout()))
}

/// The file in an image that is mapped, in one that is a disk, and in a directory.
fn machine_with_the_file(directory: &Path) -> Result<Machine> {
    let bytes = pattern(FILE_BYTES);
    let shared = directory.join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("blob"), &bytes)?;
    let mut tree = Tree::default();
    tree.put("blob", Meta::root_owned(0o644), Kind::File(Content::bytes(&bytes)))?;
    let (mapped, block) = (directory.join("mapped.erofs"), directory.join("block.erofs"));
    erofs::write(&tree, &erofs::Options::default(), &mapped, &Silent)?;
    fs::copy(&mapped, &block)?;
    let mut machine =
        VmConfig { mode: Mode::Dax, memory_mib: 512, ..VmConfig::default() }.machine();
    machine.disks.push(Disk { path: mapped, read_only: true });
    machine.disks.push(Disk { path: block, read_only: false }); // only what is read-only is mapped
    let (kind, tag) = (hyperstart_vmm::ShareKind::NineP, "share".into());
    machine.shares.push(Share { kind, path: shared, tag, read_only: true });
    Ok(machine)
}
