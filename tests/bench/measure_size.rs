//! How large the files are that a guest is made of.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use harness::guest;
use serde_json::Value;

use crate::figures::{Figures, mib};

pub fn measure(figures: &mut Figures) -> Result<()> {
    let init = guest::payload("init");
    figures.once("size.init", mib(bytes(&init)?));
    figures.once("size.vmlinux", megabytes("vmlinux")?);
    figures.once("size.bzimage", megabytes("bzImage")?);
    figures.once("size.initrd", mib(bytes(&guest::file("initrd.img"))?));
    figures.once("size.rootfs", mib(bytes(&guest::file("rootfs.erofs"))?));
    figures.once("size.rootfs_content", mib(stored(&guest::file("rootfs.json"))?));
    Ok(())
}

fn megabytes(name: &str) -> Result<f64> {
    Ok(bytes(&guest::file(name))? as f64 / 1e6)
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("stat {path:?}"))?.len())
}

/// The image before it was padded, as its manifest has it.
fn stored(manifest: &Path) -> Result<u64> {
    let text = fs::read_to_string(manifest).with_context(|| format!("read {manifest:?}"))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("parse {manifest:?}"))?;
    value.get("stored").and_then(Value::as_u64).with_context(|| format!("{manifest:?}: no stored"))
}
