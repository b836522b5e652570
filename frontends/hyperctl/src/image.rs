//! Container images by name or path: an EROFS file, and beside it the description that says how to run it.
//!
//! A name is looked up among the guest's files (`images/NAME.erofs`, `NAME:latest` being the same); what holds a slash
//! or ends in `.erofs` is a path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_builder::Image as Description;

use crate::error::{Context as _, Error, Result};
use crate::guest::GuestDir;

#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub description: Description,
}

impl Image {
    /// The first digits of its SHA-256, enough to tell images apart.
    pub fn short_digest(&self) -> String {
        self.description.sha256.chars().take(12).collect()
    }
}

pub fn find(guest: impl FnOnce() -> Result<GuestDir>, wanted: &str) -> Result<Image> {
    if is_path(wanted) {
        let path = fs::canonicalize(wanted).context(|| format!("find image {wanted:?}"));
        return load(path.map_err(|err| err.hint("`image-builder container` makes images"))?);
    }
    let name = wanted.strip_suffix(":latest").unwrap_or(wanted);
    let path = guest()?.images().join(format!("{name}.erofs"));
    if !path.is_file() {
        return Err(Error::new(format!("find image {wanted:?}: there is no {path:?}"))
            .hint("`hyperctl images` lists what there is; `image-builder container` makes more"));
    }
    load(path)
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
    Ok(Image { path, description })
}

fn is_path(wanted: &str) -> bool {
    wanted.contains('/') || Path::new(wanted).extension().is_some_and(|end| end == "erofs")
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
            let image = find(guest, wanted).unwrap();
            assert_eq!(image.path, fs::canonicalize(&path).unwrap(), "{wanted}");
            assert_eq!(image.short_digest(), "0123456789ab");
        }
        assert_eq!(list(&GuestDir::at(dir.path())).unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_name_says_where_to_look() {
        let (dir, _path) = guest_with("busybox", 10);
        let err = find(|| Ok(GuestDir::at(dir.path())), "nope").unwrap_err().to_string();
        assert!(err.contains("find image \"nope\"") && err.contains("hyperctl images"), "{err}");
    }

    #[test]
    fn a_cut_image_is_refused() {
        let (dir, _path) = guest_with("busybox", 11);
        let err = find(|| Ok(GuestDir::at(dir.path())), "busybox").unwrap_err().to_string();
        assert!(err.contains("10 bytes") && err.contains("says 11"), "{err}");
    }
}
