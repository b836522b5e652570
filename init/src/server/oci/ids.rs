//! OCI id mappings: `linux.uidMappings` and `linux.gidMappings`, and those of a mount.

use hyperstart_protocol::oci::LinuxIDMapping;

use crate::error::{Error, Result};
use crate::idmap::{IdMapping, IdMaps};

/// None where there are none of either; `object` is what they are of: `linux`, or `mounts[3]`.
pub fn id_maps(
    uids: &[LinuxIDMapping],
    gids: &[LinuxIDMapping],
    object: &str,
) -> Result<Option<IdMaps>> {
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    let mappings = |wire: &[LinuxIDMapping]| wire.iter().map(mapping).collect();
    IdMaps::new(mappings(uids), mappings(gids))
        .map(Some)
        .map_err(|err| Error::new(err.code(), format!("{object}.{}", err.message())))
}

fn mapping(wire: &LinuxIDMapping) -> IdMapping {
    IdMapping { inside: wire.ContainerID, outside: wire.HostID, count: wire.Size }
}
