//! The store: from every source, each layer one image as overlayfs must find it, and nothing of what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails says where"
)]

mod support;

use image_builder::container::Format;
use image_builder::limits::Limits;
use image_builder::progress::Silent;
use image_builder::store::{Request, Store, Stored};
use image_builder::{Digest, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::erofs::Files;
use support::layout::{self, Layout, digest, gzip, zstd};
use support::tar::{Head, Tar};

/// A store, and a place for what is imported into it.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Place { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn import(&self, source: &Path, format: Format) -> Result<Stored> {
        let request = Request { architecture: Some("amd64"), format, ..Request::new(source) };
        self.store.import(&request, &Silent)
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("source.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Imports an archive of some format.
    fn archive(&self, bytes: &[u8], format: Format) -> Result<Stored> {
        self.import(&self.file(bytes), format)
    }

    /// Imports layers, as a layout on disk.
    fn layers(&self, layers: &[Vec<u8>]) -> Result<Stored> {
        let path = self.path("layout");
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        layout_of(layers).write(&path);
        self.import(&path, Format::Auto)
    }

    /// All files of the store, with their bytes' digests.
    fn contents(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.path("store")];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => waiting.push(path),
                    false => {
                        drop(found.insert(path.clone(), digest(&std::fs::read(path).unwrap())))
                    }
                }
            }
        }
        found
    }
}

/// A layout whose layers are stored in each way in turn.
fn layout_of(layers: &[Vec<u8>]) -> Layout {
    let pack = |(index, layer): (usize, &Vec<u8>)| match index % 3 {
        0 => (gzip(layer), layer.clone()),
        1 => (zstd(layer), layer.clone()),
        _ => (layer.clone(), layer.clone()),
    };
    let layers: Vec<_> = layers.iter().enumerate().map(pack).collect();
    let mut layout = Layout::default();
    let mut manifest = layout.image("amd64", &layers);
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "demo:1"});
    layout.index(&[manifest])
}

fn files(image: &Stored, layer: usize) -> Files {
    support::erofs::read(&std::fs::read(&image.layers[layer].path).unwrap())
}

fn names(files: &Files) -> Vec<&str> {
    files.keys().map(String::as_str).filter(|path| !path.is_empty()).collect()
}

const OPAQUE: &str = "trusted.overlay.opaque";

#[test]
fn each_layer_is_an_image_as_overlayfs_must_find_it() {
    let place = Place::new();
    let lower = Tar::new().dir("d").file("d/a", b"1").dir("e").file("e/x", b"2").file("gone", b"3");
    let upper = Tar::new()
        .file(".wh.gone", b"")
        .dir("d")
        .file("d/.wh.a", b"")
        .file("d/b", b"4")
        .dir("e")
        .file("e/.wh..wh..opq", b"")
        .file("e/.wh.x", b"")
        .file("e/y", b"5");
    let image = place.layers(&[lower.finish(), upper.finish()]).unwrap();
    assert_eq!(image.names, ["demo:1"]);
    assert_eq!(
        (image.config.cmd.clone(), image.architecture.as_str()),
        (vec!["sh".into()], "amd64")
    );
    let lower = files(&image, 0);
    assert_eq!(names(&lower), ["d", "d/a", "e", "e/x", "gone"]);
    assert!(lower.values().all(|file| file.xattrs.is_empty()));
    let upper = files(&image, 1);
    assert_eq!(names(&upper), ["d", "d/a", "d/b", "e", "e/y", "gone"]);
    for gone in ["d/a", "gone"] {
        assert_eq!((upper[gone].kind(), upper[gone].device), (0o020_000, 0), "{gone}");
    }
    assert_eq!(upper["e"].xattrs[OPAQUE], b"y");
    assert!(upper["d"].xattrs.is_empty());
    assert_eq!(upper["e/y"].data, b"5");
    for layer in &image.layers {
        let name = format!("{}.erofs", layer.diff_id.as_hex());
        assert!(layer.path.ends_with(Path::new("layers/sha256").join(name)), "{:?}", layer.path);
        assert_eq!(layer.size, std::fs::metadata(&layer.path).unwrap().len());
    }
    assert_eq!(place.store.find("demo:1").unwrap(), Some(image));
}

/// Everything that a layer can hold, in an order that a directory does not have.
fn everything() -> Vec<u8> {
    let head = Head {
        path: b"suid",
        mode: 0o4755,
        uid: 70_000,
        gid: 5,
        mtime: 1_700_000_001,
        size: 2,
        ..Head::default()
    };
    let long = "n".repeat(255);
    let mut tar = Tar::new()
        .dir("z")
        .file("z/big", &vec![7; 3 << 20])
        .pax(&[("SCHILY.xattr.user.note", b"hello"), ("mtime", b"1700000000.25")])
        .file("noted", b"x")
        .entry(&head, b"ok")
        .pax(&[("path", long.as_bytes())])
        .file("long", b"long")
        .symlink("link", "z/big")
        .char_device("null", (1, 3))
        .file("empty", b"");
    for index in 0..500 {
        tar = tar.file(&format!("z/{index:03}"), index.to_string().as_bytes());
    }
    tar.hard("again", "z/big").finish()
}

#[test]
fn what_a_layer_holds_arrives_and_every_source_gives_the_same_image() {
    let place = Place::new();
    let tar = everything();
    let image = place.layers(std::slice::from_ref(&tar)).unwrap();
    let bytes = std::fs::read(&image.layers[0].path).unwrap();
    let files = support::erofs::read(&bytes);
    assert_eq!(files["z/big"].data, vec![7; 3 << 20]);
    assert_eq!((files["z/big"].nid, files["z/big"].links), (files["again"].nid, 2));
    assert_eq!(files["z/499"].data, b"499");
    assert_eq!(files["suid"].mode & 0o7777, 0o4755);
    assert_eq!((files["suid"].uid, files["suid"].mtime), (70_000, (1_700_000_001, 0)));
    assert_eq!(files["noted"].xattrs["user.note"], b"hello");
    assert_eq!(files["noted"].mtime, (1_700_000_000, 250_000_000));
    assert_eq!((files["null"].device, files["link"].data.as_slice()), (0x103, &b"z/big"[..]));
    assert!(files.contains_key(&"n".repeat(255)));
    check_with_erofs_utils(&image.layers[0].path);
    let docker = layout::docker(std::slice::from_ref(&tar)).finish();
    for (archive, format) in [
        (layout_of(std::slice::from_ref(&tar)).archive(), Format::Auto),
        (docker.clone(), Format::Auto),
        (gzip(&docker), Format::Docker),
        (tar.clone(), Format::RootfsArchive),
        (zstd(&tar), Format::RootfsArchive),
    ] {
        let other = Place::new();
        let image = other.archive(&archive, format).unwrap();
        assert_eq!(image.layers[0].diff_id.to_string(), digest(&tar));
        assert!(std::fs::read(&image.layers[0].path).unwrap() == bytes, "{format:?}");
    }
}

#[test]
fn holes_stay_holes_in_each_dialect_of_gnu_tar() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let place = Place::new();
    let root = place.path("root");
    std::fs::create_dir(&root).unwrap();
    let file = std::fs::File::create(root.join("sparse")).unwrap();
    for (at, bytes) in [(0, &b"start"[..]), (3 << 20, b"middle"), ((8 << 20) + 5, b"end")] {
        file.write_all_at(bytes, at).unwrap();
    }
    file.set_len(16 << 20).unwrap();
    let whole = std::fs::read(root.join("sparse")).unwrap();
    for dialect in ["--format=gnu", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let other = Place::new();
        let tar = other.path("sparse.tar");
        let mut command = Command::new("tar");
        command.args(["-cS", dialect, "-f"]).arg(&tar).arg("-C").arg(&root).arg("sparse");
        assert!(command.status().unwrap().success(), "{dialect}");
        assert!(std::fs::metadata(&tar).unwrap().len() < 1 << 20, "{dialect}: not sparse");
        let image = other.import(&tar, Format::RootfsArchive).unwrap();
        assert!(files(&image, 0)["sparse"].data == whole, "{dialect}");
        let on_disk = std::fs::metadata(&image.layers[0].path).unwrap().blocks() * 512;
        assert!(on_disk < 1 << 20, "{dialect}: {on_disk} bytes on disk");
    }
}

/// Debian's own checker finds no fault.
fn check_with_erofs_utils(path: &Path) {
    match Command::new("fsck.erofs").arg(path).output() {
        Err(_) => println!("not checked: fsck.erofs is missing (apt-get install erofs-utils)"),
        Ok(run) => {
            let said = [run.stdout, run.stderr].concat();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&said));
        }
    }
}

#[test]
fn a_directory_is_one_layer_known_by_its_image() {
    let place = Place::new();
    let root = place.path("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/motd"), "hello").unwrap();
    let names = ["local/one", "local/two:2"];
    let request = Request { names: &names, ..Request::new(&root) };
    let image = place.store.import(&request, &Silent).unwrap();
    assert_eq!(image.names, ["local/one:latest", "local/two:2"]);
    assert_eq!(files(&image, 0)["etc/motd"].data, b"hello");
    let bytes = std::fs::read(&image.layers[0].path).unwrap();
    assert_eq!(image.layers[0].diff_id.to_string(), digest(&bytes));
    assert_eq!(place.import(&root, Format::Directory).unwrap().digest, image.digest);
}

#[test]
fn layers_are_shared_and_one_that_is_there_needs_no_blob() {
    let place = Place::new();
    let base = Tar::new().dir("etc").file("etc/a", b"a").finish();
    let one = place.layers(&[base.clone(), Tar::new().file("one", b"1").finish()]).unwrap();
    let before = place.contents().len();
    let layers = [base.clone(), Tar::new().file("two", b"2").finish()];
    let two = place.path("two");
    layout_of(&layers).write(&two);
    let base_id = Digest::parse(&digest(&base)).unwrap();
    assert!(place.store.has_layer(&[], &base_id).unwrap());
    assert!(!place.store.has_layer(&[], &Digest::of(&layers[1])).unwrap());
    std::fs::remove_file(two.join("blobs/sha256").join(layout::hex(&gzip(&base)))).unwrap();
    let two = place.import(&two, Format::Auto).unwrap();
    assert_eq!(one.layers[0], two.layers[0]);
    assert_eq!(place.contents().len(), before + 2, "a layer and a record");
    // the name has moved on; the first image has none left
    assert_eq!(place.store.find("demo:1").unwrap().unwrap().digest, two.digest);
    assert_eq!(place.store.find(&one.digest.to_string()).unwrap().unwrap().names.len(), 0);
    let removed = place.store.prune(false, &|_| None).unwrap();
    assert_eq!((removed.images.as_slice(), removed.files), (&[one.digest][..], 1));
    assert!(two.layers.iter().all(|layer| layer.path.exists()));
}

#[test]
fn a_layer_that_leans_on_those_below_is_kept_apart_for_each() {
    let place = Place::new();
    let directory = |mode| {
        let head = Head { path: b"tmp", kind: b'5', mode, uid: 7, ..Head::default() };
        Tar::new().entry(&head, b"").file("tmp/data", b"from below").finish()
    };
    let leaning = Tar::new().file("tmp/new", b"").hard("linked", "tmp/data").finish();
    let one = place.layers(&[directory(0o1777), leaning.clone()]).unwrap();
    let two = place.layers(&[directory(0o700), leaning.clone()]).unwrap();
    assert_ne!(one.layers[1].path, two.layers[1].path);
    for (image, mode) in [(&one, 0o1777), (&two, 0o700)] {
        let files = files(image, 1);
        assert_eq!((files["tmp"].mode & 0o7777, files["tmp"].uid), (mode, 7));
        assert_eq!(files["linked"].data, b"from below");
        assert!(image.layers[1].path.parent().unwrap().ends_with("chains/sha256"));
        check_with_erofs_utils(&image.layers[1].path);
    }
    assert_eq!(place.layers(&[directory(0o700), leaning]).unwrap().layers, two.layers);
    let through = Tar::new().file("link/x", b"").finish();
    let link = Tar::new().symlink("link", "/etc").finish();
    let err = place.layers(&[link, through]).unwrap_err().to_string();
    assert!(err.contains("\"/link\"") && err.contains("maybe a link"), "{err}");
}

#[test]
fn all_layers_as_one_image_are_what_the_source_flattens_to() {
    let place = Place::new();
    let root = Head { path: b"./", kind: b'5', mode: 0o700, mtime: 5, ..Head::default() };
    let lower = Tar::new().entry(&root, b"").dir("d").file("d/a", b"1").file("gone", b"3");
    let upper = Tar::new().file(".wh.gone", b"").file("d/b", b"4").hard("d/c", "d/a");
    let last = Tar::new().dir("d").file("d/.wh..wh..opq", b"").file("d/z", b"5").hard("d/y", "d/z");
    let layers = [lower.finish(), everything(), upper.finish(), last.finish()];
    let image = place.layers(&layers).unwrap();
    let path = place.store.flatten(&image, &Silent).unwrap();
    let flat = support::erofs::read(&std::fs::read(&path).unwrap());
    let (_, direct) = support::build(&support::request(&place.path("layout"))).unwrap();
    let looks = |files: &Files| -> Vec<_> {
        let look = |(path, file): (&String, &support::erofs::File)| {
            let support::erofs::File { mode, uid, mtime, links, data, xattrs, .. } = file.clone();
            (path.clone(), mode, uid, mtime, links, digest(&data), xattrs)
        };
        files.iter().map(look).collect()
    };
    assert_eq!(looks(&flat), looks(&direct));
    assert_eq!(flat[""].mode & 0o7777, 0o700);
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(place.store.flatten(&image, &Silent).unwrap(), path);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), time, "made once");
    assert_eq!(place.store.prune(false, &|_| None).unwrap().files, 0);
    place.store.remove("demo:1", &|_| None).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_refused_import_leaves_the_store_as_it_was() {
    let place = Place::new();
    place.layers(&[Tar::new().file("kept", b"1").finish()]).unwrap();
    let before = place.contents();
    let good = Tar::new().file("good", b"fine").finish();
    for (bad, said) in [
        (Tar::new().file("../evil", b"x").finish(), "\"../evil\": it climbs"),
        (Tar::new().file("/etc/x", b"x").finish(), "\"/etc/x\": it is absolute"),
        (Tar::new().symlink("o", "/etc").file("o/p", b"x").finish(), "\"o/p\": it goes through"),
        (Tar::new().hard("l", "/etc/passwd").finish(), "\"l\": hard link to"),
        (Tar::new().hard("l", "nothing").finish(), "\"l\": hard link to"),
        (Tar::new().file("a", b"").file("a", b"").finish(), "\"a\": a second entry"),
        (Tar::new().char_device("w", (0, 0)).finish(), "\"w\": character device 0:0"),
        (Tar::new().char_device("mem", (1, 1)).finish(), "\"mem\": character device 1:1: not one"),
        (Tar::new().pax(&[("a", &vec![b'x'; 2 << 20])]).finish(), "extension header of"),
        (everything()[..9000].to_vec(), "cut off"),
    ] {
        let err = place.layers(&[good.clone(), bad.clone()]).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Refused, "{err}");
        assert!(err.to_string().contains(said), "{err}");
        assert_eq!(place.contents(), before, "{said}");
        assert!(place.archive(&bad, Format::RootfsArchive).is_err());
        assert_eq!(place.contents(), before, "{said}");
    }
}

#[test]
fn blobs_that_are_not_what_they_are_called_are_refused() {
    let place = Place::new();
    let layers = [Tar::new().file("a", b"1").finish(), everything()];
    let good = layout_of(&layers);
    for (path, bytes) in good.0.iter().filter(|(path, _)| path.starts_with("blobs/")) {
        let mut changed = bytes.clone();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        for bad in [changed, bytes[..bytes.len() - 1].to_vec(), Vec::new()] {
            let mut layout = good.clone();
            layout.0.insert(path.clone(), bad);
            let directory = place.path("layout");
            layout.write(&directory);
            place.import(&directory, Format::Auto).unwrap_err();
            place.archive(&layout.archive(), Format::Auto).unwrap_err();
            assert!(place.store.list().unwrap().is_empty());
        }
    }
    let left: Vec<_> = place.contents().into_keys().collect();
    assert!(
        left.iter().all(|path| path.ends_with("lock") || path.ends_with("names.lock")),
        "{left:?}"
    );
}

/// The host's kernel stacks the layers to what they are flattened to, if it can and we may.
#[test]
fn a_kernel_stacks_them() {
    let place = Place::new();
    let lower = Tar::new().dir("d").file("d/a", b"1").dir("e").file("e/x", b"2").file("gone", b"3");
    let upper = Tar::new().file(".wh.gone", b"").file("d/b", b"4").hard("d/c", "d/a").dir("new");
    let last =
        Tar::new().dir("e").file("e/.wh..wh..opq", b"").file("e/y", b"5").file("d/.wh.b", b"");
    let layers = [everything(), lower.finish(), upper.finish(), last.finish()];
    let image = place.layers(&layers).unwrap();
    let flat = place.store.flatten(&image, &Silent).unwrap();
    let knows = std::fs::read_to_string("/proc/filesystems").unwrap();
    if !knows.contains("\terofs") || !knows.contains("\toverlay") {
        println!("not checked: needs a kernel with EROFS and overlayfs");
        return;
    }
    // in a mount namespace of its own: nothing stays mounted, whatever happens
    let script = "cd $1; shift; mkdir flat all up; mount -t tmpfs t up && mkdir up/u up/w || exit 9
        mount -t erofs -o loop,ro $1 flat || exit 9; shift; lower=
        for layer; do mkdir $#; mount -t erofs -o loop,ro $layer $# || exit 9; lower=$#${lower:+:$lower}; shift; done
        mount -t overlay -o lowerdir=$lower,upperdir=up/u,workdir=up/w o all || exit 9
        for root in flat all; do (cd $root; find . -mindepth 1 -printf '%p %y %m %U %G %T@ %l\\n' | sort) > $root.list; done
        diff flat.list all.list && diff -r --no-dereference -x null flat all";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(place.dir.path()).arg(flat);
    let run = command.args(image.layers.iter().map(|layer| &layer.path)).output().unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    match run.status.code() {
        Some(9 | 1) if !place.path("all.list").exists() => {
            println!("not checked: no mounts here: {said}")
        }
        _ => assert!(run.status.success() && said.is_empty(), "{said}"),
    }
}

#[test]
fn imports_and_removals_side_by_side_lose_nothing() {
    let place = Place::new();
    let shared = everything();
    for index in 0..4 {
        let own = Tar::new().file(&format!("own{index}"), b"x").finish();
        layout_of(&[shared.clone(), own]).write(&place.path(&format!("source{index}")));
    }
    let import = |index: usize| {
        let (path, name) = (place.path(&format!("source{index}")), format!("image{index}"));
        let names = [name.as_str()];
        let request = Request { architecture: Some("amd64"), names: &names, ..Request::new(&path) };
        place.store.import(&request, &Silent).unwrap()
    };
    std::thread::scope(|scope| {
        for index in 0..4 {
            scope.spawn(move || (0..3).for_each(|_| drop(import(index))));
        }
        scope.spawn(|| {
            for _ in 0..10 {
                place.store.prune(false, &|_| None).unwrap();
            }
        });
    });
    for index in 0..4 {
        let image = place.store.find(&format!("image{index}")).unwrap().unwrap();
        assert_eq!(files(&image, 0)["z/499"].data, b"499");
    }
    assert_eq!(place.store.prune(false, &|_| None).unwrap().files, 0, "nothing else was left");
}

#[test]
fn a_tag_alone_is_no_name() {
    let place = Place::new();
    let mut layout = layout_of(&[Tar::new().file("a", b"1").finish()]);
    let index = String::from_utf8(layout.0["index.json"].clone()).unwrap();
    layout.0.insert("index.json".into(), index.replace("demo:1", "latest").into_bytes());
    let image = place.archive(&layout.archive(), Format::Oci).unwrap();
    assert_eq!(image.names, Vec::<String>::new());
    assert_eq!(place.store.list().unwrap(), [image]);
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let place = Place::new();
    let bomb = gzip(&Tar::new().file("zeros", &vec![0; 8 << 20]).finish());
    let path = place.file(&bomb);
    let limits = Limits { content: 1 << 20, ..Limits::default() };
    let request = Request { format: Format::RootfsArchive, limits, ..Request::new(&path) };
    let err = place.store.import(&request, &Silent).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::TooLarge, "{err}");
    assert!(err.to_string().contains("more than 1.0 MiB of content"), "{err}");
    assert!(place.store.list().unwrap().is_empty());
}

#[test]
fn an_image_without_layers_is_refused() {
    let err = Place::new().layers(&[]).unwrap_err().to_string();
    assert!(err.ends_with("image: it has no layers"), "{err}");
}
