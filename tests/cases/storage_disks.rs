//! Disks as storages: SCSI addresses, a board that tells of no disk that comes, file systems made on request, and the
//! layers of `erofs.multi-layer`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::disk::{Filesystem, GUEST_PATH, disk, mount};
use harness::volume::add_mounts;
use harness::{Run, Vm, VmConfig, guest};
use hyperstart::{Code, ContainerId, ContainerOptions, Storage};
use hyperstart_vmm::{Boot, Disk, MachineKind};
use image_builder::cpio::{self, Compression};
use image_builder::progress::Silent;
use serde_json::json;

fn on_disk(driver: &str, source: &str) -> Storage {
    Storage {
        driver: driver.into(),
        source: source.into(),
        fstype: "ext4".into(),
        mount_point: GUEST_PATH.into(),
        ..Storage::default()
    }
}

fn said(vm: &Vm, script: &str, storage: Storage) -> String {
    let run = Run::shell(script).storage(storage);
    let said = vm.finish_with("look", &run, |spec| add_mounts(spec, json!([mount()])));
    assert_eq!((said.code, said.stderr()), (0, ""), "{script}");
    said.stdout().to_owned()
}

fn scsi(path: &Path) -> Vec<OsString> {
    let file =
        format!("driver=raw,node-name=scsi-file,file.driver=file,file.filename={}", path.display());
    ["-device", "virtio-scsi-pci,id=scsi,addr=0x1d", "-blockdev", &file, "-device"]
        .into_iter()
        .chain(["scsi-hd,drive=scsi-file,bus=scsi.0,channel=0,scsi-id=3,lun=5"])
        .map(OsString::from)
        .collect()
}

/// A SCSI disk is found by its address; one that is not there is an error that names it after the deadline, and one that
/// cannot be is refused; both leave the guest as it was. A root of layers is mounted from its disks, is written to on one
/// of them alone, and is taken down with its container.
#[test]
fn disks_are_found_and_stacked() {
    let (volume, upper) = (disk(Filesystem::Ext4, 32 << 20), disk(Filesystem::Ext4, 32 << 20));
    let cmdline = vec!["agent.hotplug_timeout=2".to_owned()];
    let mut machine = VmConfig { cmdline, ..VmConfig::default() }.machine();
    machine.kind = MachineKind::Q35;
    machine.qemu_args = scsi(&volume.attached().path);
    machine.disks.push(upper.attached());
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    said(&vm, "echo scsi > /disk/file", on_disk("scsi", "3:5"));
    assert_eq!(said(&vm, "cat /disk/file", on_disk("scsi", "3:5")), "scsi\n");
    for (driver, source, code, words) in [
        ("scsi", "7:1", Code::DeadlineExceeded, "SCSI disk at \"7:1\""),
        ("scsi", "0:99999", Code::InvalidArgument, "0:99999"),
        ("blk", "1c", Code::DeadlineExceeded, "PCI path \"1c\""),
        ("blk-ccw", "0.0.0000", Code::Unimplemented, "blk-ccw"),
    ] {
        let run = Run::probe(["exit", "0"]).storage(on_disk(driver, source));
        let err = vm.try_create("bad", &run, |_| {}).expect_err(words);
        assert!(err.code() == code && err.message().contains(words), "{words}: {err}");
    }
    layers_are_a_root(&vm);
    vm.shutdown();
}

/// Of the probe's image over busybox's: files of both are seen.
fn layers_are_a_root(vm: &Vm) {
    let root = "/run/kata-containers/layered/rootfs";
    let layer = |disk: usize, fstype: &str, options: &[&str]| Storage {
        driver: "erofs.multi-layer".into(),
        source: vm.machine().disk_device(disk).unwrap().source.clone(),
        fstype: fstype.into(),
        options: ["X-kata.multi-layer=true"]
            .iter()
            .chain(options)
            .map(|&word| word.to_owned())
            .collect(),
        mount_point: root.into(),
        ..Storage::default()
    };
    let upper =
        layer(2, "ext4", &["X-kata.overlay-upper", "X-kata.mkdir.path={{ mount 0 }}/upper:0755"]);
    let lower = |disk| layer(disk, "erofs", &["X-kata.overlay-lower", "ro"]);
    let storages = vec![upper.clone(), lower(Vm::PROBE_DISK), lower(Vm::BUSYBOX_DISK)];
    let id = ContainerId::new("layered").unwrap();
    let script =
        "test -x /probe && cat /etc/group | grep -c bob; cat /kept 2> /dev/null; echo kept > /kept";
    for expected in ["2\n", "2\nkept\n"] {
        let run = Run::shell(script);
        let mut spec = run.spec(&id);
        spec.root_mut().as_mut().unwrap().set_path(root.into());
        let options = ContainerOptions { storages: storages.clone(), ..Default::default() };
        let container =
            vm.run("create", vm.sandbox().create_container(&id, &spec, options)).unwrap();
        let running =
            harness::Running::new(vm, container.clone(), container.process(), &run).started();
        assert_eq!(running.finish().stdout(), expected);
        running.remove();
    }
    let options = ContainerOptions { storages: vec![upper], ..Default::default() };
    let spec = Run::shell("true").spec(&id);
    let err = vm.run("create", vm.sandbox().create_container(&id, &spec, options)).unwrap_err();
    assert!(err.message().contains("no read-only layer"), "{err}");
}

/// A board without ACPI tells nothing of a disk that comes: the guest looks for it.
#[test]
fn disk_is_found_where_nothing_tells_of_it() {
    let cmdline = vec!["acpi=off".to_owned(), "agent.hotplug_timeout=120".to_owned()];
    let mut machine = VmConfig { cmdline, ..VmConfig::default() }.machine();
    machine.kind = MachineKind::Pc;
    machine.slots = 1;
    let file = disk(Filesystem::Ext4, 32 << 20);
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let plugged = vm.run("attach", vm.machine().attach(&file.attached())).unwrap();
    let storage = on_disk("blk", &plugged.device().source);
    assert_eq!(said(&vm, "echo found > /disk/x; cat /disk/x", storage), "found\n");
    vm.kill();
}

/// An initrd that carries mkfs.ext4 with its libraries, as `image-builder initrd --overlay` makes one.
fn image_with_mkfs(directory: &Path) -> PathBuf {
    let tool = "/usr/sbin/mke2fs";
    let root = directory.join("root");
    let put = |path: &str| {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, &to).unwrap_or_else(|err| panic!("{path}: {err}; `make setup` installs it"));
    };
    put(tool);
    let libraries = Command::new("/lib64/ld-linux-x86-64.so.2").args(["--list", tool]).output();
    let libraries = String::from_utf8(libraries.unwrap().stdout).unwrap();
    libraries.split_whitespace().filter(|word| word.starts_with('/')).for_each(put);
    symlink("mke2fs", root.join("usr/sbin/mkfs.ext4")).unwrap();
    let init = guest::workspace().join("target/x86_64-unknown-linux-musl/tiny/init");
    let mut tree = image_builder::guest::tree(&init).unwrap();
    image_builder::additions::overlay(&mut tree, &root, &Silent).unwrap();
    let image = directory.join("initrd.img");
    cpio::write(&tree, Compression::None, &image).unwrap();
    image
}

/// A file system is made on a disk that has nothing, by the tool of an image that carries it; a disk that has something is
/// not touched; a guest without the tool names it, and other kinds than ext4 and encryption are refused.
#[test]
fn filesystem_is_made_on_request() {
    let directory = tempfile::tempdir_in(guest::scratch()).unwrap();
    let blank = directory.path().join("blank");
    fs::File::create(&blank).unwrap().set_len(64 << 20).unwrap();
    for carries_tool in [false, true] {
        let mut machine = VmConfig { memory_mib: 192, ..VmConfig::default() }.machine();
        machine.disks.push(Disk { path: blank.clone(), read_only: false });
        if carries_tool {
            machine.boot = Boot::Initrd(image_with_mkfs(directory.path()));
        }
        let mut vm = Vm::boot_machine(&machine);
        vm.create_sandbox();
        let device = vm.machine().disk_device(2).unwrap().clone();
        let storage = |fstype: &str, option: &str| Storage {
            driver_options: vec![option.to_owned()],
            fstype: fstype.to_owned(),
            ..on_disk(device.driver, &device.source)
        };
        let refused = |storage: Storage, code: Code, words: &str| {
            let run = Run::probe(["exit", "0"]).storage(storage);
            let err = vm.try_create("bad", &run, |_| {}).expect_err(words);
            assert!(err.code() == code && err.message().contains(words), "{words}: {err}");
        };
        refused(storage("xfs", "create_filesystem"), Code::Unimplemented, "only ext4");
        refused(storage("ext4", "encryption_key=ephemeral"), Code::Unimplemented, "encryption_key");
        if carries_tool {
            assert_eq!(
                said(&vm, "echo new > /disk/x; cat /disk/x", storage("ext4", "create_filesystem")),
                "new\n"
            );
            refused(
                storage("ext4", "create_filesystem"),
                Code::FailedPrecondition,
                "not overwritten",
            );
            assert_eq!(said(&vm, "cat /disk/x", on_disk(device.driver, &device.source)), "new\n");
        } else {
            refused(storage("ext4", "create_filesystem"), Code::Unimplemented, "no mkfs.ext4");
        }
        vm.power_off();
    }
}
