//! Launches one VM, says where it is, and waits: the owner that the tests kill, and a way to try a guest by hand.
//!
//! `owner RUN_DIR KERNEL INITRD|ROOTFS.erofs [serial|vhost-user-vsock] [KERNEL WORDS...]` prints `launched QEMU_PID`,
//! then `ready ADDRESS` or the error. `OWNER_MACHINE=pc` takes that board, `OWNER_DISKS=FILE:FILE` attaches images,
//! `OWNER_MEMORY=MIB` sets the memory, `OWNER_PMEM=nvdimm` takes that device,
//! `OWNER_ICOUNT=1` counts instructions. With `OWNER_HEIR=1` the VM outlives it, `OWNER_HEIR=adopt` takes over the one in
//! RUN_DIR.
#![allow(clippy::print_stdout, reason = "an example")]

use std::path::Path;

use hyperstart_vmm::{Boot, Disk, Machine, MachineKind, PmemKind, Result, TransportKind, Vm, boot};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [run_dir, kernel, initrd, rest @ ..] = args.as_slice() else {
        println!(
            "usage: owner RUN_DIR KERNEL INITRD|ROOTFS.erofs [serial|vhost-user-vsock] [KERNEL WORDS...]"
        );
        return;
    };
    let boot = match initrd.ends_with(".erofs") {
        true => Boot::Rootfs(initrd.into()),
        false => Boot::Initrd(initrd.into()),
    };
    let mut machine = Machine::new(kernel, boot);
    match std::env::var("OWNER_MACHINE").as_deref() {
        Ok("pc") => machine.kind = MachineKind::Pc,
        Ok("q35") => machine.kind = MachineKind::Q35,
        Ok(_) | Err(_) => {}
    }
    for path in
        std::env::var("OWNER_DISKS").unwrap_or_default().split(':').filter(|path| !path.is_empty())
    {
        machine.disks.push(Disk { path: path.into(), read_only: true });
    }
    machine.transport = match rest.first().map(String::as_str) {
        Some("serial") => Some(TransportKind::Serial),
        Some("vhost-user-vsock") => Some(TransportKind::VhostUserVsock),
        Some(_) | None => None,
    };
    if let Ok(Ok(mib)) = std::env::var("OWNER_MEMORY").map(|mib| mib.parse()) {
        machine.memory_mib = mib;
    }
    if std::env::var("OWNER_PMEM").as_deref() == Ok("nvdimm") {
        machine.pmem = PmemKind::Nvdimm;
    }
    machine.icount = std::env::var_os("OWNER_ICOUNT").is_some();
    machine.outlives_owner = std::env::var_os("OWNER_HEIR").is_some();
    machine.cmdline = rest.iter().skip(1).cloned().collect();
    if let Err(err) = own(&machine, Path::new(run_dir)).await {
        println!("error: {err}");
    }
}

async fn own(machine: &Machine, run_dir: &Path) -> Result<()> {
    let heir = std::env::var("OWNER_HEIR").unwrap_or_default();
    let vm = match heir.as_str() {
        "adopt" => Vm::adopt(run_dir).await?.0,
        _ => Vm::launch(machine, run_dir).await?,
    };
    println!("launched {}", vm.pid());
    for index in 0..machine.disks.len() {
        println!("disk {index}: {:?}", vm.disk_device(index));
    }
    vm.ready(boot::DEFAULT_DEADLINE).await?;
    println!("ready {:?} after {:.2} s", vm.address(), vm.uptime().as_secs_f64());
    println!("ended: it {}", vm.wait().await);
    Ok(())
}
