//! What goes into an image comes out of it: layers, attributes, links, times; and the same input gives the same bytes.
//! Images are read back by our own reader, by Debian's erofs-utils and, as root, by the host's kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test that fails says where"
)]

mod support;

use image_builder::container::{Format, Request};
use image_builder::{Image, erofs};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use support::layout::{self, Layout, digest, gzip, zstd};
use support::tar::{Head, Tar};
use support::{build, request, rootfs};

fn names(files: &support::erofs::Files) -> Vec<&str> {
    files.keys().map(String::as_str).filter(|path| !path.is_empty()).collect()
}

fn layered(layers: &[Vec<u8>]) -> support::erofs::Files {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    let pack = |(index, layer): (usize, &Vec<u8>)| match index % 3 {
        0 => (gzip(layer), layer.clone()),
        1 => (zstd(layer), layer.clone()),
        _ => (layer.clone(), layer.clone()),
    };
    let layers: Vec<_> = layers.iter().enumerate().map(pack).collect();
    let manifest = layout.image("amd64", &layers);
    layout.index(&[manifest]).write(dir.path());
    build(&request(dir.path())).unwrap().1
}

#[test]
fn a_whiteout_removes_what_lies_below_and_nothing_else() {
    let lower = Tar::new().dir("d").file("d/a", b"1").file("d/b", b"2").file("gone", b"3").finish();
    let upper = Tar::new()
        .file("d/.wh.a", b"")
        .file(".wh.gone", b"")
        .file(".wh.never", b"")
        .file("d/c", b"4");
    assert_eq!(names(&layered(&[lower.clone(), upper.finish()])), ["d", "d/b", "d/c"]);
    // in one layer, before or behind it: what the layer brings stays
    for upper in [
        Tar::new().file("d/.wh.a", b"").file("d/a", b"new"),
        Tar::new().file("d/a", b"new").file("d/.wh.a", b""),
    ] {
        let files = layered(&[lower.clone(), upper.finish()]);
        assert_eq!(files["d/a"].data, b"new");
    }
}

#[test]
fn an_opaque_directory_hides_what_lies_below_whatever_the_order() {
    let lower = Tar::new().dir("d").dir("d/s").file("d/s/a", b"1").file("d/b", b"2").finish();
    let first = Tar::new().dir("d").file("d/.wh..wh..opq", b"").file("d/c", b"3").finish();
    let last = Tar::new().dir("d").file("d/c", b"3").file("d/.wh..wh..opq", b"").finish();
    for upper in [first, last] {
        assert_eq!(names(&layered(&[lower.clone(), upper])), ["d", "d/c"]);
    }
    let replaced = Tar::new().file(".wh.d", b"").file("d/c", b"3").finish();
    assert_eq!(names(&layered(&[lower, replaced])), ["d", "d/c"]);
}

#[test]
fn kinds_replace_one_another_as_in_overlayfs() {
    let lower =
        Tar::new().dir("d").file("d/a", b"1").symlink("lib", "usr/lib").file("f", b"2").finish();
    let upper = Tar::new().file("d", b"now a file").file("lib/x", b"3").dir("f").finish();
    let files = layered(&[lower, upper]);
    assert_eq!(names(&files), ["d", "f", "lib", "lib/x"]);
    assert_eq!(
        (files["d"].kind(), files["lib"].kind(), files["f"].kind()),
        (0o100_000, 0o040_000, 0o040_000)
    );
}

#[test]
fn a_directory_that_no_entry_describes_keeps_its_looks_from_below() {
    let head = |mode| Head { path: b"d", kind: b'5', mode, uid: 7, mtime: 5, ..Head::default() };
    let lower = Tar::new().entry(&head(0o700), b"").finish();
    let silent = Tar::new().file("d/a", b"").finish();
    let file = &layered(&[lower.clone(), silent])["d"];
    assert_eq!((file.mode & 0o7777, file.uid, file.mtime), (0o700, 7, (5, 0)));
    let spoken = Tar::new().entry(&head(0o711), b"").finish();
    assert_eq!(layered(&[lower, spoken])["d"].mode & 0o7777, 0o711);
}

#[test]
fn hard_links_hold_within_a_layer_and_to_the_layers_below() {
    let lower = Tar::new().file("a", b"one").hard("b", "a").finish();
    let upper = Tar::new().dir("d").hard("d/c", "b").finish();
    let files = layered(&[lower, upper]);
    assert_eq!(files["d/c"].data, b"one");
    // as in overlayfs: the file that gets a new name is copied up, its other names below stay where they are
    assert_eq!((files["b"].nid, files["b"].links), (files["d/c"].nid, 2));
    assert_eq!((files["a"].links, &files["a"].data), (1, &b"one".to_vec()));
}

#[test]
fn metadata_arrives() {
    let long = format!("{}/{}", "d".repeat(200), "n".repeat(255));
    let big_id = [
        ("uid", &b"4000000000"[..]),
        ("mtime", b"1700000000.25"),
        ("SCHILY.xattr.user.k", b"v\n1"),
    ];
    let set_uid = Head { path: b"su", mode: 0o4755, mtime: 9, ..Head::default() };
    let tar = Tar::new()
        .pax(&[("path", long.as_bytes())])
        .file("x", b"long")
        .pax(&big_id)
        .file("p", &[7; 5000])
        .entry(&set_uid, b"")
        .symlink("l", &"t/".repeat(45))
        .char_device("n", (1, 3))
        .entry(&Head { path: b"fifo", kind: b'6', ..Head::default() }, b"");
    let files = rootfs(&tar.finish()).unwrap();
    assert_eq!(files[&long].data, b"long");
    let file = &files["p"];
    assert_eq!(
        (file.uid, file.mtime, file.is_compact),
        (4_000_000_000, (1_700_000_000, 250_000_000), false)
    );
    assert_eq!((file.xattrs["user.k"].as_slice(), file.data.len()), (&b"v\n1"[..], 5000));
    assert_eq!((files["su"].mode, files["su"].mtime), (0o104_755, (9, 0)));
    assert_eq!(files["l"].data, "t/".repeat(45).as_bytes());
    assert_eq!((files["n"].kind(), files["n"].device), (0o020_000, 0x103));
    assert_eq!(files["fifo"].kind(), 0o010_000);
}

#[test]
fn many_large_attributes_and_long_links_find_their_place() {
    let value = vec![b'v'; 5000];
    let keys: Vec<String> = (0..10).map(|n| format!("SCHILY.xattr.user.{n:0200}")).collect();
    let records: Vec<(&str, &[u8])> =
        keys.iter().map(|key| (key.as_str(), value.as_slice())).collect();
    let target = "t".repeat(4090);
    let link = [("linkpath", target.as_bytes()), ("SCHILY.xattr.trusted.x", b"y")];
    let tar = Tar::new()
        .pax(&records)
        .file("f", b"data")
        .pax(&records)
        .dir("d")
        .pax(&link)
        .symlink("l", "");
    let files = rootfs(&tar.finish()).unwrap();
    assert_eq!((files["f"].xattrs.len(), files["d"].xattrs.len()), (10, 10));
    assert!(files["f"].xattrs.values().all(|found| *found == value));
    assert_eq!(files["l"].data, target.as_bytes());
}

#[test]
fn directories_of_every_size_are_read_back() {
    for count in [0, 1, 100, 160, 161, 3000] {
        let paths: Vec<String> =
            (0..count).map(|n| format!("d/name-{n:05}-{}", "x".repeat(n % 50))).collect();
        let tar =
            paths.iter().fold(Tar::new().dir("d"), |tar, path| tar.file(path, path.as_bytes()));
        let files = rootfs(&tar.finish()).unwrap();
        assert_eq!(files.len(), count + 2);
        assert!(paths.iter().all(|path| files[path].data == path.as_bytes()));
    }
}

#[test]
fn gnu_tar_and_our_reader_agree() {
    let dir = tempfile::tempdir().unwrap();
    let root = sample(&dir.path().join("root"));
    let file = std::fs::File::create(root.join("sparse")).unwrap();
    file.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 4 << 20).unwrap();
    for format in ["gnu", "pax", "ustar", "v7"] {
        let path = dir.path().join("root.tar");
        let long = matches!(format, "gnu" | "pax");
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--numeric-owner", "-C"])
            .arg(&root)
            .arg(format!("--format={format}"));
        if long {
            tar.arg("--sparse");
        } else {
            tar.args(["--exclude=./long*", "--exclude=./fifo", "--exclude=./sparse"]);
        }
        assert!(tar.arg("-cf").arg(&path).arg(".").status().unwrap().success());
        let archive = Request { format: Format::RootfsArchive, mtime: Some(0), ..request(&path) };
        let (_, from_tar) = build(&archive).unwrap();
        let (_, from_dir) = build(&request(&root)).unwrap();
        for (path, file) in &from_tar {
            let other = &from_dir[path];
            assert_eq!(
                (file.mode, &file.data, file.uid),
                (other.mode, &other.data, other.uid),
                "{format} {path:?}"
            );
        }
        assert_eq!(from_tar.len() == from_dir.len(), long, "{format}");
    }
}

/// A directory with something of everything that an ordinary user can make.
fn sample(root: &Path) -> std::path::PathBuf {
    let write = |path: &str, bytes: &[u8]| std::fs::write(root.join(path), bytes).unwrap();
    for path in ["a/b/c", "empty", "many", &"long".repeat(30)] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    write("a/f", b"hello");
    write("a/b/zero", b"");
    write("a/b/block", &[7; 4096]);
    write("a/b/c/big", &(0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    write(&format!("{}/{}", "long".repeat(30), "n".repeat(200)), b"x");
    (0..500).for_each(|n| write(&format!("many/file-{n}"), n.to_string().as_bytes()));
    std::fs::hard_link(root.join("a/f"), root.join("a/b/g")).unwrap();
    std::os::unix::fs::symlink("../../etc/passwd", root.join("a/link")).unwrap();
    std::fs::set_permissions(root.join("a/f"), PermissionsExt::from_mode(0o4751)).unwrap();
    let fifo =
        Command::new("mkfifo").arg("-m").arg("0622").arg(root.join("fifo")).status().unwrap();
    assert!(fifo.success());
    for directory in ["", "a", "a/b", "a/b/c", "empty", "many", &"long".repeat(30)] {
        std::fs::set_permissions(root.join(directory), PermissionsExt::from_mode(0o755)).unwrap();
    }
    root.to_path_buf()
}

fn builder() -> Command {
    Command::new(env!("CARGO_BIN_EXE_image-builder"))
}

/// Two copies of a directory, built in two places under another umask, time zone and locale, give the same bytes.
#[test]
fn the_same_tree_gives_the_same_bytes() {
    let run = |order: bool, umask: &str, zone: &str| {
        let dir =
            tempfile::Builder::new().prefix(zone.split('/').next().unwrap()).tempdir().unwrap();
        let root = dir.path().join("root");
        sample(&root);
        if order {
            // the same names, listed in another order
            let many = root.join("many");
            let moved = root.join("moved");
            std::fs::create_dir(&moved).unwrap();
            std::fs::set_permissions(&moved, PermissionsExt::from_mode(0o755)).unwrap();
            (0..500).rev().for_each(|n| {
                let name = format!("file-{n}");
                std::fs::rename(many.join(&name), moved.join(&name)).unwrap();
            });
            std::fs::remove_dir(&many).unwrap();
            std::fs::rename(moved, many).unwrap();
        }
        let output = dir.path().join("out").join("image.erofs");
        let status = Command::new("sh")
            .args(["-c", "umask $1; shift; exec \"$@\"", "sh", umask])
            .arg(env!("CARGO_BIN_EXE_image-builder"))
            .args(["container", "--cmd", "sh", "--from"])
            .arg(&root)
            .arg("--output")
            .arg(&output)
            .env("TZ", zone)
            .env("LC_ALL", if order { "C" } else { "tr_TR.UTF-8" })
            .current_dir(dir.path())
            .status();
        assert!(status.unwrap().success());
        let mode = std::fs::metadata(&output).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o644, "whatever the umask is");
        (std::fs::read(&output).unwrap(), std::fs::read(output.with_extension("json")).unwrap())
    };
    let (image, description) = run(false, "022", "UTC");
    let (again, described) = run(true, "077", "Asia/Tokyo");
    assert!(image == again, "the images differ");
    assert_eq!(String::from_utf8(description).unwrap(), String::from_utf8(described).unwrap());
}

#[test]
fn guest_images_are_the_same_each_time_and_hold_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let init = dir.path().join("init");
    std::fs::copy("/bin/busybox", &init).expect("busybox-static is installed by make setup");
    let make = |kind: &str, name: &str| {
        let output = dir.path().join(name);
        let run = builder().args([kind, "--init"]).arg(&init).arg("--output").arg(&output).status();
        assert!(run.unwrap().success());
        std::fs::read(&output).unwrap()
    };
    for kind in ["rootfs", "initrd"] {
        assert!(make(kind, "1/image.img") == make(kind, "2/image.img"), "{kind}");
    }
    let files = support::erofs::read(&make("rootfs", "rootfs.erofs"));
    assert_eq!(
        names(&files),
        ["dev", "dev/console", "etc", "init", "proc", "root", "run", "sys", "tmp"]
    );
    assert!(files["init"].data == std::fs::read(&init).unwrap());
    let initrd = dir.path().join("1/image.img"); // the last that was made there
    let list = Command::new("/bin/busybox")
        .args(["cpio", "-t"])
        .stdin(std::fs::File::open(initrd).unwrap())
        .output();
    let listed = String::from_utf8(list.unwrap().stdout).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names(&files));
}

#[test]
fn the_description_holds_what_the_image_says() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::new().file("f", b"hello").finish();
    let mut layout = Layout::default();
    let mut manifest = layout.image("amd64", &[(tar.clone(), tar)]);
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "demo:2"});
    std::fs::write(dir.path().join("demo.tar"), layout.index(&[manifest.clone()]).archive())
        .unwrap();
    let output = dir.path().join("demo.erofs");
    let mut run = builder();
    run.args([
        "container",
        "--arch",
        "amd64",
        "--env",
        "A=c",
        "--env",
        "B=d",
        "--user",
        "0",
        "--from",
    ]);
    assert!(
        run.arg(dir.path().join("demo.tar")).arg("-o").arg(&output).status().unwrap().success()
    );
    let image = Image::load(&output).unwrap();
    assert_eq!((image.name.as_str(), image.architecture.as_str()), ("demo:2", "amd64"));
    assert_eq!(image.source, manifest["digest"].as_str().unwrap());
    assert_eq!(image.config.env, ["A=c", "B=d"]);
    assert_eq!((image.config.user.as_str(), image.config.working_dir.as_str()), ("0", "/w"));
    let bytes = std::fs::read(&output).unwrap();
    assert_eq!(
        (image.size, format!("sha256:{}", image.sha256)),
        (bytes.len() as u64, digest(&bytes))
    );
}

#[test]
fn an_index_is_resolved_to_the_architecture_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    let of = |layout: &mut Layout, architecture: &str| {
        let tar = Tar::new().file("arch", architecture.as_bytes()).finish();
        let mut manifest = layout.image(architecture, &[(gzip(&tar), tar)]);
        manifest["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
        manifest
    };
    let manifests = [of(&mut layout, "amd64"), of(&mut layout, "arm64")];
    let inner = layout.json(layout::INDEX, &serde_json::json!({"manifests": manifests}));
    layout.index(&[inner]).write(dir.path());
    for architecture in ["amd64", "arm64"] {
        let request = Request { architecture: Some(architecture), ..request(dir.path()) };
        assert_eq!(build(&request).unwrap().1["arch"].data, architecture.as_bytes());
    }
    let request = Request { architecture: Some("riscv64"), ..request(dir.path()) };
    let message = build(&request).map(drop).unwrap_err().to_string();
    assert!(
        message.contains("no image for linux/riscv64") && message.contains("linux/arm64"),
        "{message}"
    );
}

#[test]
fn docker_archives_are_read_plain_and_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Tar::new().file("a", b"1").finish(),
        Tar::new().file("b", b"2").file(".wh.a", b"").finish(),
    ];
    let archive = layout::docker(&layers).symlink("c/layer.tar", "../0/layer.tar").finish();
    for (name, bytes) in [("d.tar", archive.clone()), ("d.tar.gz", gzip(&archive))] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let (built, files) = build(&request(&path)).unwrap();
        assert_eq!((names(&files), built.name.as_deref()), (vec!["b"], Some("demo:1")));
        assert_eq!(built.config.cmd, ["sh"]);
    }
}

fn tool(name: &str) -> Option<Command> {
    let found = Command::new(name).arg("--help").output().is_ok();
    if !found {
        println!("not checked: {name} is missing (apt-get install erofs-utils)");
    }
    found.then(|| Command::new(name))
}

/// Debian's own checker finds no fault, and what it extracts is what went in.
#[test]
fn erofs_utils_agree() {
    let Some(mut fsck) = tool("fsck.erofs") else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = sample(&dir.path().join("root"));
    let image = dir.path().join("image.erofs");
    assert!(
        builder()
            .args(["container", "--from"])
            .arg(&root)
            .arg("-o")
            .arg(&image)
            .status()
            .unwrap()
            .success()
    );
    let out = dir.path().join("out");
    let run =
        fsck.arg("-d9").arg(format!("--extract={}", out.display())).arg(&image).output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&said));
    std::fs::remove_file(root.join("fifo")).unwrap(); // diff cannot compare it
    std::fs::remove_file(out.join("fifo")).unwrap();
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(&root)
        .arg(&out)
        .output()
        .unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let dump = Command::new("dump.erofs").arg("-s").arg(&image).output().unwrap();
    assert!(String::from_utf8_lossy(&dump.stdout).contains("sb_csum mtime"));
}

/// The host's kernel mounts the image, if it can and we may.
#[test]
fn a_kernel_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let root = sample(&dir.path().join("root"));
    let image = dir.path().join("image.erofs");
    assert!(
        builder()
            .args(["container", "--from"])
            .arg(&root)
            .arg("-o")
            .arg(&image)
            .status()
            .unwrap()
            .success()
    );
    std::fs::remove_file(root.join("fifo")).unwrap();
    let knows = std::fs::read_to_string("/proc/filesystems").unwrap().contains("\terofs");
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !knows || !is_root {
        println!("not checked: needs root, and a kernel with EROFS");
        return;
    }
    // in a mount namespace of its own: nothing stays mounted, whatever happens
    let script = "mkdir $2/mnt && mount -t erofs -o loop,ro $1 $2/mnt || exit 9
        diff -r --no-dereference $2/root $2/mnt | grep -v '^Only in .*mnt: fifo$'
        cd $2/mnt && find . -type f -printf '%p %m %n\\n' | sort > $2/found
        cd $2/root && find . -type f -printf '%p %m %n\\n' | sort > $2/asked; cmp $2/found $2/asked";
    let run = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&image)
        .arg(dir.path())
        .output();
    let run = run.unwrap();
    if run.status.code() == Some(9) {
        println!("not checked: no loop mounts here: {}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let said =
        String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_time_that_inodes_share_saves_space_and_changes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.tar");
    let head = Head { path: b"f", mtime: 77, ..Head::default() };
    std::fs::write(&path, Tar::new().entry(&head, b"").finish()).unwrap();
    let request = Request { format: Format::RootfsArchive, ..request(&path) };
    let built =
        image_builder::container::build(&request, dir.path(), &image_builder::progress::Silent)
            .unwrap();
    let output = dir.path().join("image.erofs");
    for (seconds, is_compact) in [(0, false), (77, true)] {
        let build_time = image_builder::tree::Time::seconds(seconds);
        let options = erofs::Options { build_time, ..erofs::Options::default() };
        erofs::write(&built.tree, &options, &output, &image_builder::progress::Silent).unwrap();
        let files = support::erofs::read(&std::fs::read(&output).unwrap());
        assert_eq!((files["f"].mtime, files["f"].is_compact), ((77, 0), is_compact));
    }
}
