//! What leaves the store: a name, an image that has no name left, and files that no image needs.

use super::record::{self, Names, Record};
use super::{Store, Stored, flatten, lock, name};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::output::PREFIX;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Says who uses an image, in the words of a message (`pod "web"`).
pub type UsedBy<'a> = &'a dyn Fn(&Stored) -> Option<String>;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that mean nothing any more, short where docker would.
    pub names: Vec<String>,
    pub images: Vec<Digest>,
    /// Layers, and what else was only in the way.
    pub files: usize,
    /// What those files took of the disk.
    pub bytes: u64,
}

impl Store {
    /// Takes a name away, and with its last name the image; a digest takes the image with all its names. An image in
    /// use stays.
    pub fn remove(&self, reference: &str, used_by: UsedBy<'_>) -> Result<Removed> {
        let operation = || format!("remove image {:?}", crate::tree::shown(reference.as_bytes()));
        let missing = || Error::refused("there is none of this name or digest");
        if !self.directory.is_dir() {
            return Err(missing()).context(operation);
        }
        let _lock = lock::alone(&self.directory).context(operation)?;
        let mut names = record::load_names(&self.directory).context(operation)?;
        let named = name::whole(reference).ok().filter(|whole| names.contains_key(whole));
        let image = self.look_up(reference, &names).context(operation)?;
        let image = image.ok_or_else(missing).context(operation)?;
        let mut removed = Removed::default();
        names.retain(|whole, digest| {
            let goes = match &named {
                Some(named) => named == whole,
                None => *digest == image.digest,
            };
            if goes {
                removed.names.push(name::short(whole).to_owned());
            }
            !goes
        });
        let is_last = !names.values().any(|digest| *digest == image.digest);
        if is_last {
            refuse_if_used(&image, used_by).context(operation)?;
        }
        self.save_names(&names).context(operation)?;
        if is_last {
            self.remove_record(&image.digest).context(operation)?;
            removed.images.push(image.digest);
            self.sweep(&mut removed).context(operation)?;
        }
        Ok(removed)
    }

    /// Removes images without a name (with `all`, those with one too) that nobody uses, files that no image needs, and what
    /// pulls have left.
    pub fn prune(&self, all: bool, used_by: UsedBy<'_>) -> Result<Removed> {
        let operation = || format!("prune image store {:?}", self.directory);
        let mut removed = Removed::default();
        if !self.directory.is_dir() {
            return Ok(removed);
        }
        let _lock = lock::alone(&self.directory).context(operation)?;
        let mut names = record::load_names(&self.directory).context(operation)?;
        for image in self.list()? {
            let is_kept = !all && !image.names.is_empty();
            if is_kept || used_by(&image).is_some() {
                continue;
            }
            removed.names.extend(image.names);
            names.retain(|_, digest| *digest != image.digest);
            self.save_names(&names).context(operation)?;
            self.remove_record(&image.digest).context(operation)?;
            removed.images.push(image.digest);
        }
        self.sweep_downloads(&mut removed).context(operation)?;
        self.sweep(&mut removed).context(operation)?;
        Ok(removed)
    }

    fn save_names(&self, names: &Names) -> Result<()> {
        let _lock = lock::names(&self.directory)?;
        record::save_names(&self.directory, names)
    }

    fn remove_record(&self, digest: &Digest) -> Result<()> {
        let path = self.directory.join(Record::place(digest));
        fs::remove_file(&path).context(|| format!("remove {path:?}"))
    }

    /// Removes the files of layers that no image has, and unfinished ones. Only for who holds the lock alone.
    fn sweep(&self, removed: &mut Removed) -> Result<()> {
        let mut needed = BTreeSet::new();
        for digest in self.digests()? {
            if let Some(record) = Record::load(&self.directory, &digest)? {
                needed.insert(self.directory.join(flatten::place(&digest)));
                needed.extend(record.layers.iter().map(|layer| self.directory.join(layer.path())));
            }
        }
        for directory in ["layers/sha256", "chains/sha256", flatten::DIRECTORY] {
            for path in files(&self.directory.join(directory))? {
                if !needed.contains(&path) {
                    remove_file(&path, removed)?;
                }
            }
        }
        let is_unfinished = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        };
        let mut unfinished = files(&self.directory)?.into_iter().filter(is_unfinished);
        unfinished.try_for_each(|path| remove_file(&path, removed))
    }
}

fn refuse_if_used(image: &Stored, used_by: UsedBy<'_>) -> Result<()> {
    match used_by(image) {
        Some(user) => Err(Error::refused(format!("{user} uses it (remove that first)"))),
        None => Ok(()),
    }
}

fn remove_file(path: &Path, removed: &mut Removed) -> Result<()> {
    removed.bytes += on_disk(path);
    removed.files += 1;
    fs::remove_file(path).context(|| format!("remove {path:?}"))
}

pub(super) fn on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map_or(0, |stat| stat.blocks() * 512)
}

/// The regular files in a directory, which may be missing.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err).context(|| format!("list {directory:?}")),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("list {directory:?}"))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
