//! A container's file system: a root that stays as it is, and memory file systems over it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use serde::{Deserialize, Serialize};

use super::limits::bytes;

const SHM: &str = "/dev/shm";
/// Docker's; the user's options come after, and the later of two that disagree wins.
const TMPFS_OPTIONS: [&str; 3] = ["nosuid", "nodev", "noexec"];

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct FilesystemFlags {
    /// The root file system cannot be written to
    #[arg(long)]
    pub read_only: bool,
    /// A file system in memory, such as /run:size=64m,mode=755
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = tmpfs)]
    pub tmpfs: Vec<Tmpfs>,
    /// Size of /dev/shm, in bytes or with a unit [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub shm_size: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    destination: PathBuf,
    options: Vec<String>,
}

impl FilesystemFlags {
    pub fn edit_spec(&self, spec: &mut Spec) {
        if let Some(root) = spec.root_mut().as_mut().filter(|_| self.read_only) {
            root.set_readonly(Some(true));
        }
        let mounts = spec.mounts_mut().get_or_insert_default();
        for Tmpfs { destination, options } in &self.tmpfs {
            mounts.retain(|mount| mount.destination() != destination);
            mounts.push(mount(destination, "tmpfs", options.clone()));
        }
        if let Some(size) = self.shm_size {
            resize_shm(mounts, size);
        }
    }
}

/// A spec without a /dev/shm gets one.
fn resize_shm(mounts: &mut Vec<Mount>, size: u64) {
    let size = format!("size={size}");
    let shm = mounts.iter_mut().find(|mount| mount.destination() == Path::new(SHM));
    match shm {
        Some(shm) => {
            let options = shm.options().iter().flatten();
            let others = options.filter(|option| !option.starts_with("size=")).cloned();
            shm.set_options(Some(others.chain([size]).collect()));
        }
        None => {
            let options = TMPFS_OPTIONS.map(str::to_owned).into_iter();
            let options = options.chain(["mode=1777".to_owned(), size]).collect();
            mounts.push(mount(Path::new(SHM), "shm", options));
        }
    }
}

fn mount(destination: &Path, source: &str, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some("tmpfs".into()))
        .set_source(Some(source.into()))
        .set_options(Some(options));
    mount
}

fn tmpfs(text: &str) -> Result<Tmpfs, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    if !destination.starts_with('/') || destination == "/" {
        return Err(format!("{destination:?} is not an absolute path below the root"));
    }
    let said = options.split(',').filter(|option| !option.is_empty());
    let options = TMPFS_OPTIONS.into_iter().chain(said).map(str::to_owned).collect();
    Ok(Tmpfs { destination: destination.into(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_spec() -> Spec {
        let id = hyperstart::ContainerId::new("c").unwrap();
        hyperstart::spec::default_spec(&id, oci_spec::runtime::Process::default())
    }

    fn options_of(spec: &Spec, destination: &str) -> Vec<Vec<String>> {
        let mounts = spec.mounts().iter().flatten();
        let there = mounts.filter(|mount| mount.destination() == Path::new(destination));
        there.map(|mount| mount.options().clone().unwrap()).collect()
    }

    #[test]
    fn a_tmpfs_has_dockers_options_and_then_the_users() {
        let run = tmpfs("/run:exec,size=1m").unwrap();
        assert_eq!(run.options, ["nosuid", "nodev", "noexec", "exec", "size=1m"]);
        for bad in ["", "run", "/", ":size=1m"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mount_of_the_same_place_is_replaced() {
        let flags = FilesystemFlags {
            read_only: true,
            tmpfs: vec![tmpfs("/sys").unwrap()],
            shm_size: Some(1 << 20),
        };
        let mut spec = default_spec();
        flags.edit_spec(&mut spec);
        assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
        assert_eq!(options_of(&spec, "/sys"), [TMPFS_OPTIONS]);
        let shm = options_of(&spec, SHM).concat();
        let sizes: Vec<_> = shm.iter().filter(|option| option.starts_with("size=")).collect();
        assert_eq!(sizes, ["size=1048576"]);
    }

    #[test]
    fn nothing_said_changes_nothing() {
        let (mut spec, before) = (default_spec(), default_spec());
        FilesystemFlags::default().edit_spec(&mut spec);
        assert_eq!(spec, before);
    }
}
