//! The store: container images by their digest, each layer an EROFS image that is made once and used by all pods.
//!
//! ```text
//! layers/sha256/DIFF_ID.erofs    a layer alone, with overlayfs' whiteouts (character device 0:0) and opaque directories
//! chains/sha256/CHAIN_ID.erofs   a layer that takes something from those below it (a hard link, a directory's owner)
//! flat/sha256/DIGEST.erofs       all layers of an image as one, where somebody has asked for that
//! images/sha256/DIGEST.json      an image: its layers from the lowest up, its configuration
//! names.json                     what each name means
//! downloads/                     what is fetched and not yet imported
//! ```
//! A file appears whole, by rename, and is never changed after that; so reading needs no lock, and whoever has a file
//! open keeps it, removed or not. Layers come before the image that needs them, names last: whatever ends an import
//! leaves the store as it was.

mod downloads;
mod flatten;
mod import;
mod lock;
pub mod name;
mod record;
mod remove;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
pub use import::Request;
use record::{Names, Record};
pub use remove::{Removed, UsedBy};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Names another directory for the store.
pub const DIRECTORY_VARIABLE: &str = "HYPERSTART_STORE_DIR";
/// Fewer digits of a digest are more likely a name.
const PREFIX_MIN: usize = 6;

/// A directory of images. It is made when something is put into it.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is called, short where docker would (`alpine:latest`), sorted; an image may have no name.
    pub names: Vec<String>,
    /// Of its manifest; where it came without one, of its configuration.
    pub digest: Digest,
    /// From the lowest up.
    pub layers: Vec<Layer>,
    pub config: ImageConfig,
    /// As OCI names it.
    pub architecture: String,
    /// Of all its layers' images.
    pub size: u64,
}

/// A layer in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// An EROFS image, padded for pmem.
    pub path: PathBuf,
    /// The digest of the archive that it was made from, decompressed.
    pub diff_id: Digest,
    /// The length of the file.
    pub size: u64,
}

impl Store {
    /// Where this user's store is: `$HYPERSTART_STORE_DIR`, `/var/lib/hyperstart/images` for root, else below
    /// `$XDG_DATA_HOME` or `~/.local/share`.
    pub fn default_directory() -> Result<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(directory) = variable(DIRECTORY_VARIABLE) {
            return Ok(directory.into());
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/hyperstart/images".into());
        }
        let data = variable("XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")));
        data.map(|data| data.join("hyperstart/images")).ok_or_else(|| {
            Error::io(format!("find the image store: no HOME; set {DIRECTORY_VARIABLE}"))
        })
    }

    /// The store in this directory, which need not exist: then it has no images yet.
    pub fn open(directory: &Path) -> Result<Store> {
        match fs::metadata(directory) {
            Ok(stat) if !stat.is_dir() => Err(Error::io("not a directory")),
            Ok(_) => Ok(()),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(err.into()),
        }
        .context(|| format!("open image store {directory:?}"))?;
        let directory = std::path::absolute(directory);
        Ok(Store { directory: directory.context(|| "find the present directory".into())? })
    }

    /// Where unfinished downloads lie; it is made.
    pub fn downloads(&self) -> Result<PathBuf> {
        self.make("downloads")
    }

    /// The image of this name or digest. Digests may be cut to six digits or more where that is enough.
    pub fn find(&self, reference: &str) -> Result<Option<Stored>> {
        let operation = || format!("find image {:?}", crate::tree::shown(reference.as_bytes()));
        let names = record::load_names(&self.directory).context(operation)?;
        let found = self.look_up(reference, &names).context(operation)?;
        if let Some(image) = &found {
            image.check_layers().context(operation)?;
        }
        Ok(found)
    }

    /// As [`Store::find`], its layers not looked at.
    fn look_up(&self, reference: &str, names: &Names) -> Result<Option<Stored>> {
        let named = name::whole(reference).ok().and_then(|whole| names.get(&whole).cloned());
        let digest = match named.or_else(|| name::digest(reference)) {
            Some(digest) => Some(digest),
            None => self.by_prefix(reference)?,
        };
        let record = digest.map(|digest| Record::load(&self.directory, &digest)).transpose()?;
        Ok(record.flatten().map(|record| record.stored(&self.directory, names)))
    }

    /// All images, in the order of their names; those without one last.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let operation = || format!("list images in {:?}", self.directory);
        let names = record::load_names(&self.directory).context(operation)?;
        let mut all = Vec::new();
        for digest in self.digests().context(operation)? {
            if let Some(record) = Record::load(&self.directory, &digest).context(operation)? {
                all.push(record.stored(&self.directory, &names));
            }
        }
        all.sort_by(|one: &Stored, other| {
            let key = |image: &Stored| (image.names.is_empty(), image.names.first().cloned());
            key(one).cmp(&key(other)).then_with(|| one.digest.cmp(&other.digest))
        });
        Ok(all)
    }

    /// The digests of all images that are written down.
    fn digests(&self) -> Result<Vec<Digest>> {
        let entries = match fs::read_dir(self.directory.join("images/sha256")) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(err.into()),
        };
        let mut digests = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".json"));
            digests.extend(digits.and_then(Digest::from_hex)); // other files are unfinished ones
        }
        Ok(digests)
    }

    /// The one image whose digest begins so.
    fn by_prefix(&self, reference: &str) -> Result<Option<Digest>> {
        let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() < PREFIX_MIN || !digits.bytes().all(is_digit) {
            return Ok(None);
        }
        let mut fitting = self.digests()?;
        fitting.retain(|digest| digest.as_hex().starts_with(digits));
        match fitting.len() {
            0 | 1 => Ok(fitting.pop()),
            count => Err(Error::refused(format!("{count} images have digests that begin so"))),
        }
    }

    /// A directory of the store, which is its owner's alone.
    fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&path).context(|| format!("create directory {path:?}"))?;
        Ok(path)
    }
}

impl Stored {
    /// Whether every layer is there and whole.
    fn check_layers(&self) -> Result<()> {
        for Layer { path, size, .. } in &self.layers {
            let length = fs::metadata(path).context(|| format!("read layer {path:?}"))?.len();
            if length != *size {
                return Err(Error::refused(format!(
                    "layer {path:?}: {length} bytes, {size} were written (remove the image and import it again)"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::{LayerRecord, Names};

    fn put(directory: &Path, name: &str, layer: &str) -> Digest {
        let (digest, diff_id) = (Digest::of(name.as_bytes()), Digest::of(layer.as_bytes()));
        let layer = LayerRecord { diff_id, chain_id: None, size: 4 };
        let path = directory.join(layer.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "1234").unwrap();
        let config = ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() };
        Record::new(digest.clone(), "amd64".into(), config, vec![layer]).save(directory).unwrap();
        let mut names: Names = record::load_names(directory).unwrap();
        names.insert(name::whole(name).unwrap(), digest.clone());
        record::save_names(directory, &names).unwrap();
        digest
    }

    #[test]
    fn an_image_is_found_by_its_name_and_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("new")).unwrap();
        assert_eq!(store.find("alpine").unwrap(), None);
        assert_eq!(store.list().unwrap(), []);
        let digest = put(&dir.path().join("new"), "alpine", "l");
        let found = store.find("alpine").unwrap().unwrap();
        assert_eq!((&found.digest, found.size), (&digest, 4));
        assert_eq!(found.names, ["alpine:latest"]);
        assert_eq!(found.config.cmd, ["sh"]);
        let short = digest.as_hex()[..12].to_owned();
        let pinned = format!("alpine@{digest}");
        for reference in ["docker.io/library/alpine:latest", &digest.to_string(), &short, &pinned] {
            assert_eq!(store.find(reference).unwrap().as_ref(), Some(&found), "{reference}");
        }
        for other in ["alpine:3", "alpin", "", "../alpine", &digest.as_hex()[..5]] {
            assert_eq!(store.find(other).unwrap(), None, "{other}");
        }
        assert_eq!(store.list().unwrap(), [found]);
    }

    #[test]
    fn an_image_whose_layer_is_not_whole_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", "l");
        let store = Store::open(dir.path()).unwrap();
        fs::write(&store.find("a").unwrap().unwrap().layers[0].path, "12").unwrap();
        let err = store.find("a").unwrap_err().to_string();
        assert!(
            err.contains("2 bytes, 4 were written") && err.contains("import it again"),
            "{err}"
        );
    }

    #[test]
    fn an_image_goes_with_its_last_name_and_shared_layers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (put(dir.path(), "a", "shared"), put(dir.path(), "b", "shared"));
        let store = Store::open(dir.path()).unwrap();
        let mut names = record::load_names(dir.path()).unwrap();
        names.insert(name::whole("also-a").unwrap(), a.clone());
        record::save_names(dir.path(), &names).unwrap();
        let unused: UsedBy<'_> = &|_| None;
        let removed = store.remove("a", unused).unwrap();
        assert_eq!((removed.names, removed.images), (vec!["a:latest".into()], vec![]));
        let removed = store.remove("also-a", unused).unwrap();
        assert_eq!((removed.images, removed.files), (vec![a], 0));
        let layer = store.find("b").unwrap().unwrap().layers[0].path.clone();
        let removed = store.remove(&b.to_string(), unused).unwrap();
        assert_eq!((removed.names, removed.files), (vec!["b:latest".into()], 1));
        assert!(!layer.exists() && store.list().unwrap().is_empty());
        assert!(store.remove("b", unused).unwrap_err().to_string().contains("there is none"));
    }

    #[test]
    fn an_image_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", "l");
        let store = Store::open(dir.path()).unwrap();
        let used: UsedBy<'_> = &|_| Some("pod \"web\"".into());
        let err = store.remove("a", used).unwrap_err().to_string();
        assert_eq!(err, "remove image \"a\": pod \"web\" uses it (remove that first)");
        assert_eq!(store.prune(true, used).unwrap(), Removed::default());
        assert!(store.find("a").unwrap().is_some());
    }

    #[test]
    fn prune_takes_what_has_no_name_and_files_of_no_image() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a", "l");
        let nameless = put(dir.path(), "b", "m");
        let store = Store::open(dir.path()).unwrap();
        let mut names = record::load_names(dir.path()).unwrap();
        names.retain(|_, digest| *digest != nameless);
        record::save_names(dir.path(), &names).unwrap();
        for name in ["layers/sha256/.image-builder-1", ".image-builder-2"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let removed = store.prune(false, &|_| None).unwrap();
        assert_eq!((removed.images, removed.files), (vec![nameless], 3));
        assert!(store.find("a").unwrap().is_some());
        assert_eq!(store.prune(true, &|_| None).unwrap().names, ["a:latest"]);
        assert!(store.list().unwrap().is_empty());
    }
}
