//! How the guest's kernel is told of its root: an EROFS image in persistent memory, mapped (DAX), or read through
//! dm-verity where the image's manifest has a root hash.
//!
//! The manifest is the `.json` beside the image, as `image-builder rootfs --verity` writes it. It is as trusted as the
//! command line of QEMU is: who may write it may choose the kernel too. What it says must be about this very file, and
//! one that cannot be read is an error, so that no check goes missing in silence.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

/// The largest manifest of an image that is read, in bytes: it has a line of some 200 for each file.
const MAX_MANIFEST: u64 = 16 << 20;
const BLOCK_BYTES: u64 = 4096;
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;
/// As cryptsetup names such devices; the agent knows its root by it.
const UUID: &str = "CRYPT-VERITY-";
const DEVICE: &str = "/dev/pmem0";

/// What the kernel must know to check each block before it is used (dm-verity).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    data_blocks: u64,
    hash_start_block: u64,
    /// 64 hexadecimal digits.
    root_hash: String,
}

impl Verity {
    /// What the image's manifest says of it; `None` if it says nothing, or if there is none.
    pub(crate) fn of_image(image: &Path, bytes: u64) -> io::Result<Option<Self>> {
        let path = image.with_extension("json");
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_MANIFEST => {
                return Err(io::Error::other(format!("its manifest {path:?} is too large")));
            }
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        }
        let manifest: Value = serde_json::from_slice(&fs::read(&path)?)
            .map_err(|err| io::Error::other(format!("its manifest {path:?}: {err}")))?;
        match manifest.get("verity") {
            None => Ok(None),
            Some(_) if manifest.get("size").and_then(Value::as_u64) != Some(bytes) => {
                Err(io::Error::other(format!("its manifest {path:?} is about another file")))
            }
            Some(verity) => Self::parse(verity, bytes).map(Some).ok_or_else(|| {
                io::Error::other(format!("its manifest {path:?}: verity: not what is known here"))
            }),
        }
    }

    fn parse(verity: &Value, bytes: u64) -> Option<Self> {
        let number = |name| verity.get(name).and_then(Value::as_u64);
        let text = |name| verity.get(name).and_then(Value::as_str);
        let root_hash = text("root_hash")?.to_owned();
        let is_hash = root_hash.len() == 64 && root_hash.bytes().all(|b| b.is_ascii_hexdigit());
        let (data_blocks, hash_start_block) = (number("data_blocks")?, number("hash_start_block")?);
        let fits = (1..hash_start_block).contains(&data_blocks)
            && hash_start_block.checked_mul(BLOCK_BYTES)? <= bytes;
        let known = (text("algorithm")?, text("salt")?, number("block_size")?)
            == ("sha256", "", BLOCK_BYTES);
        (is_hash && fits && known).then_some(Self { data_blocks, hash_start_block, root_hash })
    }

    /// `dm-mod.create=`: Documentation/admin-guide/device-mapper/dm-init.rst and verity.rst. A block that is not what was
    /// hashed ends the guest; the kernel says which.
    fn table(&self) -> String {
        let Self { data_blocks, hash_start_block, root_hash } = self;
        let sectors = data_blocks * SECTORS_PER_BLOCK;
        let id = root_hash.get(..32).unwrap_or_default();
        format!(
            "root,{UUID}{id}-root,,ro,0 {sectors} verity 1 {DEVICE} {DEVICE} {BLOCK_BYTES} {BLOCK_BYTES} {data_blocks} \
             {hash_start_block} sha256 {root_hash} - 1 panic_on_corruption"
        )
    }
}

/// The words of the kernel's command line that say where its root is.
pub(crate) fn words(verity: Option<&Verity>) -> Vec<String> {
    let mut words = match verity {
        None => vec![format!("root={DEVICE}"), "rootflags=dax=always".to_owned()],
        Some(verity) => vec![
            "root=/dev/dm-0".to_owned(),
            format!("dm-mod.waitfor={DEVICE}"),
            format!("dm-mod.create=\"{}\"", verity.table()),
        ],
    };
    words.extend(["rootfstype=erofs", "ro", "init=/init"].map(str::to_owned));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(verity: &Value) -> io::Result<Option<Verity>> {
        let dir = tempfile::tempdir().unwrap();
        let text = json!({"size": 2 << 20, "verity": verity}).to_string();
        fs::write(dir.path().join("rootfs.json"), text).unwrap();
        Verity::of_image(&dir.path().join("rootfs.erofs"), 2 << 20)
    }

    fn good() -> Value {
        json!({
            "algorithm": "sha256", "block_size": 4096, "data_blocks": 300, "hash_start_block": 301,
            "root_hash": "ab".repeat(32), "salt": "",
        })
    }

    #[test]
    fn the_kernel_is_told_the_whole_table() {
        let verity = manifest(&good()).unwrap().unwrap();
        let words = words(Some(&verity)).join(" ");
        let hash = "ab".repeat(32);
        assert!(words.starts_with("root=/dev/dm-0 dm-mod.waitfor=/dev/pmem0 "), "{words}");
        assert!(
            words.contains(&format!(
                "\"root,CRYPT-VERITY-{}-root,,ro,0 2400 verity 1 /dev/pmem0 /dev/pmem0 4096 4096 300 301 sha256 {hash} - 1 panic_on_corruption\"",
                "ab".repeat(16)
            )),
            "{words}"
        );
        assert!(words.ends_with(" rootfstype=erofs ro init=/init") && !words.contains("dax"));
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_no_way_around_the_check() {
        for (name, value) in [
            ("algorithm", json!("md5")),
            ("block_size", json!(512)),
            ("data_blocks", json!(0)),
            ("data_blocks", json!(301)),
            ("hash_start_block", json!(1_u64 << 40)),
            ("hash_start_block", json!(u64::MAX)),
            ("root_hash", json!("ab 0 1 linear")),
            ("salt", json!("00")),
        ] {
            let mut bad = good();
            bad[name] = value;
            assert!(manifest(&bad).is_err(), "{bad}");
        }
        assert!(manifest(&Value::Null).is_err());
    }

    #[test]
    fn a_manifest_of_another_file_or_none_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (image, manifest) = (dir.path().join("r.erofs"), dir.path().join("r.json"));
        assert_eq!(Verity::of_image(&image, 4096).unwrap(), None);
        fs::write(&manifest, r#"{"size": 1}"#).unwrap();
        assert_eq!(Verity::of_image(&image, 4096).unwrap(), None, "it asks for no check");
        fs::write(&manifest, json!({"size": 1, "verity": good()}).to_string()).unwrap();
        let err = Verity::of_image(&image, 2 << 20).unwrap_err().to_string();
        assert!(err.contains("another file"), "{err}");
        fs::write(&manifest, "{").unwrap();
        assert!(Verity::of_image(&image, 4096).is_err(), "broken");
    }
}
