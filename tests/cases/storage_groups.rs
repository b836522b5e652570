//! The group of a volume's files, volumes in the guest's memory, and storages that outlive their containers.

use harness::disk::{Filesystem, disk};
use harness::volume::add_mounts;
use harness::{Run, Vm, VmConfig};
use hyperstart::{Code, FsGroup, Storage};
use oci_spec::runtime::Spec;
use serde_json::json;

const VOLUME: &str = "/run/kata-containers/sandbox/volume";

fn volume(driver: &str, fstype: &str, options: &[&str]) -> Storage {
    Storage {
        driver: driver.into(),
        source: fstype.into(),
        fstype: fstype.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        mount_point: VOLUME.into(),
        ..Storage::default()
    }
}

fn with_mount(spec: &mut Spec, source: &str) {
    let mount =
        json!({ "destination": "/volume", "type": "bind", "source": source, "options": ["rbind"] });
    add_mounts(spec, json!([mount]));
}

/// Runs a script that sees the storage at /volume; it must be content.
fn said(vm: &Vm, script: &str, storage: &Storage) -> String {
    let run = Run::shell(script).storage(storage.clone());
    let place = storage.mount_point.clone();
    let said = vm.finish_with("look", &run, |spec| with_mount(spec, &place));
    assert_eq!((said.code, said.stderr()), (0, ""), "{script}");
    said.stdout().to_owned()
}

/// Each file of a volume gets its group and its group's rights, a link's target does not; where the policy looks at the
/// root alone, what is as it should be is left as it is, and else it is looked at again. A read-only volume is refused.
#[test]
fn files_of_a_volume_become_their_groups() {
    let file = disk(Filesystem::Ext4, 32 << 20);
    let mut machine = VmConfig::default().machine();
    machine.disks.push(file.attached());
    let mut vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let plain = file.storage(&vm, 2);
    let group = |gid, only_if_root_differs| Storage {
        fs_group: Some(FsGroup { gid, only_if_root_differs }),
        ..plain.clone()
    };
    let fill = "cd /volume; umask 077; mkdir d; echo x > d/f; cp /bin/busybox d/s; chmod 4700 d/s; ln -s /etc/passwd d/l";
    said(&vm, fill, &plain);
    let look = "cd /volume; stat -c %g:%a . d d/f d/s; stat -c %g d/l; stat -c %g:%a /etc/passwd";
    let expected = "1234:2775\n1234:2770\n1234:660\n1234:4760\n1234\n0:644\n";
    assert_eq!(said(&vm, look, &group(1234, true)), expected);
    said(&vm, "chmod 600 /volume/d/f", &plain);
    let kept = expected.replace("660", "600");
    assert_eq!(said(&vm, look, &group(1234, true)), kept, "its root is as it would be made");
    assert_eq!(said(&vm, look, &group(1234, false)), expected);
    assert!(said(&vm, look, &group(55, true)).starts_with("55:2775\n55:2770\n55:660\n"));
    let read_only = Storage { options: vec!["ro".into()], ..group(77, false) };
    let run = Run::probe(["exit", "0"]).storage(read_only);
    let err = vm.try_create("ro", &run, |_| {}).expect_err("a read-only volume");
    assert!(err.message().contains("EROFS") && err.message().contains("group"), "{err}");
    assert_eq!(said(&vm, "stat -c %g /volume", &plain), "55\n", "and is mounted again");
    vm.power_off();
}

/// Memory of the guest's as a volume: with its group, as /dev/shm, and of huge pages, which are taken for it and given
/// back; more than there are, and a size that this guest has none of, are errors that leave nothing.
#[test]
fn memory_is_a_volume() {
    let vm = Vm::boot(&VmConfig::default());
    let look = "stat -c %g:%a /volume; grep ' /volume ' /proc/mounts";
    let tmpfs =
        said(&vm, look, &volume("ephemeral", "tmpfs", &["size=1m", "mode=1770", "fsgid=55"]));
    assert!(tmpfs.starts_with("55:3770\n") && tmpfs.contains("size=1024k"), "{tmpfs}");
    let local =
        said(&vm, "stat -c %g:%a /volume", &volume("local", "local", &["mode=0750", "fsgid=7"]));
    assert_eq!(local, "7:2750\n");
    let shm = Storage {
        source: "shm".into(),
        ..volume("ephemeral", "tmpfs", &["mode=1777", "size=65536"])
    };
    assert_eq!(said(&vm, "df -k /volume | awk 'END { print $2 }'", &shm), "64\n");
    let pages = "grep -E 'HugePages_(Total|Free)' /proc/meminfo | awk '{ print $2 }'; grep ' /volume ' /proc/mounts";
    let huge = volume("ephemeral", "hugetlbfs", &["pagesize=2M", "size=4194304"]);
    let held = said(&vm, pages, &huge);
    assert!(
        held.starts_with("2\n2\n") && held.contains("hugetlbfs") && held.contains("size=4194304"),
        "{held}"
    );
    let none =
        vm.finish("none", &Run::shell("grep HugePages_Total /proc/meminfo | awk '{ print $2 }'"));
    assert_eq!(none.stdout(), "0\n");
    for (options, code, words) in [
        (&["pagesize=2M", "size=4g"][..], Code::ResourceExhausted, "give its VM more"),
        (&["pagesize=3M", "size=3M"], Code::Unimplemented, "hugepages-2048kB"),
        (&["size=2M"], Code::InvalidArgument, "pagesize="),
    ] {
        let run = Run::probe(["exit", "0"]).storage(volume("ephemeral", "hugetlbfs", options));
        let err = vm.try_create("bad", &run, |_| {}).expect_err(words);
        assert!(err.code() == code && err.message().contains(words), "{words}: {err}");
    }
    let disk = Run::probe(["exit", "0"]).storage(volume("ephemeral", "ext4", &[]));
    let err = vm.try_create("bad", &disk, |_| {}).expect_err("ext4");
    assert!(err.code() == Code::Unimplemented && err.message().contains("ext4"), "{err}");
    vm.shutdown();
}

/// A storage that is shared stays for the next container when its last one is gone; one that is not is gone with it. A
/// request that fails after it has mounted a shared one leaves none.
#[test]
fn shared_storage_stays_until_the_sandbox_ends() {
    let mut vm = Vm::boot(&VmConfig::default());
    let shared = Storage { shared: true, ..volume("ephemeral", "tmpfs", &[]) };
    let missing = Storage {
        mount_point: "/run/kata-containers/sandbox/other".into(),
        ..volume("teleport", "x", &[])
    };
    let run = Run::probe(["exit", "0"]).storage(shared.clone()).storage(missing);
    let err = vm.try_create("bad", &run, |_| {}).expect_err("teleport");
    assert!(err.message().contains("teleport"), "{err}");
    let mounts =
        || vm.inspect(&Run::busybox(["cat", "/guest/proc/1/mountinfo"])).stdout().to_owned();
    assert!(!mounts().contains(VOLUME), "of a request that failed");
    said(&vm, "echo kept > /volume/file", &shared);
    assert!(mounts().contains(VOLUME));
    let unshared = Storage { shared: false, ..shared.clone() };
    assert_eq!(said(&vm, "cat /volume/file", &unshared), "kept\n");
    assert_eq!(said(&vm, "cat /volume/file", &shared), "kept\n");
    vm.power_off();
}
