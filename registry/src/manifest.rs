//! Manifests and indexes as a registry gives them: how large, of which type, with which digest (image-spec, manifest.md,
//! image-index.md; docker's schema 2 differs in media types alone).
//!
//! A document that could be read as two things is refused: its type is said twice, in the answer's header and in itself,
//! and both must agree (CVE-2021-41190).

use crate::digest::Digest;
use crate::error::{Context, Error, Result, quoted};
use crate::registry::{Registry, read_bounded};
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
    OciImageIndex, OciImageManifest,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// What registries take at the most, and so the largest that there is (distribution-spec, "Pushing Manifests").
pub const MANIFEST_MAX: usize = 4 << 20;

const INDEX_TYPES: [&str; 2] = [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];
const IMAGE_TYPES: [&str; 2] = [OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];
const CONFIG_TYPES: [&str; 2] = [IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE];
/// What layers are called; behind it stands how they are compressed.
const LAYER_TYPES: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
const COMPRESSIONS: [&str; 5] = ["", "+gzip", ".gzip", "+zstd", ".zstd"];
/// Docker's first manifests, signed and not.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// A manifest or an index whose digest is known to be right.
pub struct Document {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: String,
    pub content: Content,
}

pub enum Content {
    Index(OciImageIndex),
    Image(Box<OciImageManifest>),
}

/// A blob that a manifest names: only these two are ever used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// What tells one kind of document from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

/// Gets the document of this name, which must have the digest that it is expected to have.
pub async fn get(registry: &Registry, name: &str, expected: Option<&Digest>) -> Result<Document> {
    let operation = || format!("get manifest {name:?} of {:?}", registry.reference.to_string());
    let accept = [INDEX_TYPES, IMAGE_TYPES].concat().join(", ");
    let accept = HeaderValue::from_str(&accept).map_err(|err| Error::new(err.to_string()))?;
    let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
    let response = registry.get(&format!("manifests/{name}"), &headers).await.context(operation)?;
    let header = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.split(';').next().unwrap_or(value).trim().to_owned())
    };
    let served = header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let promised = header("docker-content-digest").map(|text| Digest::parse(&text));
    let bytes = read_bounded(response, MANIFEST_MAX).await.context(operation)?;
    let digest = Digest::of(&bytes);
    // A digest that we cannot take is no help, and no harm where no other was asked for.
    let promised = promised.and_then(Result::ok);
    if let Some(expected) = expected.or(promised.as_ref())
        && *expected != digest
    {
        let cause = format!("its bytes have the digest {digest}, {expected} was promised");
        return Err(Error::new(cause)).context(operation);
    }
    read(bytes, digest, &served).context(operation)
}

fn read(bytes: Vec<u8>, digest: Digest, served: &str) -> Result<Document> {
    let outline: Outline = match serde_json::from_slice(&bytes) {
        Ok(outline) => outline,
        Err(_) if !is_known(served) => return Err(unsupported(served)),
        Err(err) => return Err(Error::new(err.to_string())),
    };
    if served.starts_with(SCHEMA_1) || outline.schema_version == Some(1) {
        return Err(Error::new("docker's image manifest version 2, schema 1: not supported")
            .hint("docker since 1.10 writes schema 2: pull and push the image with one"));
    }
    let own = outline.media_type.as_deref();
    let media_type = own.unwrap_or(served).to_owned();
    if !is_known(&media_type) {
        return Err(unsupported(&media_type));
    }
    if is_known(served) && own.is_some_and(|own| own != served) {
        let (own, served) = (quoted(&media_type), quoted(served));
        return Err(Error::new(format!("media type {own}, but it was served as {served}")));
    }
    if outline.schema_version != Some(2) {
        return Err(Error::new("schemaVersion: not 2"));
    }
    let has_image = outline.layers.is_some() || outline.config.is_some();
    if outline.manifests.is_some() && has_image {
        return Err(Error::new("it is an index and a manifest at once"));
    }
    let content = match INDEX_TYPES.contains(&media_type.as_str()) {
        true => Content::Index(parse(&bytes)?),
        false => Content::Image(Box::new(parse(&bytes)?)),
    };
    Ok(Document { bytes, digest, media_type, content })
}

fn unsupported(media_type: &str) -> Error {
    Error::new(format!("media type {}: not an image's", quoted(media_type)))
        .hint("registries hold other things too, and web servers answer with pages")
}

fn is_known(media_type: &str) -> bool {
    is_index(media_type) || IMAGE_TYPES.contains(&media_type)
}

pub fn is_index(media_type: &str) -> bool {
    INDEX_TYPES.contains(&media_type)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|err| Error::new(err.to_string()))
}

impl Blob {
    pub fn config(descriptor: &OciDescriptor) -> Result<Blob> {
        let media_type = &descriptor.media_type;
        match CONFIG_TYPES.contains(&media_type.as_str()) {
            true => Blob::new(descriptor).context(|| "configuration".into()),
            false => Err(Error::new(format!(
                "configuration: media type {}: not a container image's",
                quoted(media_type)
            ))),
        }
    }

    pub fn layer(descriptor: &OciDescriptor) -> Result<Blob> {
        let media_type = descriptor.media_type.as_str();
        let is_layer = LAYER_TYPES.iter().any(|prefix| {
            media_type.strip_prefix(prefix).is_some_and(|rest| COMPRESSIONS.contains(&rest))
        });
        match is_layer {
            true => Blob::new(descriptor).context(|| "layer".into()),
            false => {
                Err(Error::new(format!("layer: media type {}: not supported", quoted(media_type))))
            }
        }
    }

    fn new(descriptor: &OciDescriptor) -> Result<Blob> {
        let digest = Digest::parse(&descriptor.digest)?;
        let size = u64::try_from(descriptor.size)
            .map_err(|_| Error::new(format!("{digest}: size {}", descriptor.size)))?;
        Ok(Blob { digest, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(text: &str, served: &str) -> String {
        let err = read(text.into(), Digest::of(text.as_bytes()), served).err().unwrap();
        err.to_string()
    }

    #[test]
    fn what_is_no_manifest_of_ours_is_refused_by_name() {
        let v1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        for (text, served, named) in [
            (r#"{"schemaVersion": 1, "fsLayers": []}"#, v1, "schema 1"),
            (r#"{"schemaVersion": 1}"#, "application/json", "schema 1"),
            ("<html>", "text/html", "text/html"),
            ("{}", "application/json", "application/json"),
            (r#"{"mediaType": "application/x"}"#, OCI_IMAGE_MEDIA_TYPE, "application/x"),
            (r#"{"schemaVersion": 3}"#, OCI_IMAGE_MEDIA_TYPE, "schemaVersion"),
            ("{", OCI_IMAGE_MEDIA_TYPE, "line 1"),
        ] {
            let cause = cause(text, served);
            assert!(cause.contains(named), "{text}: {cause}");
        }
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        let both = r#"{"schemaVersion": 2, "manifests": [], "layers": []}"#;
        for served in [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE] {
            assert!(cause(both, served).contains("at once"));
        }
        let index =
            format!(r#"{{"schemaVersion": 2, "mediaType": "{OCI_IMAGE_INDEX_MEDIA_TYPE}"}}"#);
        assert!(cause(&index, OCI_IMAGE_MEDIA_TYPE).contains("served as"));
    }

    #[test]
    fn layers_are_archives() {
        let blob = |media_type: &str, size: i64| {
            let digest = Digest::of(b"").to_string();
            Blob::layer(&OciDescriptor {
                media_type: media_type.into(),
                digest,
                size,
                ..OciDescriptor::default()
            })
        };
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            assert_eq!(blob(good, 5).unwrap().size, 5, "{good}");
            assert!(blob(good, -1).is_err());
        }
        for bad in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/x",
        ] {
            assert!(blob(bad, 5).unwrap_err().message().contains(bad), "{bad}");
        }
    }
}
