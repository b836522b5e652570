//! Named volumes: directories that hyperctl keeps for containers, and nobody else's business.
//!
//! ```text
//! <volumes>/           0700
//!     lock             held while one is made or removed
//!     <name>/data/     what containers see: 0755, so that an unprivileged user of theirs can look in
//! ```
//! A volume is in use while a pod that has not ended mounts it, which the pods' records say.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Result};
use crate::flags::mounts::is_volume_name;
use crate::pod::state::{State, Status};
use crate::pod::store::Store;

const VARIABLE: &str = "HYPERSTART_VOLUME_DIR";
const DATA: &str = "data";

/// All of them.
pub struct Volumes {
    dir: PathBuf,
}

/// One of them.
pub struct Volume {
    pub name: String,
    pub path: PathBuf,
    /// The pods that mount it, by name.
    pub users: Vec<String>,
}

impl Volumes {
    pub fn open() -> Result<Volumes> {
        Volumes::below(directory()?)
    }

    fn below(dir: PathBuf) -> Result<Volumes> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.context(|| format!("make directory {dir:?}"))?;
        Ok(Volumes { dir })
    }

    /// The directory of a volume, which is made if there is none of this name.
    pub fn find_or_create(&self, name: &str) -> Result<PathBuf> {
        if !is_volume_name(name) {
            return Err(Error::new(format!("volume {name:?}: not a name"))
                .hint("letters, digits, and after the first also _ . -"));
        }
        let _lock = self.lock()?;
        let path = self.data(name);
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
        made.context(|| format!("make volume {name:?}"))?;
        Ok(path)
    }

    /// Those that there are, by name.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let pods = Store::open()?.list()?;
        let operation = || format!("list {:?}", self.dir);
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.dir).context(operation)? {
            let entry = entry.context(operation)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_volume_name(&name) && self.data(&name).is_dir() {
                let states = pods.iter().map(|pod| &pod.state);
                let users = states.filter(|state| uses(state, &name));
                let users = users.map(|state| state.name.clone()).collect();
                volumes.push(Volume { path: self.data(&name), name, users });
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    pub fn find(&self, name: &str) -> Result<Volume> {
        let found = self.list()?.into_iter().find(|volume| volume.name == name);
        found.ok_or_else(|| {
            Error::new(format!("volume {name:?}: there is none of this name"))
                .hint("`hyperctl volume ls` lists them")
        })
    }

    /// Removes one with all that is in it, unless a pod uses it.
    pub fn remove(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let volume = self.find(name)?;
        if let Some(user) = volume.users.first() {
            return Err(Error::new(format!("volume {name:?}: pod {user:?} uses it"))
                .hint(format!("`hyperctl stop {user}` first")));
        }
        // Renamed first: whoever is killed in between leaves no half of a volume.
        let (whole, going) = (self.dir.join(name), self.dir.join(format!(".{name}.removed")));
        let operation = || format!("remove volume {name:?}");
        match fs::remove_dir_all(&going) {
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(err).context(operation),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&whole, &going).context(operation)?;
        fs::remove_dir_all(&going).context(operation)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(DATA)
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let mut options = OpenOptions::new();
        let opened = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = opened.context(|| format!("open {path:?}"))?;
        lock.lock().context(|| format!("lock {path:?}"))?;
        Ok(lock)
    }
}

fn uses(state: &State, name: &str) -> bool {
    let ended = matches!(state.status, Status::Exited { .. });
    !ended && state.mounts.iter().any(|mount| mount.volume.as_deref() == Some(name))
}

fn directory() -> Result<PathBuf> {
    let variable =
        |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = variable(VARIABLE) {
        return std::path::absolute(&dir).context(|| format!("find {VARIABLE} {dir:?}"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/hyperstart/volumes".into());
    }
    let data = variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/share")));
    data.map(|data| data.join("hyperstart/volumes")).ok_or_else(|| {
        Error::new("find the directory of volumes: neither XDG_DATA_HOME nor HOME is set")
            .hint(format!("set {VARIABLE}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once_and_its_name_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::below(dir.path().join("v")).unwrap();
        let path = volumes.find_or_create("db").unwrap();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(volumes.find_or_create("db").unwrap(), path);
        assert_eq!(fs::read(path.join("file")).unwrap(), b"x");
        for bad in ["", "..", ".x", "a/b", "/etc", "-x", "a b"] {
            assert!(volumes.find_or_create(bad).is_err(), "{bad}");
        }
    }
}
