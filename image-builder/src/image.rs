//! A container image whatever its format: layers, from the lowest up, and a configuration. Here the layers become one
//! tree, each checked against its digests while it is read.

use crate::config::ImageConfig;
use crate::digest::{Digest, Hashing};
use crate::error::{Context, Error, Result};
use crate::layers::{self, LeftOut, Lower};
use crate::limits::Budget;
use crate::merge::merge;
use crate::place::Place;
use crate::progress::Progress;
use crate::spool::Spool;
use crate::stream::{Blob, BlobReader, Bounded, Compression};
use crate::tar::{self, Archive};
use crate::tree::Tree;
use serde::Deserialize;
use std::io::{self, Read};

/// An image that was found, its layers not yet read.
pub struct Source {
    /// From the lowest up.
    pub layers: Vec<Layer>,
    pub config: ImageConfig,
    /// What it is called where it comes from.
    pub names: Vec<String>,
    /// Its digest: of the manifest, or of the configuration where there is no other.
    pub digest: String,
}

/// One layer.
pub struct Layer {
    /// Or why it cannot be read: a layer that is in the store is not.
    pub blob: Result<Blob>,
    /// Of the blob as it is stored.
    pub digest: Option<Digest>,
    /// Of the archive once decompressed.
    pub diff_id: Option<Digest>,
}

impl Layer {
    /// How much there is to read.
    pub fn length(&self) -> u64 {
        self.blob.as_ref().map_or(0, |blob| blob.length)
    }

    pub fn name(&self) -> String {
        let digest = self.digest.as_ref().or(self.diff_id.as_ref());
        digest.map_or_else(|| "archive".into(), |digest| format!("layer {digest}"))
    }
}

/// Reads the layers into one tree.
pub fn flatten(
    layers: &[Layer],
    budget: &mut Budget,
    spool: &mut Spool,
    progress: &dyn Progress,
) -> Result<Tree> {
    if layers.len() > budget.limits().layers {
        let (count, limit) = (layers.len(), budget.limits().layers);
        return Err(Error::too_large(format!("image: {count} layers, over {limit}")));
    }
    let mut left_out = LeftOut::new();
    let mut tree = Tree::default();
    progress.begin("reading layers", layers.iter().map(Layer::length).sum());
    for layer in layers {
        let lower = Lower::new(Some(&tree));
        let mut reader =
            Reader { layer, lower: &lower, budget, spool, copies: false, left_out: &mut left_out };
        let (upper, _) = reader.read(progress).context(|| layer.name())?;
        merge(&mut tree, &upper).context(|| layer.name())?;
    }
    progress.end();
    warn(left_out, progress);
    Ok(tree)
}

/// Says what an image cannot hold.
pub fn warn(left_out: LeftOut, progress: &dyn Progress) {
    for (what, count) in left_out {
        progress.warn(&format!("left out of {count} files: {what} (an image cannot hold it)"));
    }
}

/// What reading one layer needs.
pub struct Reader<'a> {
    pub layer: &'a Layer,
    pub lower: &'a Lower<'a>,
    pub budget: &'a mut Budget,
    pub spool: &'a mut Spool,
    /// Whether contents go to the spool even where they could stay in the blob.
    pub copies: bool,
    pub left_out: &'a mut LeftOut,
}

impl Reader<'_> {
    /// The layer's tree, and the digest of its archive. A wrong digest explains every other error, so it is the one
    /// that is told.
    pub fn read(&mut self, progress: &dyn Progress) -> Result<(Tree, Digest)> {
        let Layer { blob, digest, diff_id } = self.layer;
        let blob = blob.as_ref().map_err(Clone::clone)?;
        let compression = blob.compression()?;
        let mut raw = Hashing::new(Watched { inner: blob.reader(), progress });
        let parsed = match compression {
            Compression::None => self.parse_plain(blob, &mut raw).map(|tree| (tree, None)),
            Compression::Gzip | Compression::Zstd => self
                .parse_compressed(compression, &mut raw)
                .map(|(tree, found)| (tree, Some(found))),
        };
        let found = raw.finish()?;
        if let Some(digest) = digest {
            check(digest, &found)?;
        }
        let (tree, unpacked) = match parsed {
            Ok(parsed) => parsed,
            Err(err) => {
                // an uncompressed layer of a docker archive has only this digest
                let whole = diff_id.as_ref().filter(|_| compression == Compression::None);
                return Err(whole.and_then(|diff_id| check(diff_id, &found).err()).unwrap_or(err));
            }
        };
        let unpacked = unpacked.unwrap_or(found);
        if let Some(diff_id) = diff_id {
            check(diff_id, &unpacked)?;
        }
        Ok((tree, unpacked))
    }

    /// Contents may stay where they are: in the blob.
    fn parse_plain(&mut self, blob: &Blob, raw: &mut impl Read) -> Result<Tree> {
        let Blob { file, offset, length } = blob;
        let place = match self.copies {
            true => Place::Spool(self.spool),
            false => Place::File(file.clone(), *offset),
        };
        let input = Compression::None.open(raw);
        let mut archive = Archive::new(Bounded::new(input, *length, *length));
        let tree = layers::read(&mut archive, self.lower, place, self.budget, self.left_out)?;
        self.check_end_mark(&archive)?;
        Ok(tree)
    }

    fn check_end_mark<S: tar::Source>(&self, archive: &Archive<S>) -> Result<()> {
        match self.layer.digest.is_none() && self.layer.diff_id.is_none() {
            true => archive.check_end_mark(),
            false => Ok(()),
        }
    }

    /// Contents go to the spool. Gives the digest of all that was decompressed, too.
    fn parse_compressed(
        &mut self,
        compression: Compression,
        raw: &mut impl Read,
    ) -> Result<(Tree, Digest)> {
        let unpacked = Hashing::new(compression.open(raw));
        // headers and padding are not content, yet they cost time: each entry may have 4 KiB of them
        let limits = self.budget.limits();
        let left = self.budget.content_left().saturating_add(limits.entries.saturating_mul(4096));
        let mut archive = Archive::new(Bounded::new(unpacked, left, limits.content));
        let place = Place::Spool(self.spool);
        let tree = layers::read(&mut archive, self.lower, place, self.budget, self.left_out)?;
        self.check_end_mark(&archive)?;
        let mut rest = archive.into_source();
        io::copy(&mut rest, &mut io::sink())?;
        Ok((tree, rest.into_inner().finish()?))
    }
}

fn check(asked: &Digest, found: &Digest) -> Result<()> {
    match asked == found {
        true => Ok(()),
        false => {
            Err(Error::refused(format!("its bytes have the digest {found}, asked for was {asked}")))
        }
    }
}

/// Reads a blob under the eyes of a person.
struct Watched<'a> {
    inner: BlobReader,
    progress: &'a dyn Progress,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.progress.advance(size as u64);
        Ok(size)
    }
}

/// What an image's configuration says that we use (OCI image-spec, config.md).
pub struct Described {
    pub config: ImageConfig,
    pub diff_ids: Vec<Digest>,
}

/// Reads a configuration; one for another system or architecture is refused.
pub fn config_of(bytes: &[u8], architecture: &str) -> Result<Described> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
        #[serde(default)]
        config: Option<ImageConfig>,
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<String>,
    }
    let Configuration { architecture: own, os, config, rootfs } =
        crate::oci::parse("configuration", bytes)?;
    if own != architecture || os != "linux" {
        let asked = format!("linux/{architecture}");
        return Err(Error::unsupported(format!(
            "image: it is for {os}/{own}, asked for was {asked}"
        )));
    }
    let diff_ids = rootfs.diff_ids.iter().map(|text| Digest::parse(text));
    let diff_ids = diff_ids.collect::<Result<_>>().context(|| "configuration".into())?;
    Ok(Described { config: config.unwrap_or_default(), diff_ids })
}

/// Whether `name` is what a user means by `reference`: the whole, or its last parts (`alpine:3` for
/// `docker.io/library/alpine:3`), with or without its tag.
pub fn is_named(name: &str, reference: &str) -> bool {
    let ends = |name: &str| {
        name == reference
            || name
                .strip_suffix(reference)
                .is_some_and(|rest| rest.ends_with('/') || rest.ends_with(':'))
    };
    let without_tag = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    ends(name) || without_tag.is_some_and(|(name, _)| ends(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_said_short() {
        let name = "docker.io/library/alpine:3.20";
        for short in [name, "alpine:3.20", "alpine", "library/alpine", "3.20"] {
            assert!(is_named(name, short), "{short}");
        }
        for other in ["pine", "alpine:3", "", "lpine:3.20"] {
            assert!(!is_named(name, other) || other.is_empty(), "{other}");
        }
    }

    #[test]
    fn an_image_of_another_machine_is_refused() {
        let text = br#"{"architecture":"s390x","os":"linux","rootfs":{"diff_ids":[]}}"#;
        let err = config_of(text, "amd64").err().unwrap().to_string();
        assert_eq!(err, "image: it is for linux/s390x, asked for was linux/amd64");
        assert!(config_of(text, "s390x").is_ok());
    }
}
