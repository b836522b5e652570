//! How long an image takes to come into the store, beside `tar x` of the same layers, and with how much memory.
//!
//! Files of 24 kB on average, five layers of 40 MB, gzip. Both write to the same file system, in turns, so that a busy
//! machine is busy for both. The time is of whole programs: hyperctl checks each blob's digests, tar does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::figures::{Figures, mib};

const LAYERS: u64 = 5;
const LAYER_BYTES: u64 = 40_000_000;
const ROUNDS: usize = 3;
/// How often a program's memory is looked at: the kernel keeps its peak, so only its last moments can be missed.
const LOOK: Duration = Duration::from_millis(2);

pub fn measure(figures: &mut Figures) -> Result<()> {
    let place = tempfile::tempdir_in(guest::scratch()).context("make a directory")?;
    let layers = make_layout(place.path())?;
    let (mut ratios, mut speeds, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let to = place.path().join(format!("round{round}"));
        let tar = extract(&layers, &to.join("tar"))?;
        let (import, peak) = import(&place.path().join("layout"), &to.join("store"))?;
        ratios.push(tar.as_secs_f64() / import.as_secs_f64());
        speeds.push((LAYERS * LAYER_BYTES) as f64 / 1e6 / import.as_secs_f64());
        peaks.push(mib(peak));
        fs::remove_dir_all(&to).context("remove what was extracted")?;
    }
    figures.median("import.ratio", &ratios)?;
    figures.median("import.speed", &speeds)?;
    figures.median("import.memory", &peaks)
}

/// An OCI layout, and its layers' files from the lowest up.
fn make_layout(place: &Path) -> Result<Vec<PathBuf>> {
    let blobs = place.join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).context("make a layout")?;
    let (mut paths, mut diff_ids, mut layers) = (Vec::new(), Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        let root = place.join("root");
        make_files(&root, layer)?;
        let tar = place.join("layer.tar");
        run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."))?;
        fs::remove_dir_all(&root).context("remove a layer's files")?;
        diff_ids.push(digest(&fs::read(&tar).context("read a layer")?));
        run(Command::new("gzip").arg("-f").arg(&tar))?;
        let bytes = fs::read(place.join("layer.tar.gz")).context("read a layer")?;
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let (path, descriptor) = put(&blobs, kind, &bytes)?;
        paths.push(path);
        layers.push(descriptor);
    }
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs });
    let kind = "application/vnd.oci.image.config.v1+json";
    let (_, config) = put(&blobs, kind, config.to_string().as_bytes())?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (_, manifest) = put(&blobs, kind, manifest.to_string().as_bytes())?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    let layout = place.join("layout");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).context("write")?;
    fs::write(layout.join("index.json"), index.to_string()).context("write")?;
    Ok(paths)
}

/// Half of each file is words, half noise, so that gzip has work and cannot do it all.
fn make_files(root: &Path, layer: u64) -> Result<()> {
    const WORDS: &[u8] =
        b"the quick brown fox jumps over the lazy dog and runs back to its den again ";
    let mut state = layer * 2 + 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut total, mut count) = (0, 0);
    while total < LAYER_BYTES {
        let directory = root.join(format!("usr/lib{layer}/d{}", count / 60));
        fs::create_dir_all(&directory).context("make a directory")?;
        let size = 64 + random() % 48_000;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            bytes.extend(random().to_le_bytes());
            let start = usize::try_from(random() % 40)?;
            bytes.extend(WORDS.iter().skip(start).take(8));
        }
        fs::write(directory.join(format!("f{count}")), &bytes).context("write a file")?;
        total += bytes.len() as u64;
        count += 1;
    }
    Ok(())
}

/// Puts a blob into a layout; gives its path and its descriptor.
fn put(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<(PathBuf, Value)> {
    let digest = digest(bytes);
    let path = blobs.join(digest.trim_start_matches("sha256:"));
    fs::write(&path, bytes).context("write a blob")?;
    Ok((path, json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })))
}

fn digest(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{digits}")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn extract(layers: &[PathBuf], to: &Path) -> Result<Duration> {
    let mut time = Duration::ZERO;
    for (index, layer) in layers.iter().enumerate() {
        let to = to.join(index.to_string());
        fs::create_dir_all(&to).context("make a directory")?;
        let begun = Instant::now();
        run(Command::new("tar").arg("-xzf").arg(layer).arg("-C").arg(&to))?;
        time += begun.elapsed();
    }
    Ok(time)
}

/// How long it takes, and the most memory that it has had.
fn import(layout: &Path, store: &Path) -> Result<(Duration, u64)> {
    let begun = Instant::now();
    let mut child = Command::new(guest::binary("hyperctl"))
        .args(["image", "import", "--arch", "amd64", "-n", "bench"])
        .arg(layout)
        .env("HYPERSTART_STORE_DIR", store)
        .stdout(Stdio::null())
        .spawn()
        .context("run hyperctl")?;
    let mut peak = 0;
    loop {
        peak = peak.max(peak_of(&child));
        if let Some(status) = child.try_wait().context("wait for hyperctl")? {
            ensure!(status.success(), "hyperctl image import: {status}");
            return Ok((begun.elapsed(), peak));
        }
        std::thread::sleep(LOOK);
    }
}

/// `VmHWM` of proc_pid_status(5), in bytes; 0 when the process has none any more.
fn peak_of(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0_u64) * 1024
}
