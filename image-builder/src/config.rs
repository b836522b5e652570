//! What a container image says about running it, and the file beside an image that says so.
//!
//! `busybox.erofs` has `busybox.json` beside it: an [`Image`] in JSON. The names inside `config` are those of the OCI
//! image specification (config.md) and of Docker.

use crate::error::{Context, Error, Result};
use crate::output::{Written, write_whole};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// No honest description is larger.
pub const JSON_MAX: u64 = 4 << 20;

/// How a container of an image is run where its user does not say otherwise. Lists are empty, texts are empty where
/// the image says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// What runs; the user's words replace [`ImageConfig::cmd`], not this.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments of the entry point, or what runs where there is none.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Absolute; empty is `/`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; names are looked up in the image. Empty is root.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub user: String,
    /// The signal that asks it to stop, by name or number; empty is SIGTERM.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub stop_signal: String,
    /// Directories that want a volume each.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

impl ImageConfig {
    /// The configuration of an image on disk: see [`Image::load`].
    pub fn load(path: &Path) -> Result<ImageConfig> {
        Ok(Image::load(path)?.config)
    }

    /// What runs when the user gives these words, which may be none.
    pub fn command(&self, words: &[String]) -> Vec<String> {
        let arguments = if words.is_empty() { &self.cmd } else { words };
        self.entrypoint.iter().chain(arguments).cloned().collect()
    }
}

/// Docker writes `null` for an empty list.
fn null_is_empty<'de, T, D>(deserializer: D) -> std::result::Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The description that lies beside an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What the user calls it.
    pub name: String,
    /// As OCI names it (`amd64`).
    pub architecture: String,
    pub config: ImageConfig,
    /// The length of the image file in bytes.
    pub size: u64,
    /// SHA-256 of the image file in hexadecimal.
    pub sha256: String,
    /// The digest of what it was made from, where that has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

impl Image {
    /// Reads the description of the image `path`, which may be the image file or the description itself.
    pub fn load(path: &Path) -> Result<Image> {
        let path = beside(path);
        let bytes = read_bounded(&path, JSON_MAX).context(|| {
            format!("describe image (image-builder writes {path:?} beside each image)")
        })?;
        serde_json::from_slice(&bytes).map_err(|err| {
            Error::refused(format!("read {path:?}: not an image description: {err}"))
        })
    }

    /// Writes the description of the image `path` beside it.
    pub fn store(&self, path: &Path) -> Result<Written> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|err| Error::io(format!("describe image {:?}: {err}", self.name)))?;
        text.push(b'\n');
        write_whole(&beside(path), &text)
    }
}

/// Where the description of an image file lies: `.json` in place of `.erofs` or `.img`, else behind the whole name.
pub fn beside(path: &Path) -> PathBuf {
    match path.extension().and_then(OsStr::to_str) {
        Some("erofs" | "img") => path.with_extension("json"),
        Some("json") => path.to_path_buf(),
        Some(_) | None => {
            let mut name = path.as_os_str().to_owned();
            name.push(".json"); // `alpine-3.20` and `alpine-3.21` are two images
            name.into()
        }
    }
}

/// A whole file, which is refused if it is larger than `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).context(|| format!("open {path:?}"))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).context(|| format!("read {path:?}"))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::too_large(format!("read {path:?}: over {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// The architecture of this machine as OCI names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_nothing_are_empty_and_unknown_keys_are_no_matter() {
        let text = r#"{"Env":["A=b"],"Cmd":null,"Entrypoint":["/e"],"Hostname":"x"}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!((config.env.len(), config.cmd.len()), (1, 0));
        assert_eq!(config.command(&["x".into()]), ["/e", "x"]);
    }

    #[test]
    fn a_description_is_found_by_the_name_of_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.erofs");
        let config = ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() };
        let image = Image {
            name: "a".into(),
            architecture: "amd64".into(),
            config: config.clone(),
            size: 1,
            sha256: "00".into(),
            source: String::new(),
        };
        image.store(&path).unwrap();
        assert_eq!(Image::load(&path).unwrap(), image);
        assert_eq!(ImageConfig::load(&path.with_extension("json")).unwrap(), config);
    }

    #[test]
    fn two_images_never_share_a_description() {
        let at = |name: &str| beside(Path::new(name)).display().to_string();
        assert_eq!(
            [at("a.erofs"), at("initrd.img"), at("a.json")],
            ["a.json", "initrd.json", "a.json"]
        );
        assert_eq!([at("alpine-3.20"), at("alpine")], ["alpine-3.20.json", "alpine.json"]);
    }

    #[test]
    fn a_missing_description_says_what_to_do() {
        let err = Image::load(Path::new("/nowhere/x.erofs")).unwrap_err().to_string();
        assert!(err.contains("/nowhere/x.json") && err.contains("image-builder"), "{err}");
    }
}
