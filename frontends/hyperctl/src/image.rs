//! Container images by name or path: EROFS files, and a description that says how to run them.
//!
//! What begins with a slash or a dot, or ends in `.erofs`, is a path: of one file, with its description beside it.
//! Anything else is a name or digest in the store, which has a file for each layer; then one of the guest's own files
//! (`images/NAME.erofs`, `NAME:latest` being the same); then a path as well.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_builder::Image as Description;
use image_builder::progress::Terminal;
use image_builder::store::{Store, Stored};

use crate::error::{Context as _, Error, Result};
use crate::guest::GuestDir;
use crate::layers;

#[derive(Debug)]
pub struct Image {
    /// From the lowest up, each once.
    pub layers: Vec<PathBuf>,
    pub description: Description,
    /// If it is one of the store's.
    stored: Option<Stored>,
}

impl Image {
    /// What the store knows it by.
    pub fn digest(&self) -> Option<String> {
        self.stored.as_ref().map(|stored| stored.digest.to_string())
    }

    #[cfg(test)]
    pub fn of_files(layers: Vec<PathBuf>) -> Image {
        let description = Description {
            name: "image".into(),
            architecture: "amd64".into(),
            config: image_builder::ImageConfig::default(),
            size: 0,
            sha256: String::new(),
            source: String::new(),
        };
        Image { layers, description, stored: None }
    }

    /// Makes one layer of its layers, which the store keeps.
    pub fn flatten(&mut self) -> Result<()> {
        if let Some(stored) = &self.stored {
            self.layers = vec![open_store()?.flatten(stored, &Terminal::default())?];
        }
        Ok(())
    }

    /// The first digits of its SHA-256, enough to tell images apart.
    pub fn short_digest(&self) -> String {
        self.description.sha256.chars().take(12).collect()
    }
}

pub fn find(guest: impl FnOnce() -> Result<GuestDir>, wanted: &str) -> Result<Image> {
    // A user without a home may have images all the same.
    find_in(open_store().ok().as_ref(), guest, wanted)
}

fn find_in(
    store: Option<&Store>,
    guest: impl FnOnce() -> Result<GuestDir>,
    wanted: &str,
) -> Result<Image> {
    if wanted.starts_with(['/', '.']) || Path::new(wanted).extension() == Some("erofs".as_ref()) {
        return at_path(wanted);
    }
    if let Some(stored) = store.map(|store| store.find(wanted)).transpose()?.flatten() {
        return of_store(stored, wanted);
    }
    if wanted.contains('/') {
        return at_path(wanted);
    }
    let name = wanted.strip_suffix(":latest").unwrap_or(wanted);
    let path = guest()?.images().join(format!("{name}.erofs"));
    if !path.is_file() {
        return Err(Error::new(format!("find image {wanted:?}: there is no {path:?}"))
            .hint("`hyperctl images` lists what there is; `image-builder container` makes more"));
    }
    load(path)
}

fn at_path(wanted: &str) -> Result<Image> {
    let path = fs::canonicalize(wanted).context(|| format!("find image {wanted:?}"));
    load(path.map_err(|err| err.hint("`image-builder container` makes images"))?)
}

fn open_store() -> Result<Store> {
    Ok(Store::open(&Store::default_directory()?)?)
}

/// An image of the store, called as it was asked for.
fn of_store(stored: Stored, wanted: &str) -> Result<Image> {
    let paths: Vec<PathBuf> = stored.layers.iter().map(|layer| layer.path.clone()).collect();
    if paths.is_empty() {
        return Err(Error::new(format!("find image {wanted:?}: it has no layers")));
    }
    let description = Description {
        name: wanted.to_string(),
        architecture: stored.architecture.clone(),
        config: stored.config.clone(),
        size: stored.size,
        sha256: stored.digest.as_hex().to_string(),
        source: stored.digest.to_string(),
    };
    Ok(Image { layers: layers::topmost(&paths), description, stored: Some(stored) })
}

/// All images that have a name, in the order of their names.
pub fn list(guest: &GuestDir) -> Result<Vec<Image>> {
    let dir = guest.images();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err).context(|| format!("list images in {dir:?}")),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.context(|| format!("list images in {dir:?}"))?.path();
        if path.extension().is_some_and(|extension| extension == "erofs") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(load).collect()
}

fn load(path: PathBuf) -> Result<Image> {
    let operation = || format!("read image {path:?}");
    let description =
        Description::load(&path).map_err(|err| Error::new(err.to_string())).context(operation)?;
    let size = fs::metadata(&path).context(operation)?.len();
    if size != description.size {
        let cause = format!("{size} bytes, but its description says {}", description.size);
        return Err(Error::new(cause)
            .hint("it is not whole, or not the file that was described: build it again"))
        .context(operation);
    }
    Ok(Image { layers: vec![path], description, stored: None })
}

#[cfg(test)]
mod tests {
    use image_builder::ImageConfig;

    use super::*;

    fn guest_with(name: &str, described_size: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        fs::create_dir(&images).unwrap();
        let path = images.join(format!("{name}.erofs"));
        fs::write(&path, [0; 10]).unwrap();
        let description = Description {
            name: name.into(),
            architecture: "amd64".into(),
            config: ImageConfig::default(),
            size: described_size,
            sha256: "0123456789abcdef".into(),
            source: String::new(),
        };
        description.store(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn a_name_and_a_path_find_the_same_image() {
        let (dir, path) = guest_with("busybox", 10);
        let guest = || Ok(GuestDir::at(dir.path()));
        for wanted in ["busybox", "busybox:latest", path.to_str().unwrap()] {
            let image = find_in(None, guest, wanted).unwrap();
            assert_eq!(image.layers, [fs::canonicalize(&path).unwrap()], "{wanted}");
            assert_eq!(image.short_digest(), "0123456789ab");
        }
        assert_eq!(list(&GuestDir::at(dir.path())).unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_name_says_where_to_look() {
        let (dir, _path) = guest_with("busybox", 10);
        let err = find_in(None, || Ok(GuestDir::at(dir.path())), "nope").unwrap_err().to_string();
        assert!(err.contains("find image \"nope\"") && err.contains("hyperctl images"), "{err}");
    }

    #[test]
    fn a_cut_image_is_refused() {
        let (dir, _path) = guest_with("busybox", 11);
        let err =
            find_in(None, || Ok(GuestDir::at(dir.path())), "busybox").unwrap_err().to_string();
        assert!(err.contains("10 bytes") && err.contains("says 11"), "{err}");
    }
}
