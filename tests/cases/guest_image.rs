//! The guest's own image: mapped where it can be and proved to be, checked where it shall be, checked before anything is
//! started, and with a shell only where one was put into it.

use harness::command::Place;
use harness::vm::Mode;
use harness::{PATIENCE, Vm, VmConfig, guest};
use hyperstart_vmm::Boot;
use serde_json::{Value, json};
use sha2::Digest;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Made by `image-builder rootfs` from the real init.
fn rootfs(directory: &Path, name: &str, words: &[&str]) -> PathBuf {
    let output = directory.join(name);
    let built = Command::new(guest::binary("image-builder"))
        .args(["rootfs", "--init"])
        .arg(guest::payload("init"))
        .args(words)
        .arg("--output")
        .arg(&output)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    output
}

/// `make image` says what its files are made of: their own hashes, each crate that is in init with the checksum that is
/// pinned, the kernel with the hash of its configuration, tools. And the default image has init and nothing else.
#[test]
fn what_the_images_are_made_of_is_written_beside_them() {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(guest::file(name)).unwrap()).expect(name)
    };
    let digest = |path: &Path| {
        let digest = sha2::Sha256::digest(fs::read(path).unwrap());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (sbom, manifest) = (read("sbom.cdx.json"), read("manifest.json"));
    for name in ["initrd.img", "rootfs.erofs", "images/busybox.erofs"] {
        assert_eq!(manifest["files"][name]["sha256"], digest(&guest::file(name)), "{name}");
    }
    assert_eq!(manifest["sources"]["init"], digest(&guest::payload("init")));
    assert!(manifest["tools"]["rustc"].as_str().unwrap().starts_with("rustc "), "{manifest}");
    assert_eq!(sbom["specVersion"], "1.5");
    let components = sbom["components"].as_array().unwrap();
    let find = |name: &str| components.iter().find(|component| component["name"] == name).unwrap();
    let lock = fs::read_to_string(guest::workspace().join("Cargo.lock")).unwrap();
    for crate_name in ["ttrpc", "tokio", "protobuf", "libc"] {
        let component = find(crate_name);
        let checksum = component["hashes"][0]["content"].as_str().unwrap();
        let version = component["version"].as_str().unwrap();
        assert!(lock.contains(&format!("checksum = \"{checksum}\"")), "{component}");
        assert!(
            lock.contains(&format!("name = \"{crate_name}\"\nversion = \"{version}\"")),
            "{component}"
        );
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
    }
    assert_eq!(find("init")["hashes"][0]["content"], digest(&guest::payload("init")));
    assert!(find("busybox")["version"].as_str().unwrap().contains('.'));
    if manifest["kernel"].is_object() {
        assert_eq!(manifest["kernel_config_sha256"], digest(&guest::file("kernel.config")));
        assert!(find("linux")["version"].as_str().unwrap().ends_with("hyperstart"));
    }
    let files = read("rootfs.json")["files"].as_array().unwrap().clone();
    assert_eq!(files.len(), 1, "no shell, nothing but init: {files:?}");
}

fn inspected(place: &Place, pod: &str) -> Value {
    let said = place.run(["inspect", pod]);
    let value: Value = serde_json::from_str(said.ok()).unwrap();
    value[0]["guest"]["root"].clone()
}

/// On a board with persistent memory the root is mapped without being asked for, and `inspect` has the guest's own word
/// for it, while the pod runs and after it has ended.
#[test]
fn a_board_with_pmem_boots_dax_and_inspect_says_so() {
    let place = Place::new();
    let root = json!({"mode": "dax", "fstype": "erofs", "dax": true, "verity": false});
    place.run(["run", "-d", "--name", "p", "--machine", "q35", "busybox", "sleep", "1000"]).ok();
    assert_eq!(inspected(&place, "p"), root);
    place.run(["stop", "p"]).ok();
    assert_eq!(inspected(&place, "p"), root);
    place.run(["rm", "p"]).ok();
    place.assert_nothing_left();
}

/// A kernel, an initrd or a root that cannot be one is refused by what it is, and a kernel that lacks an option by the
/// option, before a VM is started.
#[test]
fn own_files_are_checked_before_a_vm_is_started() {
    let mut place = Place::new();
    place.set("HYPERSTART_QEMU", "/bin/false"); // whoever starts it has not looked
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    fs::write(path("script"), "#!/bin/sh\n").unwrap();
    let mut ext4 = vec![0; 2 << 20];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
    fs::write(path("ext4"), ext4).unwrap();
    let mut short = fs::read(guest::file("rootfs.erofs")).unwrap();
    short.truncate(1 << 20);
    fs::write(path("short"), short).unwrap();
    fs::copy(guest::file("vmlinux"), path("vmlinux-9")).unwrap();
    let config = fs::read_to_string(guest::file("kernel.config")).unwrap();
    fs::write(path("config-9"), config.replace("CONFIG_EROFS_FS=y", "CONFIG_EROFS_FS=m")).unwrap();
    for (flag, file, mode, words) in [
        ("--kernel", "script", "initrd", ["neither a vmlinux", "kernel"]),
        ("--initrd", "script", "initrd", ["not a cpio archive", "initrd"]),
        ("--rootfs", "ext4", "dax", ["ext4", "image-builder rootfs"]),
        ("--rootfs", "short", "dax", ["multiple of 2 MiB", "rootfs"]),
        ("--kernel", "vmlinux-9", "dax", ["CONFIG_EROFS_FS=m", "built in"]),
    ] {
        let said = place.run(["run", "--boot", mode, flag, &path(file), "busybox", "true"]);
        assert_eq!(said.code, 125, "{said:#?}");
        for word in words {
            assert!(said.stderr.contains(word), "{word:?} not in {}", said.stderr);
        }
    }
    place.assert_nothing_left();
}

/// A root with a hash tree boots, is known to be checked, and is not mapped; the same with one byte of init's changed ends
/// in the kernel's panic, which says what the matter is.
#[test]
fn a_changed_byte_of_a_verity_root_stops_the_boot() {
    let directory = tempfile::tempdir().unwrap();
    let image = rootfs(directory.path(), "rootfs.erofs", &["--verity"]);
    let mut machine = VmConfig { mode: Mode::Dax, ..VmConfig::default() }.machine();
    machine.boot = Boot::Rootfs(image.clone());
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let receipt = vm.run("the receipt", vm.sandbox().boot_receipt()).unwrap();
    let is = (receipt.boot_mode.as_str(), receipt.root_dax, receipt.root_verity);
    assert_eq!(is, ("disk", false, true));
    assert_eq!(vm.view("web").get("pid"), "1");
    vm.shutdown();

    let file = fs::OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let magic = (4096..1 << 20).step_by(4096).find(|offset| {
        let mut head = [0; 4];
        file.read_exact_at(&mut head, *offset).is_ok() && head == *b"\x7fELF"
    });
    let place = magic.expect("init is in the image") + 15; // of e_ident, which nobody reads
    file.write_all_at(&[1], place).unwrap();
    let run_dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let err = runtime.block_on(async {
        let vm = hyperstart_vmm::Vm::launch(&machine, run_dir.path()).await.unwrap();
        vm.ready(PATIENCE).await.unwrap_err()
    });
    let text = err.to_string();
    assert!(text.contains("dm-verity") && text.contains("root hash"), "{text}");
}

/// An image with a shell gives the host one where the kernel's command line asks for it: root of the guest, in a tree that
/// is read-only. Read from there, 20 MB of a mapped root take no page cache.
#[test]
fn a_debug_image_has_a_console_and_a_mapped_root_takes_no_memory() {
    let place = Place::new();
    let blob = place.path("blob");
    let bytes: Vec<u8> = (0..20_000_000_usize).map(|at| at.to_le_bytes()[at % 3] | 1).collect();
    fs::write(&blob, bytes).unwrap();
    let add = format!("{}:/opt/blob", blob.display());
    let words = ["--debug-shell", "/bin/busybox", "--add", &add];
    let image = rootfs(&place.path(""), "debug.erofs", &words);
    let run = place.run_words(&[
        "run",
        "-d",
        "--name",
        "p",
        "--transport",
        "vhost-user-vsock",
        "--rootfs",
        image.to_str().unwrap(),
        "--append",
        "agent.debug_console",
        "busybox",
        "sleep",
        "1000",
    ]);
    run.ok();
    assert_eq!(inspected(&place, "p")["dax"], true, "behind an info block too");
    let script = "cat /proc/1/comm; id -u; touch /x; echo hello > /run/x; cat /run/x; rm /run/x\n\
                  ls /sys/bus/nd/drivers/nd_pmem\n\
                  cat /opt/blob > /dev/null; grep ^Cached: /proc/meminfo\n\
                  md5sum /opt/blob; cat /opt/blob > /dev/null; grep ^Cached: /proc/meminfo\n";
    let said = place.run_with_input(["console", "--shell", "p"], script.as_bytes());
    let text = said.ok();
    for word in ["init\n", "0\n", "Read-only file system", "hello\n", "pfn0", "  /opt/blob"] {
        assert!(text.contains(word), "{word:?} not in {text}");
    }
    let cached = text.lines().filter_map(|line| line.rsplit_once("Cached: "));
    let kib = |(_, rest): (&str, &str)| rest.split_whitespace().next()?.parse::<u64>().ok();
    let cached: Vec<u64> = cached.filter_map(kib).collect();
    assert_eq!(cached.len(), 2, "{text}");
    let grown = cached[1].saturating_sub(cached[0]);
    assert!(grown < 1024, "{grown} KiB of page cache for 20 MB that are mapped");
    place.run(["rm", "-f", "p"]).ok();
    place.assert_nothing_left();
}
