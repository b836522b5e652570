//! The directories that an image wants a volume for (OCI image-spec, config.md, `Volumes`): each is memory of the
//! guest's that starts with what the image has there, and goes with its container. It can be written to when the root
//! cannot. What the user mounts at such a place is there instead.

use std::path::{Component, Path, PathBuf};

use image_builder::ImageConfig;
use oci_spec::runtime::{Mount, Spec};

use crate::error::{Error, Result};

/// No image needs more; each is a mount in the guest.
const VOLUMES_MAX: usize = 64;

/// Where they are: absolute paths, parents before what lies below them.
pub fn of(config: &ImageConfig) -> Result<Vec<PathBuf>> {
    if config.volumes.len() > VOLUMES_MAX {
        let count = config.volumes.len();
        return Err(Error::new(format!("volumes: {count}, over {VOLUMES_MAX}")));
    }
    config.volumes.keys().map(|path| place(path)).collect()
}

fn place(path: &str) -> Result<PathBuf> {
    let mut place = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => place.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(wrong(path)),
        }
    }
    if place == Path::new("/") { Err(wrong(path)) } else { Ok(place) }
}

fn wrong(path: &str) -> Error {
    Error::new(format!("volume {path:?}: not a place below the root"))
}

/// Adds them where nothing else is mounted, each before the mounts that lie below it.
pub fn add(volumes: &[PathBuf], spec: &mut Spec) {
    let mounts = spec.mounts_mut().get_or_insert_default();
    for volume in volumes {
        if mounts.iter().any(|mount| mount.destination() == volume) {
            continue;
        }
        let below = mounts.iter().position(|mount| mount.destination().starts_with(volume));
        mounts.insert(below.unwrap_or(mounts.len()), mount(volume));
    }
}

fn mount(volume: &Path) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(volume.to_owned())
        .set_typ(Some("tmpfs".into()))
        .set_source(Some("volume".into()))
        .set_options(Some(vec!["tmpcopyup".into()]));
    mount
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(paths: &[&str]) -> ImageConfig {
        let volumes = paths.iter().map(|path| ((*path).to_owned(), serde_json::json!({})));
        ImageConfig { volumes: volumes.collect(), ..ImageConfig::default() }
    }

    #[test]
    fn volumes_are_places_below_the_root() {
        let paths = of(&config(&["/data", "cache/", "/./a//b"])).unwrap();
        assert_eq!(paths, ["/a/b", "/data", "/cache"].map(PathBuf::from));
        for bad in ["", "/", "/../../etc", "a/../b", "."] {
            let err = of(&config(&[bad])).unwrap_err().to_string();
            assert!(err.contains(&format!("volume {bad:?}")), "{err}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("/{number}")).collect();
        assert!(of(&config(&many.iter().map(String::as_str).collect::<Vec<_>>())).is_err());
    }

    #[test]
    fn what_the_user_mounts_wins_and_is_not_covered() {
        let mut spec = Spec::default();
        spec.set_mounts(Some(vec![mount(Path::new("/data/sub")), mount(Path::new("/cache"))]));
        add(&["/cache", "/data", "/new"].map(PathBuf::from), &mut spec);
        let mounts = spec.mounts().as_ref().unwrap().iter();
        let places: Vec<&Path> = mounts.map(|mount| mount.destination().as_path()).collect();
        assert_eq!(places, ["/data", "/data/sub", "/cache", "/new"].map(Path::new));
    }
}
