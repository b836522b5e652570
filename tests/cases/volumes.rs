//! Volumes in use: how full they are, another size for those in memory, and disks that grow.

use std::time::Duration;

use harness::disk::{DiskFile, Filesystem, GUEST_PATH, disk};
use harness::raw::Reply;
use harness::volume::{VOLUME, add_mounts, tmpfs};
use harness::{Run, Running, Vm, VmConfig};
use hyperstart::Code;
use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    ResizeVolumeRequest, Storage as WireStorage, UpdateEphemeralMountsRequest, VolumeStatsRequest,
};
use hyperstart_protocol::csi::VolumeStatsResponse;
use serde_json::json;

const MIB: u64 = 1 << 20;

fn usage(vm: &Vm, path: &str) -> Result<VolumeStatsResponse, Reply> {
    let request = VolumeStatsRequest { volume_guest_path: path.into(), ..Default::default() };
    vm.agent("GetVolumeStats", &request)
}

/// Total, used and available bytes; total inodes.
fn figures(vm: &Vm, path: &str) -> [u64; 4] {
    let usage = usage(vm, path).unwrap_or_else(|err| panic!("{err:?}")).usage;
    let [bytes, inodes] = &usage[..] else { panic!("{} units", usage.len()) };
    assert_eq!((bytes.unit.value(), inodes.unit.value()), (1, 2));
    [bytes.total, bytes.used, bytes.available, inodes.total]
}

fn resize(vm: &Vm, path: &str, size: u64) -> Result<Empty, Reply> {
    let request =
        ResizeVolumeRequest { volume_guest_path: path.into(), size, ..Default::default() };
    vm.agent("ResizeVolume", &request)
}

fn remount(vm: &Vm, driver: &str, mount_point: &str, options: &[&str]) -> Result<Empty, Reply> {
    let storage = WireStorage {
        driver: driver.into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: mount_point.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..WireStorage::default()
    };
    let request = UpdateEphemeralMountsRequest { storages: vec![storage], ..Default::default() };
    vm.agent("UpdateEphemeralMounts", &request)
}

/// A container with the disk at /disk, for as long as the test.
fn with_disk<'vm>(vm: &'vm Vm, file: &DiskFile) -> Running<'vm> {
    let run = Run::shell("echo begun; sleep 10000").storage(file.storage(vm, 2));
    let web = vm.start_with("web", &run, |spec| add_mounts(spec, json!([harness::disk::mount()])));
    web.says("begun");
    web
}

/// A tmpfs of the sandbox's takes a new size while a container uses it, with what is in it and with its mount's flags;
/// less than is in it is refused, and so is all that is not an ephemeral storage.
#[test]
fn ephemeral_volume_takes_a_new_size() {
    let vm = Vm::boot(&VmConfig::default());
    let run = Run::shell("echo begun; sleep 10000").storage(tmpfs(VOLUME, &["size=2m", "noexec"]));
    let web = vm.start_with("web", &run, |spec| {
        add_mounts(spec, json!([{ "destination": "/volume", "type": "bind", "source": VOLUME, "options": ["rbind"] }]));
    });
    web.says("begun");
    let fill = |name: &str, mib: u64| {
        let script = format!("dd if=/dev/zero of=/volume/{name} bs=1M count={mib} 2> /dev/null");
        web.exec(name, &Run::shell(&script)).finish().code
    };
    assert_eq!(fill("one", 1), 0);
    assert_ne!(fill("two", 2), 0, "2 MiB held 3");
    // As Kata's runtimes say it.
    remount(&vm, "ephemeral", VOLUME, &["remount", "size=8388608"]).unwrap();
    assert_eq!(figures(&vm, VOLUME)[0], 8 * MIB);
    assert_eq!(fill("two", 4), 0);
    let err = remount(&vm, "ephemeral", VOLUME, &["size=1m"]).unwrap_err();
    assert!(err.is(Code::InvalidArgument) && err.message.contains("remount"), "{err:?}");
    assert_eq!(figures(&vm, VOLUME)[..2], [8 * MIB, 5 * MIB]);
    let mounts = vm.inspect(&Run::busybox(["cat", "/guest/proc/1/mountinfo"]));
    let line = mounts.stdout().lines().find(|line| line.contains(VOLUME)).unwrap().to_owned();
    assert!(line.contains("noexec"), "{line}");
    for (driver, path, options, code, words) in [
        ("ephemeral", VOLUME, "size=9m,mode=0777", Code::Unimplemented, "mode=0777"),
        ("ephemeral", VOLUME, "ro", Code::Unimplemented, "ro"),
        ("ephemeral", VOLUME, "size=much", Code::InvalidArgument, "size=much"),
        ("local", VOLUME, "size=9m", Code::InvalidArgument, "driver \"local\""),
        ("ephemeral", "/run", "size=9m", Code::NotFound, "not found"),
        ("ephemeral", "/run/kata-containers/web/rootfs", "size=9m", Code::NotFound, "not found"),
    ] {
        let err = remount(&vm, driver, path, &[options]).expect_err(words);
        assert!(err.is(code) && err.message.contains(words), "{words}: {err:?}");
    }
    assert_eq!(figures(&vm, VOLUME)[0], 8 * MIB);
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A filesystem grows with its disk while a container writes to it, and what was in it stays: ext4 and XFS. Before the
/// disk has grown, and to less than there is, it is refused.
#[test]
fn volume_grows_with_its_disk() {
    for (filesystem, small, large) in
        [(Filesystem::Ext4, 64 * MIB, 192 * MIB), (Filesystem::Xfs, 320 * MIB, 512 * MIB)]
    {
        let file = disk(filesystem, small);
        let mut machine = VmConfig::default().machine();
        machine.disks.push(file.attached());
        let mut vm = Vm::boot_machine(&machine);
        vm.create_sandbox();
        let web = with_disk(&vm, &file);
        let write = "echo hello > /disk/file; dd if=/dev/urandom of=/disk/data bs=64k count=64 2> /dev/null; sync; md5sum /disk/data";
        let hash = web.exec("write", &Run::shell(write)).finish().stdout().to_owned();
        let before = figures(&vm, GUEST_PATH);
        assert!(before[0] <= small && before[1] > 4 * MIB && before[2] > 0, "{before:?}");
        let err = resize(&vm, GUEST_PATH, large).unwrap_err();
        assert!(err.is(Code::FailedPrecondition), "{filesystem:?}: {err:?}");
        assert!(err.message.contains("its disk has"), "{err:?}");
        let grow = json!({ "node-name": "disk2-file", "size": large });
        vm.run("grow", vm.machine().qmp().execute("block_resize", grow))
            .unwrap_or_else(|err| panic!("{err}"));
        // The guest hears of it a moment later.
        loop {
            match resize(&vm, GUEST_PATH, large) {
                Ok(_) => break,
                Err(err) => {
                    assert!(err.message.contains("its disk has"), "{filesystem:?}: {err:?}")
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let after = figures(&vm, GUEST_PATH);
        assert!(after[0] > before[0] + (large - small) * 8 / 10, "{before:?} {after:?}");
        resize(&vm, GUEST_PATH, large).unwrap();
        for less in [0, small] {
            let err = resize(&vm, GUEST_PATH, less).unwrap_err();
            assert!(err.is(Code::InvalidArgument), "{filesystem:?} {less}: {err:?}");
            assert!(err.message.contains("does not shrink"), "{err:?}");
        }
        let fill = format!(
            "dd if=/dev/zero of=/disk/more bs=1M count={} 2>&1 && cat /disk/file && md5sum /disk/data",
            small / MIB
        );
        let said = web.exec("fill", &Run::shell(&fill)).finish();
        assert!(said.code == 0 && said.stdout().ends_with(&format!("hello\n{hash}")), "{said:?}");
        web.kill();
        web.remove();
        vm.power_off();
    }
}

/// What is no storage of the sandbox's is no volume, whatever is mounted there; a tmpfs is not grown.
#[test]
fn only_volumes_of_the_sandbox_are_volumes() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    for path in [
        "/",
        "/proc",
        "/run",
        "/run/kata-containers",
        "",
        "relative",
        &format!("{VOLUME}/below"),
        &format!("{VOLUME}/../volume"),
    ] {
        let err = usage(&vm, path).unwrap_err();
        assert!(err.is(Code::NotFound) && err.message.contains("not found"), "{path}: {err:?}");
        let err = resize(&vm, path, MIB).unwrap_err();
        assert!(err.is(Code::NotFound) && err.message.contains("not found"), "{path}: {err:?}");
    }
    let [total, used, available, inodes] = figures(&vm, VOLUME);
    assert!(total > MIB && available == total - used && inodes > 0);
    let err = resize(&vm, VOLUME, 64 * MIB).unwrap_err();
    assert!(err.is(Code::Unimplemented) && err.message.contains("ext4 and xfs"), "{err:?}");
    holder.remove();
    assert!(usage(&vm, VOLUME).unwrap_err().is(Code::NotFound));
    vm.shutdown();
}
