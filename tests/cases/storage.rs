//! What the host attaches for containers, and what containers mount of it.

use harness::{Mode, Run, Vm, VmConfig};
use hyperstart::{Code, Storage};
use oci_spec::runtime::{MountBuilder, Spec};
use std::fs;

const VOLUME: &str = "/run/kata-containers/sandbox/volume";

fn storage(driver: &str, source: &str, fstype: &str, options: &[&str]) -> Storage {
    Storage {
        driver: driver.into(),
        source: source.into(),
        fstype: fstype.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        mount_point: VOLUME.into(),
        ..Storage::default()
    }
}

/// Adds a mount to a spec.
fn mount(spec: &mut Spec, fstype: &str, source: &str, destination: &str, options: &[&str]) {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let mount = MountBuilder::default()
        .typ(fstype)
        .source(source)
        .destination(destination)
        .options(options);
    let mut mounts = spec.mounts().clone().unwrap();
    mounts.push(mount.build().unwrap());
    spec.set_mounts(Some(mounts));
}

fn with_volume(spec: &mut Spec) {
    mount(spec, "bind", VOLUME, "/volume", &["rbind", "rw"]);
}

/// A volume in the guest is shared by the containers that name it, and gone with the last of them.
#[test]
fn volume_is_shared_and_gone_with_its_last_user() {
    let vm = Vm::boot(&VmConfig::default());
    let tmpfs = storage("ephemeral", "tmpfs", "tmpfs", &["size=1m"]);
    let holder =
        vm.create_with("holder", &Run::probe(["exit", "0"]).storage(tmpfs.clone()), with_volume);
    let write =
        Run::shell("echo hello > /volume/file; stat -f -c %b*%S /volume").storage(tmpfs.clone());
    let said = vm.finish_with("writer", &write, with_volume);
    assert_eq!((said.code, said.stderr()), (0, ""));
    let read = Run::shell("cat /volume/file").storage(tmpfs.clone());
    assert_eq!(vm.finish_with("reader", &read, with_volume).stdout(), "hello\n");
    holder.remove();
    assert_eq!(vm.finish_with("late", &read, with_volume).code, 1, "the volume outlived its users");
    vm.shutdown();
}

/// A plain directory of the guest's is a volume with the mode that was asked for.
#[test]
fn local_directory_has_its_mode() {
    let vm = Vm::boot(&VmConfig::default());
    let run = Run::shell("stat -c %a /volume").storage(storage(
        "local",
        "local",
        "local",
        &["mode=0751"],
    ));
    assert_eq!(vm.finish_with("web", &run, with_volume).stdout(), "751\n");
    vm.shutdown();
}

/// A directory of the host is seen and written by 9p, in both boot modes.
#[test]
fn host_directory_is_shared() {
    for mode in [Mode::Initrd, Mode::Dax] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("in"), "from the host\n").unwrap();
        let shares = vec![(directory.path().to_owned(), "share".to_owned())];
        let vm = Vm::boot(&VmConfig { mode, shares, ..VmConfig::default() });
        let options = ["trans=virtio", "version=9p2000.L", "cache=mmap", "msize=262144"];
        let run = Run::shell("cat /volume/in; echo from the guest > /volume/out")
            .storage(storage("9p", "share", "9p", &options));
        assert_eq!(vm.finish_with("web", &run, with_volume).stdout(), "from the host\n");
        assert_eq!(fs::read_to_string(directory.path().join("out")).unwrap(), "from the guest\n");
        vm.shutdown();
    }
}

/// Mount options of the spec are honoured: size, mode, read-only, noexec.
#[test]
fn mount_options_are_honoured() {
    let vm = Vm::boot(&VmConfig::default());
    let script = "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t; cp /bin/busybox /t/; /t/busybox true; echo $?; \
                  echo x > /etc-ro/passwd; grep -c alice /etc-ro/passwd";
    let said = vm.finish_with("web", &Run::shell(script), |spec| {
        mount(spec, "tmpfs", "tmpfs", "/t", &["size=4m", "mode=1700", "noexec", "nosuid"]);
        mount(spec, "bind", "/run", "/etc-ro", &["bind", "ro"]);
    });
    let lines: Vec<&str> = said.stdout().lines().collect();
    assert_eq!(lines[..3], ["4096", "1700", "126"], "{said:?}");
    assert!(said.stderr().contains("Read-only file system"), "{said:?}");
    vm.shutdown();
}

/// A driver that this guest does not have, and a device that does not come, are errors with their names, in time.
#[test]
fn what_cannot_be_mounted_is_said_by_name() {
    let vm = Vm::boot(&VmConfig {
        cmdline: vec!["agent.hotplug_timeout=1".into()],
        ..VmConfig::default()
    });
    let refused = |name: &str, storage: Storage| {
        let run = Run::probe(["exit", "0"]).storage(storage);
        vm.try_create(name, &run, |_| {}).expect_err(name)
    };
    let err = refused("driver", storage("teleport", "x", "ext4", &[]));
    assert!(err.code() == Code::Unimplemented && err.message().contains("teleport"), "{err}");
    let err = refused("device", storage("mmioblk", "/dev/vdz", "ext4", &[]));
    assert!(err.message().ends_with("\"/dev/vdz\": not there after 1 s"), "{err}");
    let err = refused("tag", storage("9p", "no-such-tag", "9p", &["trans=virtio"]));
    assert!(err.message().contains("no-such-tag"), "{err}");
    let mut outside = storage("local", "local", "local", &[]);
    outside.mount_point = "/run/../etc".into();
    let err = refused("outside", outside);
    assert!(err.code() == Code::InvalidArgument && err.message().contains("mount point"), "{err}");
    assert_eq!(vm.finish("driver", &Run::probe(["exit", "4"])).code, 4, "the id is free");
    vm.shutdown();
}
