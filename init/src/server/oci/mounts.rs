//! OCI `mounts`.

use hyperstart_protocol::oci;

use super::ids::id_maps;
use super::{absolute, bounded, invalid, path_like, unsupported};
use crate::container::spec::{FsType, Layers, Mount, MountSource};
use crate::container::{Extent, MountOptions, plan_mounts};
use crate::error::{Context, Result};
use crate::idmap::IdMaps;

const MOUNTS_MAX: usize = 1024;
/// As many as overlayfs takes.
const LAYERS_MAX: usize = 500;

/// `container` is how the container's own ids are mapped, if they are.
pub fn mounts(list: Vec<oci::Mount>, container: Option<&IdMaps>) -> Result<Vec<Mount>> {
    bounded(list.len(), MOUNTS_MAX, "mounts")?;
    let mounts = list
        .into_iter()
        .enumerate()
        .map(|(at, mount)| mount_spec(at, mount, container))
        .collect::<Result<Vec<_>>>()?;
    plan_mounts(&mounts)?; // what the plan refuses is refused before anything is made
    Ok(mounts)
}

pub(super) fn mount_spec(
    at: usize,
    mount: oci::Mount,
    container: Option<&IdMaps>,
) -> Result<Mount> {
    let field = format!("mounts[{at}]");
    let maps = id_maps(&mount.UIDMappings, &mount.GIDMappings, &field)?;
    let mut options = MountOptions::parse(mount.options.iter().map(String::as_str))
        .context(|| format!("{field}.options"))?;
    let id_map = id_map(&field, &options, maps, container)?;
    let destination = path_like(mount.destination, &format!("{field}.destination"))?;
    let bind = match mount.type_.as_str() {
        "bind" => options.bind.or(Some(Extent::Single)),
        _ => options.bind,
    };
    let source = match bind {
        _ if options.remount => remount(&field, bind, &options)?,
        Some(extent) => {
            refuse_option(&field, options.not_of_bind(), "a bind mount")?;
            MountSource::Bind { path: absolute(mount.source, &format!("{field}.source"))?, extent }
        }
        None => {
            let Some(fstype) = FsType::from_name(&mount.type_) else {
                return unsupported(&format!("{field}.type {:?}", mount.type_));
            };
            refuse_option(&field, options.not_of_filesystem(fstype), fstype.name())?;
            let source =
                if mount.source.is_empty() { fstype.name().to_owned() } else { mount.source };
            match fstype {
                FsType::Overlay => {
                    let layers = layers(&format!("{field}.options"), &mut options.data)?;
                    MountSource::Overlay { layers, source }
                }
                _ => MountSource::Filesystem { fstype, source },
            }
        }
    };
    Ok(Mount { destination, source, options, id_map })
}

/// OCI: without mappings of its own a mount has the container's; mappings alone mean `idmap`.
fn id_map(
    field: &str,
    options: &MountOptions,
    maps: Option<IdMaps>,
    container: Option<&IdMaps>,
) -> Result<Option<(Extent, IdMaps)>> {
    let extent = match (options.idmap, &maps) {
        (None, None) => return Ok(None),
        (extent, _) => extent.unwrap_or(Extent::Single),
    };
    if options.remount {
        return invalid(&format!("{field}.options"), "\"idmap\" is not an option of a remount");
    }
    match maps.or_else(|| container.cloned()) {
        Some(maps) => Ok(Some((extent, maps))),
        None => invalid(
            &format!("{field}.options"),
            "\"idmap\" without mappings: the container has no user namespace",
        ),
    }
}

fn refuse_option(field: &str, option: Option<&str>, what: &str) -> Result<()> {
    match option {
        None => Ok(()),
        Some(option) => {
            invalid(&format!("{field}.options"), &format!("{option:?} is not an option of {what}"))
        }
    }
}

/// With `bind` too, only the mount changes and not the filesystem on it (mount(2), MS_REMOUNT).
fn remount(field: &str, bind: Option<Extent>, options: &MountOptions) -> Result<MountSource> {
    let made_once = options.copy_up.then_some("tmpcopyup");
    let counter = options.superblock.contains(&"iversion").then_some("iversion");
    refuse_option(field, made_once.or(counter), "a remount")?;
    if bind.is_some() {
        refuse_option(field, options.not_of_bind(), "a remount of a bind mount")?;
    }
    Ok(MountSource::Remount)
}

/// Takes the layers out of an overlay's options: they are paths of the guest, opened by the guest and not by overlayfs.
pub(super) fn layers(field: &str, data: &mut Vec<String>) -> Result<Layers> {
    let mut take = |key: &str| {
        let at = data
            .iter()
            .rposition(|option| option.split_once('=').is_some_and(|(k, _)| k == key))?;
        data.remove(at).split_once('=').map(|(_, value)| value.to_owned())
    };
    let lower = take("lowerdir").map(|paths| split_layers(&paths)).unwrap_or_default();
    let upper = (take("upperdir"), take("workdir"));
    bounded(lower.len(), LAYERS_MAX, &format!("{field}: lowerdir"))?;
    if lower.is_empty() || lower.iter().any(String::is_empty) {
        return invalid(field, "lowerdir: not a list of directories");
    }
    let path_options = ["lowerdir", "upperdir", "workdir", "lowerdir+", "datadir+"];
    let left = data.iter().find(|option| {
        path_options.contains(&option.split_once('=').map_or(option.as_str(), |(key, _)| key))
    });
    if let Some(option) = left {
        return unsupported(&format!("{field}: {option}"));
    }
    let path = |path: String| absolute(path, &format!("{field}: layer"));
    let upper = match upper {
        (Some(upper), Some(work)) => Some((path(upper)?, path(work)?)),
        (None, None) => None,
        _ => return invalid(field, "upperdir and workdir go together"),
    };
    Ok(Layers { lower: lower.into_iter().map(path).collect::<Result<_>>()?, upper })
}

/// Between colons; a backslash takes its meaning from the character behind it (overlayfs.rst).
fn split_layers(paths: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut chars = paths.chars();
    while let Some(c) = chars.next() {
        match (c, layers.last_mut()) {
            (':', _) => layers.push(String::new()),
            ('\\', Some(layer)) => layer.extend(chars.next()),
            (c, Some(layer)) => layer.push(c),
            (_, None) => {}
        }
    }
    layers
}
