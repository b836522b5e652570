//! Host paths that a container's mounts bind, by a bundle's config.json or `-v`, and how each gets into the guest.
//!
//! | source | way | so |
//! |---|---|---|
//! | a directory | a share of its own, read-only if the mount is: 9p for a bundle's, virtio-fs or 9p for `-v` | writes reach it, and nothing beside it is seen |
//! | a file, read-only | copied into the pod's directory, which is shared | as it was when the pod started |
//! | a file, writable | refused | a share has a directory, and that would show the file's neighbours to the guest |
//! | `/sys` | the guest's own | it is the kernel's, and a container's kernel is the guest's |
//! | other kernel filesystems, devices, sockets | refused | what they mean is the host kernel's |
//!
//! A directory comes with what is mounted in it, whether its mount says `bind` or `rbind`: the host's kernel follows.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use hyperstart::Storage;
use hyperstart_vmm::{Share, ShareKind};
use oci_spec::runtime::{Mount, Spec};

use crate::error::{Context as _, Error, Result};

/// The tag of the share that holds the copies of files.
const FILES: &str = "files";
/// The most that all copied files may be together: they are configuration, and each pod keeps its own.
const FILES_MAX_BYTES: u64 = 16 << 20;
/// The host kernel's own file systems.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What of the host a container's binds need.
#[derive(Clone, Debug, Default)]
pub struct Binds {
    directories: Vec<Share>,
    /// Each copied to a name that is its index.
    files: Vec<PathBuf>,
}

impl Binds {
    /// Finds the binds of a bundle's config, and points their mounts to where the guest will have them.
    pub fn take(config: &mut Spec, bundle: &Path) -> Result<Binds> {
        let mut binds = Binds::default();
        let mut mounts = config.mounts().clone().unwrap_or_default();
        for (index, mount) in mounts.iter_mut().enumerate().filter(|(_, mount)| is_bind(mount)) {
            let source = mount.source().clone().unwrap_or_default();
            // An absolute one stays as it is.
            let place =
                binds.add_volume(&bundle.join(source), is_read_only(mount), ShareKind::NineP);
            let what = || format!("mounts[{index}] {:?}", mount.destination());
            let place = place.context(what)?;
            mount.set_source(Some(place));
        }
        if config.mounts().is_some() {
            config.set_mounts(Some(mounts));
        }
        Ok(binds)
    }

    /// Where the guest will have it, a directory by a share of that kind.
    pub fn add_volume(
        &mut self,
        named: &Path,
        read_only: bool,
        kind: ShareKind,
    ) -> Result<PathBuf> {
        let path = fs::canonicalize(named).context(|| format!("find {named:?}"))?;
        if path == Path::new("/sys") {
            return Ok(path);
        }
        if KERNELS.iter().any(|kernels| path.starts_with(kernels)) {
            let message =
                format!("{path:?}: a file system of the host's kernel is not the guest's");
            return Err(
                Error::new(message).hint("mount proc, sysfs or a tmpfs by its type instead")
            );
        }
        let meta = fs::metadata(&path).context(|| format!("find {path:?}"))?;
        if meta.is_dir() {
            return Ok(self.add_directory(path, read_only, kind));
        }
        if !meta.is_file() {
            return Err(Error::new(format!("{path:?}: neither a directory nor a regular file")));
        }
        if !read_only {
            let message = format!("{path:?}: a file cannot be shared for writing");
            return Err(Error::new(message).hint("bind its directory, or add the option \"ro\""));
        }
        self.files.push(path);
        Ok(Path::new(&share_point(FILES)).join((self.files.len() - 1).to_string()))
    }

    /// The tag of the share that this directory has.
    pub fn tag_of(&self, path: &Path) -> Option<String> {
        let share = self.directories.iter().find(|share| share.path == path)?;
        Some(share.tag.clone())
    }

    /// The same directory bound twice is one share, writable if one of them is: the mounts have their own options.
    fn add_directory(&mut self, path: PathBuf, read_only: bool, kind: ShareKind) -> PathBuf {
        let known = self.directories.iter_mut().find(|share| share.path == path);
        let tag = if let Some(share) = known {
            share.read_only &= read_only;
            share.tag.clone()
        } else {
            let tag = format!("bind{}", self.directories.len());
            self.directories.push(Share { kind, path, tag: tag.clone(), read_only });
            tag
        };
        PathBuf::from(share_point(&tag))
    }

    /// What to attach to the VM, after the files have been copied below `pod`.
    pub fn shares(&self, pod: &Path) -> Result<Vec<Share>> {
        let mut shares = self.directories.clone();
        if !self.files.is_empty() {
            let path = pod.join(FILES);
            self.copy_files(&path).context(|| "copy what is bound".to_owned())?;
            let (kind, tag) = (ShareKind::NineP, FILES.to_owned());
            shares.push(Share { kind, path, tag, read_only: true });
        }
        Ok(shares)
    }

    /// What the guest mounts for them.
    pub fn storages(&self) -> Vec<Storage> {
        let files = (!self.files.is_empty()).then(|| Storage::share(FILES, true));
        let directory = |share: &Share| match share.kind {
            ShareKind::NineP => Storage::share(&share.tag, share.read_only),
            ShareKind::VirtioFs => Storage::virtio_fs(&share.tag, share.read_only),
        };
        self.directories.iter().map(directory).chain(files).collect()
    }

    fn copy_files(&self, directory: &Path) -> Result<()> {
        fs::create_dir(directory).context(|| format!("make directory {directory:?}"))?;
        let mut left = FILES_MAX_BYTES;
        for (index, path) in self.files.iter().enumerate() {
            let meta = fs::metadata(path).context(|| format!("find {path:?}"))?;
            left = left.checked_sub(meta.len()).ok_or_else(|| {
                Error::new(format!("{path:?}: files of more than {FILES_MAX_BYTES} bytes together"))
            })?;
            let copy = directory.join(index.to_string());
            fs::copy(path, &copy).context(|| format!("copy {path:?}"))?; // with its permissions
            if (meta.uid(), meta.gid()) != own_ids(&copy)? {
                chown(&copy, Some(meta.uid()), Some(meta.gid()))
                    .context(|| format!("give the copy of {path:?} its owner"))?;
            }
        }
        Ok(())
    }
}

fn own_ids(path: &Path) -> Result<(u32, u32)> {
    let meta = fs::metadata(path).context(|| format!("find {path:?}"))?;
    Ok((meta.uid(), meta.gid()))
}

/// Where the guest mounts the share with this tag.
fn share_point(tag: &str) -> String {
    Storage::share(tag, true).mount_point
}

fn is_bind(mount: &Mount) -> bool {
    let bind = |option: &String| option == "bind" || option == "rbind";
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(bind)
}

/// The later of two options wins.
fn is_read_only(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten().map(String::as_str);
    let said = options.rev().find(|option| matches!(*option, "ro" | "rw" | "rro" | "rrw"));
    matches!(said, Some("ro" | "rro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config whose one mount binds `source`.
    fn config(source: &str, options: &[&str]) -> Spec {
        let mut mount = Mount::default();
        mount
            .set_destination("/d".into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(source.into()))
            .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
        let mut spec = Spec::default();
        spec.set_mounts(Some(vec![mount.clone(), mount]));
        spec
    }

    fn sources(spec: &Spec) -> Vec<PathBuf> {
        spec.mounts().iter().flatten().filter_map(|mount| mount.source().clone()).collect()
    }

    #[test]
    fn a_directory_is_a_share_of_its_own() {
        let bundle = tempfile::tempdir().unwrap();
        fs::create_dir(bundle.path().join("data")).unwrap();
        let mut spec = config("data", &["rbind", "ro"]); // relative to the bundle
        let binds = Binds::take(&mut spec, bundle.path()).unwrap();
        assert_eq!(
            sources(&spec),
            [Path::new(&share_point("bind0")), Path::new(&share_point("bind0"))]
        );
        let shares = binds.shares(bundle.path()).unwrap();
        assert!(shares.len() == 1 && shares[0].read_only && shares[0].path.ends_with("data"));
        let storages = binds.storages();
        assert!(storages.len() == 1 && storages[0].options.contains(&"ro".to_owned()));
        let writable = Binds::take(&mut config("data", &["ro", "rw"]), bundle.path()).unwrap();
        assert!(!writable.shares(bundle.path()).unwrap()[0].read_only);
    }

    #[test]
    fn a_read_only_file_is_copied_and_a_writable_one_refused() {
        let bundle = tempfile::tempdir().unwrap();
        let pod = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("hosts"), "x").unwrap();
        let mut spec = config("hosts", &["ro"]);
        let binds = Binds::take(&mut spec, bundle.path()).unwrap();
        assert!(sources(&spec)[1].ends_with("files/1"), "{spec:?}");
        let shares = binds.shares(pod.path()).unwrap();
        assert_eq!(fs::read_to_string(shares[0].path.join("1")).unwrap(), "x");
        let refused = Binds::take(&mut config("hosts", &["bind"]), bundle.path()).unwrap_err();
        assert!(refused.to_string().contains("mounts[0] \"/d\""), "{refused}");
        assert!(refused.to_string().contains("cannot be shared for writing"), "{refused}");
    }

    #[test]
    fn files_of_the_kernel_are_the_guests_or_refused() {
        let mut spec = config("/sys", &["rbind", "ro"]);
        assert!(Binds::take(&mut spec, Path::new("/")).unwrap().storages().is_empty());
        assert_eq!(sources(&spec), [Path::new("/sys"); 2]);
        for source in ["/proc/self", "/dev/null", "/sys/fs/cgroup", "/none"] {
            let err = Binds::take(&mut config(source, &["ro"]), Path::new("/")).unwrap_err();
            assert!(err.to_string().contains("mounts[0]"), "{err}");
        }
    }

    #[test]
    fn a_config_without_binds_needs_nothing() {
        let mut spec = Spec::default();
        let before = spec.clone();
        assert!(Binds::take(&mut spec, Path::new("/")).unwrap().storages().is_empty());
        assert_eq!(spec, before);
    }
}
