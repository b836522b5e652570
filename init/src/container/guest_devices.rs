//! Device nodes of the guest that a container is given by their name: the host knows names such as `/dev/fuse`, and only
//! the guest knows their numbers. A directory stands for all the nodes below it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{major, minor};

use super::device_rules::is_default;
use super::spec::{Access, ContainerSpec, Device, DeviceKind, DeviceRule, GuestDevice, RuleKind};
use crate::error::{Code, Context, Error, Result};

const DEV: &str = "/dev";
/// As many as a spec may list.
const NODES_MAX: usize = 1024;

/// Puts what they stand for among the spec's devices and rules, after its own: so each may be used as it is said here.
pub fn resolve(spec: &mut ContainerSpec) -> Result<()> {
    for wanted in std::mem::take(&mut spec.guest_devices) {
        let GuestDevice { guest_path, path, access } = &wanted;
        let guest_path = beneath_dev(guest_path)?;
        let meta = fs::symlink_metadata(&guest_path)
            .context(|| format!("find guest device {guest_path:?}"))?;
        let nodes =
            if meta.is_dir() { nodes_below(&guest_path)? } else { vec![guest_path.clone()] };
        for node in nodes {
            let inside = node.strip_prefix(&guest_path).unwrap_or(Path::new(""));
            let place = format!("{path}/{}", inside.display());
            add(spec, &node, place.trim_end_matches('/').to_owned(), *access)?;
        }
    }
    Ok(())
}

fn beneath_dev(path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if plain && path.starts_with(DEV) {
        return Ok(path.to_owned());
    }
    Err(Error::new(Code::InvalidArgument, format!("guest device {path:?}: not below {DEV}")))
}

/// Those that every container has are not among them.
fn nodes_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut nodes = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).context(|| format!("list {directory:?}"))?;
        for entry in entries {
            let path = entry.context(|| format!("list {directory:?}"))?.path();
            let meta = fs::symlink_metadata(&path).context(|| format!("stat {path:?}"))?;
            let numbers = (major(meta.rdev()), minor(meta.rdev()));
            let is_character = meta.file_type().is_char_device();
            if meta.is_dir() {
                directories.push(path);
            } else if meta.file_type().is_block_device() || is_character && !is_default(numbers) {
                nodes.push(path);
            }
            if nodes.len() + directories.len() > NODES_MAX {
                let message = format!("guest device {directory:?}: more than {NODES_MAX} nodes");
                return Err(Error::new(Code::ResourceExhausted, message));
            }
        }
    }
    nodes.sort();
    Ok(nodes)
}

/// The node with the guest's numbers and permissions. Every other use than the one that is allowed is denied first,
/// because a node in the list may be used in every way.
fn add(spec: &mut ContainerSpec, node: &Path, path: String, access: Access) -> Result<()> {
    let meta = fs::symlink_metadata(node).context(|| format!("stat {node:?}"))?;
    let (major, minor) = (major(meta.rdev()), minor(meta.rdev()));
    let (kind, rule_kind) = match meta.file_type() {
        kind if kind.is_char_device() => {
            (DeviceKind::Character { major, minor }, RuleKind::Character)
        }
        kind if kind.is_block_device() => (DeviceKind::Block { major, minor }, RuleKind::Block),
        _ => {
            let message = format!("guest device {node:?}: not a device");
            return Err(Error::new(Code::InvalidArgument, message));
        }
    };
    let rule = |allow, access| DeviceRule {
        allow,
        kind: rule_kind,
        major: Some(major),
        minor: Some(minor),
        access,
    };
    spec.resources.device_rules.extend([rule(false, Access::ALL), rule(true, access)]);
    let mode = meta.mode() & 0o7777;
    spec.devices.retain(|device| device.path != path);
    spec.devices.push(Device { path, kind, mode, uid: meta.uid(), gid: meta.gid() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_dev_are_looked_at() {
        for good in ["/dev", "/dev/fuse", "/dev/net/tun"] {
            assert_eq!(beneath_dev(good).unwrap(), Path::new(good));
        }
        for bad in ["", "fuse", "/etc/passwd", "/dev/../etc/passwd", "/devil"] {
            assert_eq!(beneath_dev(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }
}
