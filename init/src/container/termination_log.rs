//! The file that a container's program leaves its last words in, for whoever asks why it ended (Kubernetes'
//! `terminationMessagePath`).

use std::path::PathBuf;

use super::mounts::clean;
use super::spec::{ContainerSpec, MountSource};

const ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
/// Kubernetes' own.
const DEFAULT: &str = "/dev/termination-log";

/// Where the guest finds it, once the container's own mounts are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminationLog {
    /// It was a mount of its own: of this file of the guest's.
    Mounted(PathBuf),
    /// A path in the container's root, which is this directory of the guest's.
    InRoot { root: PathBuf, path: String },
}

impl TerminationLog {
    pub fn of(spec: &ContainerSpec) -> Self {
        let path = spec.annotations.kept.get(ANNOTATION).map_or(DEFAULT, String::as_str);
        let path = clean(path);
        let mut mounts = spec.mounts.iter().rev();
        let mounted = mounts.find_map(|mount| match &mount.source {
            MountSource::Bind { path: source, .. } if clean(&mount.destination) == path => {
                Some(PathBuf::from(source))
            }
            MountSource::Bind { .. }
            | MountSource::Filesystem { .. }
            | MountSource::Overlay { .. }
            | MountSource::Remount => None,
        });
        match mounted {
            Some(source) => Self::Mounted(source),
            None => Self::InRoot { root: PathBuf::from(&spec.root.path), path },
        }
    }
}
