//! A pull: a name becomes a manifest, a manifest becomes a layout on disk.
//!
//! Two steps, so that who calls may stop between them: an image that is there already needs no more than its name.

use crate::blob;
use crate::digest::Digest;
use crate::error::{Context, Error, Result, quoted};
use crate::layout::Layout;
use crate::manifest::{self, Blob, Content, Document, MANIFEST_MAX};
use crate::platform;
use crate::progress::Progress;
use crate::registry::Registry;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use oci_client::manifest::OciImageManifest;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;

/// How many blobs are on their way at a time.
const PARALLEL: usize = 3;
/// Indexes within indexes.
const DEPTH_MAX: usize = 3;

/// The most that an image may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all layers as they are sent.
    pub content: u64,
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { content: 16 << 30, layers: 512 }
    }
}

/// An image that a registry has, of one architecture.
#[derive(Debug)]
pub struct Image {
    /// Of its manifest.
    pub digest: Digest,
    /// Bytes of configuration and layers, as they are sent.
    pub size: u64,
    architecture: String,
    media_type: String,
    manifest: Vec<u8>,
    config: Blob,
    layers: Vec<Blob>,
}

/// What is looked at in a configuration before any layer is fetched.
#[derive(Deserialize)]
struct Config {
    architecture: String,
    os: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Finds the image that the registry's reference names, for this architecture (as OCI calls it: `amd64`).
pub async fn resolve(registry: &Registry, architecture: &str, limits: Limits) -> Result<Image> {
    let reference = &registry.reference;
    let mut document =
        manifest::get(registry, &reference.manifest_name(), reference.digest()).await?;
    for _ in 0..DEPTH_MAX {
        let index = match document.content {
            Content::Image(ref image) => {
                let image = read(image, &document, architecture, limits);
                return image.context(|| format!("manifest {}", document.digest));
            }
            Content::Index(ref index) => index,
        };
        let operation = || format!("index {} of {:?}", document.digest, reference.to_string());
        let entry = platform::choose(&index.manifests, architecture).context(operation)?;
        let digest = Digest::parse(&entry.digest).context(operation)?;
        let is_large = usize::try_from(entry.size).is_ok_and(|size| size > MANIFEST_MAX);
        if is_large {
            let cause = format!("manifest {digest}: {} bytes are too many", entry.size);
            return Err(Error::new(cause)).context(operation);
        }
        document = manifest::get(registry, &digest.to_string(), Some(&digest)).await?;
    }
    Err(Error::new(format!("index {}: indexes lie too deep within one another", document.digest)))
}

fn read(
    image: &OciImageManifest,
    document: &Document,
    architecture: &str,
    limits: Limits,
) -> Result<Image> {
    let config = Blob::config(&image.config)?;
    if config.size > MANIFEST_MAX as u64 {
        return Err(Error::new(format!("configuration: {} bytes are too many", config.size)));
    }
    if image.layers.len() > limits.layers {
        let count = image.layers.len();
        return Err(Error::new(format!("{count} layers, {} is the limit", limits.layers)));
    }
    let layers = image.layers.iter().map(Blob::layer).collect::<Result<Vec<Blob>>>()?;
    let size = layers.iter().fold(config.size, |sum, layer| sum.saturating_add(layer.size));
    if size > limits.content {
        let cause = format!("{size} bytes, {} is the limit", limits.content);
        return Err(Error::new(cause).hint("--max-size raises this limit"));
    }
    Ok(Image {
        digest: document.digest.clone(),
        size,
        architecture: architecture.to_owned(),
        media_type: document.media_type.clone(),
        manifest: document.bytes.clone(),
        config,
        layers,
    })
}

/// Whether who will take the image over has a layer already: the digests of the decompressed layers below it, from the
/// lowest up, and its own.
pub type HasLayer<'a> = &'a dyn Fn(&[String], &str) -> bool;

/// Fetches what the layout lacks of the image. Layers that are there already are left out of it.
pub async fn fetch(
    registry: &Registry,
    image: &Image,
    layout: &Layout,
    has_layer: HasLayer<'_>,
    progress: &dyn Progress,
) -> Result<()> {
    blob::fetch(registry, layout, &image.config, progress).await?;
    let operation = || format!("configuration {}", image.config.digest);
    let bytes = fs::read(layout.blob(&image.config.digest)).context(operation)?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|err| Error::new(err.to_string()))
        .context(operation)?;
    image.check(&config).context(operation)?;
    let ids = config.rootfs.diff_ids.as_slice();
    let mut wanted = BTreeSet::new(); // one layer may be there twice
    for (index, (layer, id)) in image.layers.iter().zip(ids).enumerate() {
        match has_layer(ids.get(..index).unwrap_or_default(), id) {
            true => progress.kept(&layer.digest, layer.size),
            false => drop(wanted.insert(layer)),
        }
    }
    let fetches = wanted.into_iter().map(|layer| blob::fetch(registry, layout, layer, progress));
    let fetches: Vec<_> = fetches.collect();
    stream::iter(fetches).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
    layout.finish(&registry.reference.to_string(), &image.media_type, &image.manifest)
}

impl Image {
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Whether its configuration is one for us; a manifest alone does not say.
    fn check(&self, config: &Config) -> Result<()> {
        if config.os != "linux" || config.architecture != self.architecture {
            let there = quoted(&format!("{}/{}", config.os, config.architecture));
            let ours = &self.architecture;
            return Err(Error::new(format!("no image for \"linux/{ours}\": there is {there}")));
        }
        let (ids, layers) = (config.rootfs.diff_ids.len(), self.layers.len());
        match ids == layers {
            true => Ok(()),
            false => Err(Error::new(format!("{ids} layers, but {layers} in the manifest"))),
        }
    }
}
