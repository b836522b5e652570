//! Directories of the host in a guest, by virtio-fs and by 9p, and what a guest that is hostile reaches through them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::volume::add_mounts;
use harness::{Run, Vm, VmConfig, add_capabilities};
use hyperstart::Storage;
use hyperstart_vmm::{Machine, Share, ShareKind, virtiofs};
use oci_spec::runtime::{Capability, Spec};
use serde_json::json;

/// A share of each kind, a read-only one of each, and a secret beside them.
struct Shares {
    place: tempfile::TempDir,
}

const KINDS: [(ShareKind, &str); 2] = [(ShareKind::NineP, "p9"), (ShareKind::VirtioFs, "vfs")];

impl Shares {
    fn new() -> Self {
        virtiofs::usable().unwrap_or_else(|err| panic!("{err}"));
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        fs::write(place.path().join("outside/secret"), "secret\n").unwrap();
        for (_, name) in KINDS {
            let (share, fixed) = (place.path().join(name), place.path().join(format!("{name}-ro")));
            fs::create_dir_all(share.join("real")).unwrap();
            fs::create_dir(&fixed).unwrap();
            fs::write(fixed.join("file"), "fixed\n").unwrap();
            symlink("../outside", share.join("link")).unwrap();
            symlink(place.path().join("outside"), share.join("absolute")).unwrap();
        }
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn machine(&self) -> Machine {
        let mut machine = VmConfig { memory_mib: 192, ..VmConfig::default() }.machine();
        for (kind, name) in KINDS {
            for (tag, read_only) in [(name.to_owned(), false), (format!("{name}-ro"), true)] {
                machine.shares.push(Share { kind, path: self.path(&tag), tag, read_only });
            }
        }
        machine
    }

    fn assert_outside_untouched(&self) {
        let left: Vec<_> = fs::read_dir(self.path("outside")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::read_to_string(self.path("outside/secret")).unwrap(), "secret\n");
    }
}

fn storage(kind: ShareKind, tag: &str) -> Storage {
    match kind {
        ShareKind::NineP => Storage::share(tag, false),
        ShareKind::VirtioFs => Storage::virtio_fs(tag, false),
    }
}

/// A container with all that it takes to be hostile, and the shares at their names below /s.
fn run(vm: &Vm, script: &str, read_only: bool) -> String {
    let mut run = Run::shell(script);
    let mut mounts = Vec::new();
    for (kind, name) in KINDS {
        let tag = if read_only { format!("{name}-ro") } else { name.to_owned() };
        let storage = storage(kind, &tag);
        mounts.push(json!({
            "destination": format!("/s/{name}"), "type": "bind", "source": storage.mount_point, "options": ["rbind"],
        }));
        run = run.storage(storage);
    }
    let said = vm.finish_with("hostile", &run, |spec: &mut Spec| {
        add_capabilities(spec, &[Capability::SysAdmin, Capability::Mknod, Capability::DacOverride]);
        add_mounts(spec, json!(mounts));
    });
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout().to_owned()
}

/// What the guest writes is the host's, with its owner and mode, and what the host writes is seen. Where the host shares
/// for reading, no mount option of the guest's makes it more.
fn shares_are_the_hosts_directories(shares: &Shares, vm: &Vm) {
    for (_, name) in KINDS {
        fs::write(shares.path(name).join("in"), format!("to {name}\n")).unwrap();
    }
    let script = "cd /s; for s in *; do cat $s/in; echo from $s > $s/out; chmod 640 $s/out; chown 5:6 $s/out; \
                  mkdir $s/d; mv $s/out $s/d/out; ln $s/d/out $s/hard; done";
    assert_eq!(run(vm, script, false), "to p9\nto vfs\n");
    for (_, name) in KINDS {
        let path = shares.path(name).join("d/out");
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("from {name}\n"));
        assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (5, 6, 2), "{name}");
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
    }
    let script = "cd /s; for s in *; do mount -o remount,rw /s/$s; cat $s/file; echo x > $s/file; touch $s/new; \
                  rm $s/file; mkdir $s/d; done 2> /dev/null; true";
    assert_eq!(run(vm, script, true), "fixed\nfixed\n");
    for (_, name) in KINDS {
        let directory = shares.path(&format!("{name}-ro"));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "fixed\n");
    }
}

/// Links out of a share, relative and absolute, `..`, and device nodes.
fn links_lead_nowhere(shares: &Shares, vm: &Vm) {
    let script = "cd /s; for s in *; do for p in link absolute ../outside link/../../outside ../../../../../tmp; do \
                  cat $s/$p/secret; echo x > $s/$p/new; done; mknod $s/null c 1 3; mknod $s/sda b 8 0; \
                  ln -s / $s/root; done 2> /dev/null; true";
    assert_eq!(run(vm, script, false), "", "nothing of the host's was read");
    shares.assert_outside_untouched();
    for (_, name) in KINDS {
        for entry in fs::read_dir(shares.path(name)).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            assert!(!kind.is_block_device() && !kind.is_char_device(), "{entry:?} of {name}");
        }
    }
}

/// A directory and a link that are renamed over and over, while names below them are opened, read, written and made.
fn races_lead_nowhere(shares: &Shares, vm: &Vm) {
    let script = "cd /s; for s in *; do \
                  (i=0; while [ $i -lt 60 ]; do mv $s/real $s/d1; mv $s/d1 $s/real; mv $s/link $s/d1; mv $s/d1 $s/link; \
                   i=$((i + 1)); done) & \
                  (i=0; while [ $i -lt 60 ]; do cat $s/d1/secret; echo x > $s/d1/new; echo x > $s/d1/secret; \
                   mkdir $s/d1/made; mv $s/in $s/d1/moved; i=$((i + 1)); done) & done 2> /dev/null; wait; true";
    let read = run(vm, script, false);
    assert!(!read.contains("secret"), "{read}");
    shares.assert_outside_untouched();
}

/// A config map in a share, as Kubernetes lays it out and changes it: containers see the change in their copy, which is in
/// memory; a directory that is larger than such are is the share's own.
fn watched_directory_follows(shares: &Shares, vm: &Vm) {
    let (kind, name) = KINDS[1];
    let map = shares.path(name).join("map");
    fs::create_dir_all(map.join("..1")).unwrap();
    fs::write(map.join("..1/key"), "one\n").unwrap();
    symlink("..1", map.join("..data")).unwrap();
    symlink("..data/key", map.join("key")).unwrap();
    let large = shares.path(name).join("large");
    fs::create_dir(&large).unwrap();
    (0..20).for_each(|index| fs::write(large.join(index.to_string()), "x").unwrap());
    let share = storage(kind, name);
    let watched = |from: &str| Storage {
        driver: "watchable-bind".into(),
        source: format!("{}/{from}", share.mount_point),
        fstype: "bind".into(),
        options: vec!["rbind".into(), "ro".into()],
        mount_point: format!("/run/kata-containers/shared/containers/watchable/{from}"),
        ..Storage::default()
    };
    let bind = |from: &str| {
        json!({
            "destination": format!("/{from}"), "type": "bind", "source": watched(from).mount_point, "options": ["rbind", "ro"],
        })
    };
    let script = "grep -E ' /(map|large) ' /proc/mounts | awk '{ print $3 }'; cat /map/key; \
                  while [ $(cat /map/key) = one ]; do sleep 1; done; cat /map/key; ls /map/..1 2> /dev/null | wc -l";
    let run =
        Run::shell(script).storage(share.clone()).storage(watched("map")).storage(watched("large"));
    let web = vm
        .start_with("watched", &run, |spec| add_mounts(spec, json!([bind("map"), bind("large")])));
    for line in ["tmpfs", "virtiofs", "one"] {
        web.says(line);
    }
    fs::create_dir(map.join("..2")).unwrap();
    fs::write(map.join("..2/key"), "two\n").unwrap();
    symlink("..2", map.join("new")).unwrap();
    fs::rename(map.join("new"), map.join("..data")).unwrap();
    fs::remove_dir_all(map.join("..1")).unwrap();
    let said = web.finish();
    assert!(said.stdout().ends_with("two\n0\n") || said.stdout().ends_with("two\n1\n"), "{said:?}");
    web.remove();
    let bad =
        Run::probe(["exit", "0"]).storage(Storage { source: "/etc".into(), ..watched("map") });
    let err = vm.try_create("bad", &bad, |_| {}).expect_err("outside of /run");
    assert!(err.message().contains("source"), "{err}");
}

/// A directory that is shared is what the guest gets, and all that it gets: by virtio-fs and by 9p, whatever its containers
/// do in it. The host swaps a directory for a link, too. The daemons go with their VM.
#[test]
fn shares_confine_a_hostile_guest() {
    let shares = Shares::new();
    let mut vm = Vm::boot_machine(&shares.machine());
    vm.create_sandbox();
    shares_are_the_hosts_directories(&shares, &vm);
    links_lead_nowhere(&shares, &vm);
    races_lead_nowhere(&shares, &vm);
    watched_directory_follows(&shares, &vm);
    assert_eq!(daemons_of(&shares.path("vfs")), 2, "a daemon and its guardian");
    vm.power_off();
    drop(vm);
    assert_eq!(daemons_of(&shares.path("vfs")), 0);
}

/// Processes that have this directory as an argument.
fn daemons_of(path: &Path) -> usize {
    let wanted = path.display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|words| String::from_utf8_lossy(words).split('\0').any(|word| word == wanted))
        .count()
}
