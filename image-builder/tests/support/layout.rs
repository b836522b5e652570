//! OCI layouts and docker archives, honest or not.

use super::tar::Tar;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Files of a layout, by path.
#[derive(Clone, Default)]
pub struct Layout(pub BTreeMap<String, Vec<u8>>);

impl Layout {
    /// Adds a blob; gives its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        self.0.insert(format!("blobs/sha256/{}", hex(bytes)), bytes.to_vec());
        serde_json::json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
    }

    pub fn json(&mut self, media_type: &str, value: &serde_json::Value) -> serde_json::Value {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// Adds an image of layers `(stored, unpacked)`; gives its manifest's descriptor.
    pub fn image(
        &mut self,
        architecture: &str,
        layers: &[(Vec<u8>, Vec<u8>)],
    ) -> serde_json::Value {
        let diff_ids: Vec<_> = layers.iter().map(|(_, unpacked)| digest(unpacked)).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Env": ["A=b"], "Cmd": ["sh"], "User": "nobody", "WorkingDir": "/w", "StopSignal": "SIGINT"},
        });
        let config = self.json(CONFIG, &config);
        let layers: Vec<_> = layers.iter().map(|(stored, _)| self.blob(LAYER, stored)).collect();
        self.json(
            MANIFEST,
            &serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers}),
        )
    }

    /// Adds the index that names these manifests.
    pub fn index(mut self, manifests: &[serde_json::Value]) -> Layout {
        self.0.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let index =
            serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.0.insert("index.json".into(), index.to_string().into_bytes());
        self
    }

    pub fn write(&self, directory: &Path) {
        for (path, bytes) in &self.0 {
            let path = directory.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub fn archive(&self) -> Vec<u8> {
        let add = |tar: Tar, (path, bytes): (&String, &Vec<u8>)| tar.file(path, bytes);
        self.0.iter().fold(Tar::new(), add).finish()
    }
}

/// What `docker save` writes of uncompressed layers.
pub fn docker(layers: &[Vec<u8>]) -> Tar {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Cmd": ["sh"], "Env": null, "Entrypoint": null},
    });
    let config = config.to_string().into_bytes();
    let paths: Vec<_> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    let manifest = serde_json::json!([{
        "Config": format!("{}.json", hex(&config)), "RepoTags": ["demo:1"], "Layers": paths,
    }]);
    let tar = Tar::new().file(&format!("{}.json", hex(&config)), &config);
    let add = |tar: Tar, (path, layer): (&String, &Vec<u8>)| tar.file(path, layer);
    let tar = paths.iter().zip(layers).fold(tar, add);
    tar.file("manifest.json", manifest.to_string().as_bytes())
}
