//! Images as the OCI image specification stores them: `index.json` names manifests, a manifest names a configuration
//! and layers, each by its digest, each under `blobs/sha256/` (image-layout.md, image-index.md, manifest.md). Docker's
//! own manifests differ only in their media types.
//!
//! Every blob's length and digest are checked before a word of it is believed; the layers' while they are read.

use crate::config::JSON_MAX;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::files::Files;
use crate::image::{Layer, Source, config_of};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// How an image's name is noted beside its manifest; the first is containerd's.
const NAME_KEYS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Indexes within indexes.
const DEPTH_MAX: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
}

impl Descriptor {
    fn name(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        NAME_KEYS.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
    }
}

/// One image of an index that could be meant.
struct Candidate {
    descriptor: Descriptor,
    name: Option<String>,
}

/// Finds the image that is asked for: `reference` among several, of this architecture.
pub fn load(files: &Files, reference: Option<&str>, architecture: &str) -> Result<Source> {
    let index: Index = parse("index.json", &files.read("index.json", JSON_MAX)?)?;
    let mut candidates = Vec::new();
    for descriptor in index.manifests {
        let name = descriptor.name().map(str::to_owned);
        collect(files, Candidate { descriptor, name }, 0, &mut candidates)?;
    }
    let chosen = choose(candidates, reference, architecture)?;
    let digest = Digest::parse(&chosen.descriptor.digest)?;
    let bytes = read_blob(files, &chosen.descriptor, "manifest")?;
    let manifest: Manifest = parse("manifest", &bytes)?;
    let config = read_blob(files, &manifest.config, "configuration")?;
    let config = config_of(&config, architecture)?;
    if config.diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), config.diff_ids.len());
        return Err(Error::refused(format!(
            "image {digest}: {layers} layers, but {ids} in its configuration"
        )));
    }
    let layers = manifest.layers.iter().zip(config.diff_ids);
    let layers = layers.map(|(descriptor, diff_id)| layer(files, descriptor, diff_id));
    Ok(Source {
        layers: layers.collect::<Result<_>>()?,
        config: config.config,
        names: chosen.name.into_iter().collect(),
        digest: digest.to_string(),
    })
}

/// Follows nested indexes to manifests of images; what documents an image (attestations) is left out.
fn collect(
    files: &Files,
    candidate: Candidate,
    depth: usize,
    into: &mut Vec<Candidate>,
) -> Result<()> {
    let Candidate { descriptor, name } = candidate;
    let is_attestation = descriptor.annotations.as_ref().is_some_and(|annotations| {
        annotations
            .get("vnd.docker.reference.type")
            .is_some_and(|kind| kind == "attestation-manifest")
    });
    if is_attestation {
        return Ok(());
    }
    if !INDEX_TYPES.contains(&descriptor.media_type.as_str()) {
        into.push(Candidate { descriptor, name });
        return Ok(());
    }
    if depth == DEPTH_MAX {
        return Err(Error::refused("index.json: indexes lie too deep within one another"));
    }
    let index: Index = parse("index", &read_blob(files, &descriptor, "index")?)?;
    for descriptor in index.manifests {
        let name = name.clone().or_else(|| descriptor.name().map(str::to_owned));
        collect(files, Candidate { descriptor, name }, depth + 1, into)?;
    }
    Ok(())
}

/// The one image that is meant, or an error that lists what there is.
fn choose(
    candidates: Vec<Candidate>,
    reference: Option<&str>,
    architecture: &str,
) -> Result<Candidate> {
    let named: Vec<Candidate> =
        candidates.into_iter().filter(|candidate| matches(candidate, reference)).collect();
    let list = |candidates: &[Candidate]| {
        let names = candidates.iter().map(|candidate| {
            let Descriptor { digest, platform, .. } = &candidate.descriptor;
            let platform = platform.clone().unwrap_or_default();
            let name = candidate.name.as_deref().unwrap_or(digest);
            format!("{name:?} ({}/{})", platform.os, platform.architecture)
        });
        names.collect::<Vec<_>>().join(", ")
    };
    if named.is_empty() {
        return Err(Error::refused(match reference {
            Some(reference) => format!("image {reference:?}: there is none of this name or digest"),
            None => "index.json: it names no image".into(),
        }));
    }
    let offered = list(&named);
    let mut fitting: Vec<Candidate> =
        named.into_iter().filter(|candidate| fits(candidate, architecture)).collect();
    // a plain build serves every machine of its architecture, a variant's may not
    if fitting.iter().any(|candidate| !has_variant(candidate)) {
        fitting.retain(|candidate| !has_variant(candidate));
    }
    fitting.dedup_by(|one, other| one.descriptor.digest == other.descriptor.digest);
    match (fitting.pop(), fitting.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            fitting.push(last);
            let offered = list(&fitting);
            Err(Error::refused(format!("several images: choose one with --image: {offered}")))
        }
        (None, _) => {
            Err(Error::unsupported(format!("no image for linux/{architecture}, only {offered}")))
        }
    }
}

fn matches(candidate: &Candidate, reference: Option<&str>) -> bool {
    let Some(reference) = reference else {
        return true;
    };
    candidate.descriptor.digest == reference
        || candidate.name.as_deref().is_some_and(|name| crate::image::is_named(name, reference))
}

/// Whether it is for this architecture, or does not say.
fn fits(candidate: &Candidate, architecture: &str) -> bool {
    candidate.descriptor.platform.as_ref().is_none_or(|platform| {
        platform.architecture == architecture && (platform.os == "linux" || platform.os.is_empty())
    })
}

fn has_variant(candidate: &Candidate) -> bool {
    let platform = candidate.descriptor.platform.as_ref();
    platform.is_some_and(|platform| !platform.variant.is_empty() && platform.variant != "v8")
}

/// A blob that is held in memory, its length and digest checked.
fn read_blob(files: &Files, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
    let known = what != "manifest"
        || descriptor.media_type.is_empty()
        || MANIFEST_TYPES.contains(&descriptor.media_type.as_str());
    if !known {
        let media_type = &descriptor.media_type;
        return Err(Error::unsupported(format!("{what}: media type {media_type:?}")));
    }
    let digest = Digest::parse(&descriptor.digest).context(|| what.into())?;
    let bytes = files.read(&blob_path(&digest), JSON_MAX).context(|| what.into())?;
    check_length(descriptor, bytes.len() as u64).context(|| format!("{what} {digest}"))?;
    let found = Digest::of(&bytes);
    match found == digest {
        true => Ok(bytes),
        false => Err(Error::refused(format!("{what} {digest}: its bytes have the digest {found}"))),
    }
}

fn check_length(descriptor: &Descriptor, length: u64) -> Result<()> {
    match length == descriptor.size {
        true => Ok(()),
        false => {
            let asked = descriptor.size;
            Err(Error::refused(format!("it has {length} bytes, {asked} were promised")))
        }
    }
}

fn layer(files: &Files, descriptor: &Descriptor, diff_id: Digest) -> Result<Layer> {
    let digest = Digest::parse(&descriptor.digest).context(|| "layer".into())?;
    let media_type = &descriptor.media_type;
    let is_tar = media_type.is_empty()
        || media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.");
    if !is_tar || media_type.contains("encrypted") {
        return Err(Error::unsupported(format!("layer {digest}: media type {media_type:?}")));
    }
    let blob = files.blob(&blob_path(&digest));
    if let Ok(blob) = &blob {
        check_length(descriptor, blob.length).context(|| format!("layer {digest}"))?;
    }
    Ok(Layer { blob, digest: Some(digest), diff_id: Some(diff_id) })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.as_hex())
}

/// JSON from outside.
pub fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|err| Error::refused(format!("{what}: {err}")))
}
