//! Images as `docker save` and `podman save` write them: `manifest.json` names a configuration and layers by the paths
//! of files in the archive. Layers have no digest of their own there; they are checked against the configuration's
//! `diff_ids`, and the configuration against its name, which is its digest.

use crate::config::JSON_MAX;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::files::Files;
use crate::image::{Layer, Source, config_of, is_named};
use crate::oci::parse;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Saved {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// Finds the image that is asked for: `reference` among several.
pub fn load(files: &Files, reference: Option<&str>, architecture: &str) -> Result<Source> {
    let images: Vec<Saved> = parse("manifest.json", &files.read("manifest.json", JSON_MAX)?)?;
    let saved = choose(images, reference)?;
    let bytes = files.read(&saved.config, JSON_MAX).context(|| "configuration".into())?;
    let digest = Digest::of(&bytes);
    if let Some(asked) = named_digest(&saved.config).filter(|asked| *asked != digest) {
        return Err(Error::refused(format!(
            "configuration {asked}: its bytes have the digest {digest}"
        )));
    }
    let config = config_of(&bytes, architecture)?;
    if config.diff_ids.len() != saved.layers.len() {
        let (layers, ids) = (saved.layers.len(), config.diff_ids.len());
        return Err(Error::refused(format!(
            "manifest.json: {layers} layers, but {ids} in the configuration"
        )));
    }
    let layers = saved.layers.iter().zip(config.diff_ids).map(|(path, diff_id)| {
        Ok(Layer { blob: Ok(files.blob(path)?), digest: None, diff_id: Some(diff_id) })
    });
    Ok(Source {
        layers: layers.collect::<Result<_>>()?,
        config: config.config,
        names: saved.tags().to_vec(),
        digest: digest.to_string(),
    })
}

fn choose(images: Vec<Saved>, reference: Option<&str>) -> Result<Saved> {
    let offered: Vec<String> = images.iter().flat_map(|saved| saved.tags().to_vec()).collect();
    let is_meant = |saved: &Saved| match reference {
        Some(reference) => saved.tags().iter().any(|tag| is_named(tag, reference)),
        None => true,
    };
    let mut meant: Vec<Saved> = images.into_iter().filter(is_meant).collect();
    match (meant.pop(), meant.is_empty(), reference) {
        (Some(only), true, _) => Ok(only),
        (Some(_), false, _) => {
            Err(Error::refused(format!("several images: choose one with --image: {offered:?}")))
        }
        (None, _, Some(reference)) => Err(Error::refused(format!(
            "image {reference:?}: there is none of this name, only {offered:?}"
        ))),
        (None, _, None) => Err(Error::refused("manifest.json: it names no image")),
    }
}

/// The digest that a configuration's file name says: `HEX.json`, or `blobs/sha256/HEX`.
fn named_digest(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name))
}
