//! The note beside a guest image: what it is, how large, which bytes, made from what. It holds no date and no path of
//! the machine that made it, so it is as reproducible as the image.

use crate::config::beside;
use crate::content::Content;
use crate::error::{Error, Result};
use crate::output::{Written, hex, write_whole};
use crate::tree::{Kind, Tree, shown};
use crate::verity::Verity;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::Path;

#[derive(Debug, Serialize)]
pub struct Manifest {
    /// The file's name, without its directory.
    pub file: String,
    /// `cpio`, `cpio+lz4` or `erofs`.
    pub format: &'static str,
    pub size: u64,
    /// Bytes that hold something, holes and padding not counted.
    pub stored: u64,
    pub sha256: String,
    /// The version of this crate.
    pub builder: &'static str,
    /// What a kernel must be told to check each block; absent: nothing is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verity: Option<Verity>,
    pub files: Vec<ManifestFile>,
}

/// One regular file in the image.
#[derive(Debug, Serialize)]
pub struct ManifestFile {
    pub path: String,
    pub size: u64,
    pub sha256: String,
}

impl Manifest {
    pub fn new(
        image: &Path,
        format: &'static str,
        written: &Written,
        tree: &Tree,
    ) -> Result<Manifest> {
        let file =
            image.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut files = Vec::new();
        for visit in tree.walk() {
            if let Kind::File(content) = &tree.inode(visit.id).kind {
                let path = format!("/{}", shown(&visit.path.to_bytes()));
                files.push(ManifestFile { path, size: content.len(), sha256: digest(content)? });
            }
        }
        Ok(Manifest {
            file,
            format,
            size: written.size,
            stored: written.stored,
            sha256: written.sha256.clone(),
            builder: env!("CARGO_PKG_VERSION"),
            verity: written.verity.clone(),
            files,
        })
    }

    /// Writes it beside the image.
    pub fn store(&self, image: &Path) -> Result<Written> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|err| Error::io(format!("write the manifest of {image:?}: {err}")))?;
        text.push(b'\n');
        write_whole(&beside(image), &text)
    }
}

fn digest(content: &Content) -> Result<String> {
    let mut hash = Sha256::new();
    content.copy_to(&mut Vec::new(), |piece| {
        hash.update(piece);
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}
