//! What the store writes down: `images/sha256/DIGEST.json`, one image each, and `names.json`, which says what each name
//! means. Both appear whole or not at all.

use super::{Layer, Stored, name};
use crate::config::{ImageConfig, JSON_MAX, read_bounded};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::output::write_whole;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The form of a record; a later one is refused.
const VERSION: u32 = 1;

/// What every whole name means.
pub type Names = BTreeMap<String, Digest>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub digest: Digest,
    pub architecture: String,
    pub config: ImageConfig,
    /// From the lowest up.
    pub layers: Vec<LayerRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub diff_id: Digest,
    /// Of a layer that takes something from those below it: the chain that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<Digest>,
    /// The length of its image.
    pub size: u64,
}

impl LayerRecord {
    /// Where its image lies below the store's directory.
    pub fn path(&self) -> String {
        match &self.chain_id {
            Some(chain_id) => format!("chains/sha256/{}.erofs", chain_id.as_hex()),
            None => format!("layers/sha256/{}.erofs", self.diff_id.as_hex()),
        }
    }
}

impl Record {
    pub fn new(
        digest: Digest,
        architecture: String,
        config: ImageConfig,
        layers: Vec<LayerRecord>,
    ) -> Record {
        Record { version: VERSION, digest, architecture, config, layers }
    }

    pub fn save(&self, directory: &Path) -> Result<()> {
        save(&directory.join(Record::place(&self.digest)), self)
    }

    /// Where it lies below the store's directory.
    pub fn place(digest: &Digest) -> String {
        format!("images/sha256/{}.json", digest.as_hex())
    }

    /// The record of this image; `None` if there is none.
    pub fn load(directory: &Path, digest: &Digest) -> Result<Option<Record>> {
        let path = directory.join(Record::place(digest));
        let Some(record) = load::<Record>(&path)? else {
            return Ok(None);
        };
        match record.version == VERSION && record.digest == *digest {
            true => Ok(Some(record)),
            false => Err(Error::refused(format!(
                "read {path:?}: not a record of {digest} in version {VERSION}"
            ))),
        }
    }

    /// As callers see it.
    pub fn stored(self, directory: &Path, names: &Names) -> Stored {
        let own = names.iter().filter(|(_, digest)| **digest == self.digest);
        let mut own: Vec<String> = own.map(|(whole, _)| name::short(whole).to_owned()).collect();
        own.sort_unstable();
        let layers = self.layers.iter().map(|layer| Layer {
            path: directory.join(layer.path()),
            diff_id: layer.diff_id.clone(),
            size: layer.size,
        });
        Stored {
            names: own,
            size: self.layers.iter().map(|layer| layer.size).sum(),
            layers: layers.collect(),
            digest: self.digest,
            config: self.config,
            architecture: self.architecture,
        }
    }
}

pub fn load_names(directory: &Path) -> Result<Names> {
    Ok(load(&directory.join("names.json"))?.unwrap_or_default())
}

pub fn save_names(directory: &Path, names: &Names) -> Result<()> {
    save(&directory.join("names.json"), names)
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.try_exists().context(|| format!("look for {path:?}"))? {
        return Ok(None);
    }
    let bytes = read_bounded(path, JSON_MAX)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|err| Error::refused(format!("read {path:?}: {err}")))
}

fn save<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|err| Error::io(format!("write {path:?}: {err}")))?;
    text.push(b'\n');
    write_whole(path, &text).map(drop)
}
