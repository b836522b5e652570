//! Container images of several layers: tar archives, an OCI layout of them, and the store that it is imported into.

use std::fs;
use std::path::{Path, PathBuf};

use image_builder::progress::Silent;
use image_builder::store::{Request, Store, Stored};
use serde_json::{Value, json};

use crate::{guest, sha256};

#[path = "../../image-builder/tests/support/tar.rs"]
mod tar;
pub use tar::{Head, Tar};

const APPLETS: [&str; 14] = [
    "cat", "echo", "env", "grep", "id", "kill", "ls", "pwd", "sh", "sleep", "stat", "test",
    "touch", "true",
];

/// A layer with busybox, the probe, and the directories that a container's mounts need.
pub fn base_layer() -> Tar {
    let busybox = fs::read("/bin/busybox").expect("read busybox: run `make setup`");
    let probe = fs::read(guest::payload("probe")).expect("read the probe");
    let program = |path: &'static str, data: &[u8]| Head {
        path: path.as_bytes(),
        mode: 0o755,
        size: data.len() as u64,
        ..Head::default()
    };
    let tar = ["bin", "dev", "etc", "proc", "sys", "tmp"].into_iter().fold(Tar::new(), Tar::dir);
    let tar = tar.entry(&program("bin/busybox", &busybox), &busybox);
    let tar = tar.entry(&program("probe", &probe), &probe);
    let link = |tar: Tar, applet: &str| tar.symlink(&format!("bin/{applet}"), "busybox");
    APPLETS.into_iter().fold(tar, link)
}

/// Puts an image of these layers, from the lowest up, into the store below `directory`. `config` is what a Dockerfile
/// says of it.
pub fn import(directory: &Path, name: &str, config: &Value, layers: Vec<Tar>) -> Stored {
    let layout = layout(config, layers);
    let names = [name];
    let request = Request { names: &names, ..Request::new(layout.path()) };
    let store = Store::open(directory).expect("open the store");
    store.import(&request, &Silent).expect("import an image")
}

fn layout(config: &Value, layers: Vec<Tar>) -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(guest::scratch()).expect("make a directory");
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Tar::finish).collect();
    let diff_ids: Vec<String> =
        layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let kind = |kind: &str| format!("application/vnd.oci.image.{kind}");
    let blob = |media_type: &str, bytes: &[u8]| {
        let path = directory.path().join("blobs/sha256").join(sha256(bytes));
        fs::write(path, bytes).expect("write a blob");
        let digest = format!("sha256:{}", sha256(bytes));
        json!({"mediaType": kind(media_type), "digest": digest, "size": bytes.len()})
    };
    fs::create_dir_all(directory.path().join("blobs/sha256")).expect("make a directory");
    let config = json!({
        "architecture": image_builder::config::architecture(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(|layer| blob("layer.v1.tar", layer)).collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    let put = |name: &str, text: String| {
        fs::write(directory.path().join(name), text).expect("write a file of a layout");
    };
    put("index.json", index.to_string());
    put("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string());
    directory
}

/// The files of an image's layers.
pub fn paths(image: &Stored) -> Vec<PathBuf> {
    image.layers.iter().map(|layer| layer.path.clone()).collect()
}
