//! OCI `mounts`.

use hyperstart_protocol::oci;

use super::{absolute, bounded, invalid, path_like, refuse_if, unsupported};
use crate::container::spec::{FsType, Mount, MountSource};
use crate::container::{Bind, MountOptions, plan_mounts};
use crate::error::{Context, Result};

const MOUNTS_MAX: usize = 1024;
pub fn mounts(list: Vec<oci::Mount>) -> Result<Vec<Mount>> {
    bounded(list.len(), MOUNTS_MAX, "mounts")?;
    let mounts = list
        .into_iter()
        .enumerate()
        .map(|(at, mount)| mount_spec(at, mount))
        .collect::<Result<Vec<_>>>()?;
    plan_mounts(&mounts)?; // what the plan refuses is refused before anything is made
    Ok(mounts)
}

pub(super) fn mount_spec(at: usize, mount: oci::Mount) -> Result<Mount> {
    let field = format!("mounts[{at}]");
    refuse_if(!mount.UIDMappings.is_empty(), &format!("{field}.uidMappings"))?;
    refuse_if(!mount.GIDMappings.is_empty(), &format!("{field}.gidMappings"))?;
    let options = MountOptions::parse(mount.options.iter().map(String::as_str))
        .context(|| format!("{field}.options"))?;
    let destination = path_like(mount.destination, &format!("{field}.destination"))?;
    let bind = match mount.type_.as_str() {
        "bind" => options.bind.or(Some(Bind::Single)),
        _ => options.bind,
    };
    let source = match bind {
        Some(bind) => {
            if let Some(option) = options.data.first() {
                return invalid(
                    &format!("{field}.options"),
                    &format!("{option:?} is not an option of a bind mount"),
                );
            }
            let path = absolute(mount.source, &format!("{field}.source"))?;
            MountSource::Bind { path, recursive: bind == Bind::Recursive }
        }
        None => {
            let Some(fstype) = FsType::from_name(&mount.type_) else {
                return unsupported(&format!("{field}.type {:?}", mount.type_));
            };
            let source =
                if mount.source.is_empty() { fstype.name().to_owned() } else { mount.source };
            MountSource::Filesystem { fstype, source }
        }
    };
    Ok(Mount { destination, source, options })
}
