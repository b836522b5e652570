//! Ways out through devices: the guest's disks, its root, its console, the agent's line. Named after what Kata had:
//! CVE-2020-2023 and CVE-2026-24834, and CVE-2020-2025 for what stays on the host.

use crate::escape::{hash_of_init, weakest};
use harness::{Facts, Mode, Run, Vm, VmConfig, guest};
use hyperstart_vmm::TransportKind;
use oci_spec::runtime::{Capability, LinuxDeviceCgroupBuilder, LinuxResourcesBuilder, Spec};
use std::fs;
use std::path::PathBuf;

const EPERM: &str = "1";
const ENOENT: &str = "2";
const EBUSY: &str = "16";
/// What any container may make and open: OCI "Default Devices", and the terminals.
const ALLOWED: [&str; 7] = ["c:1:3", "c:1:5", "c:1:7", "c:1:8", "c:1:9", "c:5:0", "c:5:2"];
/// The guest's console, and its kernel's memory and log: not all of them are in /sys.
const MORE: [&str; 4] = ["c:5:1", "c:1:1", "c:1:2", "c:1:11"];

/// A container may make and open no device but the usual ones, though it has CAP_MKNOD and nothing else holds it; and
/// it leaves guest and images as they were.
fn only_the_usual_devices_open(mode: Mode) {
    let vm = Vm::boot(&VmConfig { mode, ..VmConfig::default() });
    let before = (hash_of_init(&vm), hashes_of_images());
    let weak = |spec: &mut Spec| weakest(spec, &[Capability::Mknod, Capability::DacReadSearch]);
    let every = vm.finish_with("every", &Run::probe(["all-nodes"]), weak).facts();
    let more = vm
        .finish_with("more", &Run::probe(["nodes", MORE[0], MORE[1], MORE[2], MORE[3]]), weak)
        .facts();
    let block = every.below("node.b:").len() / 3;
    assert!(block >= 2, "there are disks to be refused: {every:?}");
    for facts in [&every, &more] {
        for (name, answer) in facts.below("node.") {
            let (number, step) = name.rsplit_once('.').unwrap();
            let expected = match step {
                _ if ALLOWED.contains(&number) => "ok",
                "make" => EPERM,
                _ => ENOENT,
            };
            // Terminals are opened by who has one, and beside a devpts.
            let needs_more = ["c:5:0", "c:5:2"].contains(&number) && step != "make";
            assert!(answer == expected || needs_more, "{name}: {answer}");
        }
    }
    assert_eq!((every.get("node.c:1:3.make"), every.get("node.c:1:3.write")), ("ok", "ok"));
    assert_eq!((hash_of_init(&vm), hashes_of_images()), before);
    vm.shutdown();
}

/// With an initrd.
#[test]
fn cve_2020_2023_only_the_usual_devices_open() {
    only_the_usual_devices_open(Mode::Initrd);
}

/// With the guest's root in persistent memory.
#[test]
fn cve_2026_24834_only_the_usual_devices_open_with_dax() {
    only_the_usual_devices_open(Mode::Dax);
}

/// Every device, as a privileged container has them.
fn every_device(spec: &mut Spec) {
    let capabilities = [Capability::Mknod, Capability::SysAdmin, Capability::SysRawio];
    weakest(spec, &capabilities);
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build().unwrap();
    let resources = LinuxResourcesBuilder::default().devices(vec![rule]).build().unwrap();
    let mut linux = spec.linux().clone().unwrap();
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
}

/// Even to a container that was given every device the guest's own root is refused, and what it writes to an image's
/// disk is neither in the guest nor on the host.
#[test]
fn cve_2026_24834_the_root_is_refused_to_who_has_every_device() {
    let vm = Vm::boot(&VmConfig { mode: Mode::Dax, ..VmConfig::default() });
    let before = (hash_of_init(&vm), hashes_of_images());
    let every = vm.finish_with("every", &Run::probe(["all-nodes"]), every_device).facts();
    let (root, image) = (number_of(&vm, "pmem0"), number_of(&vm, "pmem1"));
    let answer = |number: &str, step: &str| every.get(&format!("node.{number}.{step}")).to_owned();
    assert_eq!((answer(&root, "make"), answer(&root, "read")), (EPERM.into(), ENOENT.into()));
    assert_eq!((answer(&image, "make"), answer(&image, "read")), ("ok".into(), "ok".into()));
    // devtmpfs has a node for the root already; its rule is about opening too.
    let (major, minor) = image.trim_start_matches("b:").split_once(':').unwrap();
    let script = format!(
        "mkdir /tmp/dev; mount -t devtmpfs dev /tmp/dev; cat /tmp/dev/pmem0 2>&1 >/dev/null | sed 's/.*: /root: /'; \
         mknod /tmp/image b {major} {minor}; head -c 65536 /tmp/image | sha256sum; \
         head -c 65536 /dev/zero 2>/dev/null | tr '\\0' x | dd of=/tmp/image conv=notrunc 2>/dev/null; \
         echo 3 > /proc/sys/vm/drop_caches; head -c 65536 /tmp/image | sha256sum"
    );
    let said = vm.finish_with("writes", &Run::shell(&script), every_device);
    let lines: Vec<&str> = said.stdout().lines().collect();
    assert_eq!(lines.first(), Some(&"root: Operation not permitted"), "{said:?}");
    assert!(lines.len() == 3 && lines[1] == lines[2], "the image has changed: {said:?}");
    assert_eq!((hash_of_init(&vm), hashes_of_images()), before);
    vm.shutdown();
}

/// The agent's line is PID 1's alone, also where a container may open every device.
#[test]
fn the_agents_serial_port_is_busy() {
    let transport = Some(TransportKind::Serial);
    let vm = Vm::boot(&VmConfig { transport, ..VmConfig::default() });
    let said = vm.finish("port", &Run::shell("cat /sys/class/virtio-ports/vport*/dev"));
    let ports: Vec<String> = said.stdout().lines().map(|dev| format!("c:{dev}")).collect();
    assert_eq!(ports.len(), 1, "{said:?}");
    let port = &ports[0];
    let open = vm.finish_with("open", &Run::probe(["nodes", port, "c:1:3"]), every_device).facts();
    let answer = |step: &str| open.get(&format!("node.{port}.{step}"));
    assert_eq!((answer("make"), answer("read"), answer("write")), ("ok", EBUSY, EBUSY));
    assert_eq!(open.get("node.c:1:3.write"), "ok");
    vm.shutdown();
}

/// The rules hold against who may load and unload BPF programs, unless the administrator's own capability comes with it.
#[test]
fn device_rules_cannot_be_taken_off() {
    let vm = Vm::boot(&VmConfig::default());
    let detach = |name: &str, capabilities: &[Capability]| -> Facts {
        let run = Run::probe(["detach-device-rules"]);
        vm.finish_with(name, &run, |spec| weakest(spec, capabilities)).facts()
    };
    let bpf = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
    for (name, capabilities) in [("usual", &[][..]), ("bpf", &bpf)] {
        let tried = detach(name, capabilities);
        assert_eq!((tried.get("programs"), tried.get("detached")), ("0", "0"), "{name}: {tried:?}");
        assert_eq!(tried.get("errno.next"), EPERM, "{name}");
    }
    vm.shutdown();
}

/// `b:MAJOR:MINOR` of a block device of the guest's.
fn number_of(vm: &Vm, name: &str) -> String {
    let said = vm.finish("number", &Run::busybox(["cat", &format!("/sys/class/block/{name}/dev")]));
    assert_eq!(said.code, 0, "{said:?}");
    format!("b:{}", said.stdout().trim())
}

/// What the guest was booted from and what it was given, as it lies on the host.
fn hashes_of_images() -> Vec<(PathBuf, String)> {
    let mut paths = vec![guest::probe_image().to_owned()];
    paths.extend(["initrd.img", "rootfs.erofs", "images/busybox.erofs"].map(guest::file));
    let hash = |path: PathBuf| {
        let hash = harness::sha256(&fs::read(&path).unwrap());
        (path, hash)
    };
    paths.into_iter().map(hash).collect()
}

/// A hash that does not see a change would prove nothing.
#[test]
fn a_changed_image_is_noticed() {
    let mut bytes = fs::read(guest::probe_image()).unwrap();
    let before = harness::sha256(&bytes);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert_ne!(harness::sha256(&bytes), before);
}
