//! What a container or its image could reach on the host: the share, QEMU itself, sockets and directories, and what a
//! bundle says. Rows of Kata's and containerd's.

use crate::escape::weakest;
use harness::command::Place;
use harness::{Run, Vm, VmConfig, guest};
use hyperstart::Storage;
use oci_spec::runtime::{Capability, MountBuilder, Spec};
use serde_json::{Value, json};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// A share with a directory in it, and a secret outside.
struct Shared {
    place: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("share/directory")).unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        fs::write(place.path().join("outside/secret"), "secret\n").unwrap();
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn boot(&self) -> Vm {
        let shares = vec![(self.path("share"), "share".to_owned())];
        Vm::boot(&VmConfig { shares, ..VmConfig::default() })
    }

    /// A container that has the share at /share.
    fn run(&self, script: &str) -> Run {
        let options = ["trans=virtio", "version=9p2000.L", "cache=none"];
        Run::shell(script).storage(Storage {
            driver: "9p".to_owned(),
            source: "share".to_owned(),
            fstype: "9p".to_owned(),
            options: options.map(str::to_owned).into(),
            mount_point: "/run/kata-containers/sandbox/share".into(),
            ..Storage::default()
        })
    }

    fn assert_outside_untouched(&self) {
        let left: Vec<_> = fs::read_dir(self.path("outside")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::read_to_string(self.path("outside/secret")).unwrap(), "secret\n");
    }
}

fn with_share(spec: &mut Spec) {
    weakest(spec, &[Capability::Mknod, Capability::SysAdmin]);
    let mount = MountBuilder::default().source("/run/kata-containers/sandbox/share");
    let mount = mount.destination("/share").typ("bind").options(vec!["bind".to_owned()]);
    let mut mounts = spec.mounts().clone().unwrap();
    mounts.push(mount.build().unwrap());
    spec.set_mounts(Some(mounts));
}

/// A link that a container makes in a share leads it nowhere on the host; and when a directory that it holds has become
/// such a link, be it by another's hand, QEMU does not follow it either.
#[test]
fn cve_2026_47243_the_share_stays_inside() {
    let shared = Shared::new();
    let vm = shared.boot();
    let outside = shared.path("outside").display().to_string();
    let script = format!(
        "ln -s {outside} /share/link; cat /share/link/secret; echo x > /share/link/planted; ls /share"
    );
    let said = vm.finish_with("link", &shared.run(&script), with_share);
    assert_eq!(said.stdout(), "directory\nlink\n", "{said:?}");
    assert_eq!(fs::read_link(shared.path("share/link")).unwrap(), shared.path("outside"));
    shared.assert_outside_untouched();

    let script = "cd /share/directory; echo x > before; echo ready; read -r line; echo x > planted; cat secret; ls";
    let web = vm.create_with("swap", &shared.run(script).stdin(b"go\n"), with_share);
    vm.run("start", web.container().start()).unwrap();
    web.says("ready");
    assert!(shared.path("share/directory/before").exists(), "what it writes reaches the share");
    fs::rename(shared.path("share/directory"), shared.path("share/moved")).unwrap();
    symlink(shared.path("outside"), shared.path("share/directory")).unwrap();
    let said = web.finish();
    assert!(!said.stdout().contains("secret"), "{said:?}");
    web.remove();
    shared.assert_outside_untouched();
    vm.shutdown();
}

/// No device node comes into being on the host, whatever the container's capabilities: QEMU has not the right.
#[test]
fn cve_2026_47243_no_device_is_made_in_a_share() {
    let shared = Shared::new();
    let vm = shared.boot();
    let script = "mknod /share/null c 1 3; touch /share/file; chown 7:8 /share/file; chmod 4755 /share/file; \
                  ls /share";
    let said = vm.finish_with("web", &shared.run(script), with_share);
    assert_eq!(said.stdout(), "directory\nfile\n", "{said:?}");
    assert!(!shared.path("share/null").exists());
    let file = fs::metadata(shared.path("share/file")).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777),
            (7, 8, 0o4755),
            "a share keeps owners"
        );
    }
    vm.shutdown();
}

/// QEMU runs confined: by a seccomp filter of its own, without the way to new privileges, with the few capabilities
/// that it needs.
#[test]
fn cve_2026_47243_qemu_is_confined() {
    const USELESS: [u32; 5] = [12, 16, 19, 21, 27]; // net_admin, sys_module, sys_ptrace, sys_admin, mknod
    let shared = Shared::new();
    let vm = shared.boot();
    let status = fs::read_to_string(format!("/proc/{}/status", vm.machine().pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    assert_eq!((field("Seccomp").as_str(), field("NoNewPrivs").as_str()), ("2", "1"));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let bits = u64::from_str_radix(&field(set), 16).unwrap();
        // Who is not root keeps a bounding set that gives nothing under no_new_privs.
        let counts = set != "CapBnd" || rustix::process::geteuid().is_root();
        assert!(!counts || USELESS.iter().all(|bit| bits >> bit & 1 == 0), "{set}: {bits:x}");
    }
    let words = fs::read(format!("/proc/{}/cmdline", vm.machine().pid())).unwrap();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    assert!(words.contains("-sandbox on,") && words.contains("spawn=deny"), "{words}");
    vm.kill();
}

/// Everything of a running pod is its owner's alone, and nothing of it listens at an abstract address.
#[test]
fn cve_2020_15257_cve_2021_41103_cve_2024_25621_a_pods_files_are_private() {
    for transport in ["serial", "vhost-user-vsock"] {
        let place = Place::new();
        let words =
            ["run", "-d", "--name", "pod", "--transport", transport, "busybox", "sleep", "1000"];
        place.run(words).ok();
        let (mut sockets, mut directories) = (0, 0);
        for path in tree(&place.state()) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let open_to_others = meta.permissions().mode() & 0o077;
            assert_eq!(open_to_others, 0, "{path:?}: {:o}", meta.mode());
            sockets += u32::from(meta.file_type().is_socket());
            directories += u32::from(meta.is_dir());
        }
        assert!(sockets >= 2 && directories >= 3, "{sockets} sockets, {directories} directories");
        let pids: Vec<u32> = place.processes().into_iter().map(|(pid, _)| pid).collect();
        assert!(pids.len() >= 2, "{pids:?}");
        assert_eq!(abstract_sockets(&pids), Vec::<String>::new());
        place.run(["rm", "-f", "pod"]).ok();
        place.assert_nothing_left();
    }
    let address =
        SocketAddr::from_abstract_name(format!("planted-{}", std::process::id())).unwrap();
    let planted = UnixListener::bind_addr(&address).unwrap();
    assert_eq!(abstract_sockets(&[std::process::id()]).len(), 1, "the scan finds a planted one");
    drop(planted);
}

/// A directory and all below it.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

/// Abstract addresses of sockets that these processes hold.
fn abstract_sockets(pids: &[u32]) -> Vec<String> {
    let held = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
    };
    let inodes: Vec<String> = pids
        .iter()
        .flat_map(held)
        .filter_map(|target| {
            let target = target.display().to_string();
            Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let named = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = fields.get(6).is_some_and(|inode| inodes.iter().any(|held| held == inode));
        inode && fields.get(7).is_some_and(|name| name.starts_with('@'))
    });
    named.map(str::to_owned).collect()
}

/// Stands for QEMU: notes its arguments and, if it shall, becomes QEMU.
fn noting_qemu(place: &Place, becomes: bool) -> PathBuf {
    let (script, note) = (place.path("noting-qemu"), place.path("note"));
    let then = if becomes { "exec qemu-system-x86_64 \"$@\"" } else { "exit 1" };
    let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\n{then}\n", note.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// A bundle that runs `words` of busybox, after `change` of its config.json.
fn bundle(place: &Place, words: &[&str], change: impl FnOnce(&mut Value)) -> String {
    let bundle = place.path("bundle");
    fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).unwrap();
    let mut config: Value = serde_json::from_str(include_str!("bundle/config.json")).unwrap();
    config["process"]["args"] = words.into();
    change(&mut config);
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle.display().to_string()
}

/// Annotations name a hypervisor, a kernel and an image, as Kata takes them, and nobody runs or opens those.
#[test]
fn cve_2020_27151_annotations_choose_no_programs() {
    let mut place = Place::new();
    let (qemu, note) = (noting_qemu(&place, false), place.path("note"));
    let path = bundle(&place, &["/bin/busybox", "echo", "ran"], |config| {
        config["annotations"] = json!({
            "io.katacontainers.config.hypervisor.path": qemu,
            "io.katacontainers.config.hypervisor.virtio_fs_daemon": qemu,
            "io.katacontainers.config.hypervisor.kernel": "/no/such/kernel",
            "io.katacontainers.config.hypervisor.image": "/no/such/image",
        });
    });
    assert_eq!(place.run(["run", "--rm", "--bundle", &path]).ok(), "ran\n");
    assert!(!note.exists(), "an annotation's program was run");
    place.set("HYPERSTART_QEMU", &qemu);
    assert_eq!(place.run(["run", "--rm", "--bundle", &path]).code, 125);
    assert!(note.exists(), "the user's own choice is run: the note would have been made");
    place.assert_nothing_left();
}

/// An empty root is an error of the container, and what QEMU gets of it is a directory and never a disk of the host's.
#[test]
fn cve_2026_24054_an_empty_rootfs_is_no_block_device() {
    let mut place = Place::new();
    let (qemu, note) = (noting_qemu(&place, true), place.path("note"));
    place.set("HYPERSTART_QEMU", &qemu);
    let path = bundle(&place, &["/bin/busybox", "true"], |_| {});
    fs::remove_dir_all(place.path("bundle/rootfs/bin")).unwrap();
    let said = place.run(["run", "--rm", "--bundle", &path]);
    assert!(said.code == 127 && said.stderr.contains("/bin/busybox"), "{said:?}");
    let words = fs::read_to_string(&note).unwrap();
    assert!(words.contains("-fsdev"), "{words}");
    assert!(!words.contains("-blockdev") && !words.contains("host_device"), "{words}");
    place.run(["run", "--rm", "busybox", "true"]).ok();
    assert!(fs::read_to_string(&note).unwrap().contains("-blockdev"), "an image is a disk");
    fs::remove_dir_all(place.path("bundle/rootfs")).unwrap();
    fs::write(place.path("bundle/rootfs"), "not a directory").unwrap();
    let said = place.run(["run", "--rm", "--bundle", &path]);
    assert!(said.code == 125 && said.stderr.contains("rootfs"), "{said:?}");
    place.assert_nothing_left();
}

/// A rootfs that somebody has made a link of is refused: the host does not share what is behind it.
#[test]
fn cve_2020_2026_a_rootfs_that_is_a_link_is_refused() {
    let place = Place::new();
    let path = bundle(&place, &["/bin/busybox", "true"], |_| {});
    place.run(["run", "--rm", "--bundle", &path]).ok();
    let rootfs = place.path("bundle/rootfs");
    fs::rename(&rootfs, place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), &rootfs).unwrap();
    let said = place.run(["run", "--rm", "--bundle", &path]);
    assert!(said.code == 125 && said.stderr.contains("symbolic link"), "{said:?}");
    place.assert_nothing_left();
}

/// A container that fills its root with links to the host's directories: stopping it unmounts and removes nothing of
/// the host's.
#[test]
fn cve_2020_2024_a_stop_unmounts_nothing_of_the_hosts() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = Place::new();
    let canary = place.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "alive").unwrap();
    let script = format!(
        "busybox rm -rf /proc /dev /sys /run /tmp 2>/dev/null; for name in run tmp rootfs vm shared; do \
         busybox ln -s {} /$name; done; busybox ln -s / /root-of-all; busybox sleep 1000",
        canary.display()
    );
    let path = bundle(&place, &["/bin/busybox", "sh", "-c", &script], |config| {
        config["process"]["env"] = json!(["PATH=/bin"]);
    });
    let before = mounts();
    assert!(before.lines().count() > 1, "{before}");
    place.run(["run", "-d", "--name", "pod", "--bundle", &path]).ok();
    harness::command::until("the links", || {
        fs::symlink_metadata(place.path("bundle/rootfs/root-of-all")).is_ok()
    });
    place.run(["rm", "-f", "pod"]).ok();
    place.assert_nothing_left();
    assert_eq!(mounts(), before);
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "alive");
    assert_eq!(fs::read_link(place.path("bundle/rootfs/run")).unwrap(), canary);
}

/// Paths and names that an image's description gives lead up and out, and stay inside of its root.
#[test]
fn cve_2022_23648_an_images_paths_stay_in_its_root() {
    let place = Place::new();
    let image = place.path("evil.erofs");
    fs::copy(guest::file("images/busybox.erofs"), &image).unwrap();
    let text = fs::read_to_string(guest::file("images/busybox.json")).unwrap();
    let run = |change: &dyn Fn(&mut Value)| {
        let mut description: Value = serde_json::from_str(&text).unwrap();
        change(&mut description["config"]);
        fs::write(image.with_extension("json"), description.to_string()).unwrap();
        let script = "pwd; ls -d /init /run/kata-containers; grep -c /etc /proc/self/mounts";
        let path = image.to_str().unwrap();
        place.run(["run", "--rm", path, "sh", "-c", script])
    };
    let plain = run(&|_| {});
    assert_eq!(plain.stdout, "/\n0\n", "{plain:?}");
    let volume = run(&|config| config["Volumes"] = json!({"/../../etc": {}, "/../../../": {}}));
    assert!(volume.code == 125 && volume.stdout.is_empty(), "{volume:?}");
    assert!(volume.stderr.contains("/../../"), "{volume:?}");
    let up = run(&|config| config["WorkingDir"] = "/../../../etc".into());
    assert_eq!(up.stdout, "/etc\n0\n", "{up:?}");
    for (field, value, code) in [
        ("WorkingDir", "../../etc", 125),
        ("WorkingDir", "/proc/1/root/../../run", 0),
        ("User", "../../../etc/passwd", 125),
    ] {
        let said = run(&|config| config[field] = value.into());
        let refused = code != 0 && said.code == code && said.stdout.is_empty();
        let inside = code == 0 && !said.stdout.contains("kata");
        assert!(refused || inside, "{field} {value}: {said:?}");
    }
    place.assert_nothing_left();
}
