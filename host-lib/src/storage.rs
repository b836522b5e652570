//! What the guest mounts before a container, or for a whole sandbox: the host's attached devices and shares.
//!
//! Drivers, sources and options are Kata's (`grpc.Storage`). The functions here build the ones that a root file system
//! is usually made of; any other is built by its fields.

use hyperstart_protocol::agent;
use hyperstart_protocol::types::FSGroupChangePolicy;

use crate::id::ContainerId;

/// The size of a 9p message in bytes. Larger ones mean fewer round trips; QEMU takes up to a megabyte or so.
const NINEP_MSIZE: u32 = 256 << 10;

/// As many users as there are in a 16-bit world, which is what images are made for.
pub const ID_RANGE: u32 = 1 << 16;

/// Something that the guest mounts: a source, by way of a driver, at a mount point in the guest.
///
/// The same mount point named twice is one mount that is counted; it goes with its last user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// How the guest finds the source: `mmioblk`, `blk`, `scsi`, `nvdimm`, `virtio-pmem`, `virtio-fs`, `9p`, `overlayfs`,
    /// `ephemeral`, `local` or `bind`.
    pub driver: String,
    /// Options of the driver itself, not of the mount.
    pub driver_options: Vec<String>,
    /// The device (`/dev/vda`), PCI path (`02/03`), SCSI address (`0:1`), share tag, or what else the driver takes.
    pub source: String,
    /// The file system type, as in mount(2).
    pub fstype: String,
    /// Mount options, as mount(8) writes them.
    pub options: Vec<String>,
    /// Where it is mounted: an absolute path in the guest.
    pub mount_point: String,
    /// The group that its files become.
    pub fs_group: Option<FsGroup>,
    /// It stays until the sandbox ends, whoever uses it.
    pub shared: bool,
}

/// A group for the files of a volume, who may then read and write them all (Kubernetes: fsGroup).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsGroup {
    /// Its number, as containers see it.
    pub gid: u32,
    /// Whether a volume whose root is so already is left as it is; else each file is looked at.
    pub only_if_root_differs: bool,
}

impl Storage {
    /// A read-only EROFS image on a device that the VMM attached. `driver` is `mmioblk` or `blk` for a disk,
    /// `virtio-pmem` or `nvdimm` for memory that is mapped from the host; the latter is mounted with `dax=always`.
    /// `name` names the image in the guest, and must be the same wherever the same device is used.
    pub fn image(driver: &str, source: &str, name: &ContainerId) -> Self {
        let mut options = vec!["ro".to_owned()];
        if matches!(driver, "virtio-pmem" | "nvdimm") {
            options.push("dax=always".to_owned());
        }
        Self {
            driver: driver.to_owned(),
            source: source.to_owned(),
            fstype: "erofs".to_owned(),
            options,
            mount_point: format!("/run/hyperstart/images/{}", name.as_str()),
            ..Self::default()
        }
    }

    /// The root of container `id`: the layers of its image, from the lowest up, with a writable one in guest memory over
    /// them.
    pub fn overlay(id: &ContainerId, layers: &[Storage]) -> Self {
        let from_the_top: Vec<&str> =
            layers.iter().rev().map(|layer| layer.mount_point.as_str()).collect();
        Self {
            driver: "overlayfs".to_owned(),
            source: "overlay".to_owned(),
            fstype: "overlay".to_owned(),
            options: vec![
                format!("lowerdir={}", from_the_top.join(":")),
                "io.katacontainers.fs-opt.overlay-rw".to_owned(),
            ],
            mount_point: rootfs_path(id),
            ..Self::default()
        }
    }

    /// As it is, for a container in a user namespace: what is of root and the next 65535 users and groups on the layers
    /// is `first` and the next ones in the guest. The container's own mappings must say the same. Takes a hyperstart
    /// guest, and an overlay.
    #[must_use]
    pub fn idmapped(mut self, first: u32) -> Self {
        self.options.push(format!("X-mount.idmap=b:0:{first}:{ID_RANGE}"));
        self
    }

    /// The root of container `id`: a directory of the host that the VMM shares by 9p (virtio) under `tag`.
    pub fn shared_rootfs(id: &ContainerId, tag: &str) -> Self {
        Self { mount_point: rootfs_path(id), ..Self::share(tag, false) }
    }

    /// Any directory of the host that the VMM shares by 9p (virtio) under `tag`, for mounts of containers to bind.
    pub fn share(tag: &str, read_only: bool) -> Self {
        let options =
            ["trans=virtio", "version=9p2000.L", "cache=mmap"].into_iter().map(str::to_owned);
        let read_only = read_only.then(|| "ro".to_owned());
        Self {
            driver: "9p".to_owned(),
            source: tag.to_owned(),
            fstype: "9p".to_owned(),
            options: options.chain([format!("msize={NINEP_MSIZE}")]).chain(read_only).collect(),
            mount_point: format!("/run/hyperstart/shares/{tag}"),
            ..Self::default()
        }
    }
}

impl Storage {
    /// Any directory of the host that a daemon shares by virtio-fs under `tag`, for mounts of containers to bind.
    pub fn virtio_fs(tag: &str, read_only: bool) -> Self {
        let options = read_only.then(|| "ro".to_owned()).into_iter().collect();
        Self {
            driver: "virtio-fs".to_owned(),
            fstype: "virtiofs".to_owned(),
            options,
            ..Self::share(tag, read_only)
        }
    }

    /// A file system on a disk that the VMM attached, for mounts of containers to bind. `name` names it in the guest.
    pub fn disk(driver: &str, source: &str, fstype: &str, name: &str, read_only: bool) -> Self {
        Self {
            driver: driver.to_owned(),
            source: source.to_owned(),
            fstype: fstype.to_owned(),
            options: read_only.then(|| "ro".to_owned()).into_iter().collect(),
            mount_point: format!("/run/hyperstart/disks/{name}"),
            ..Self::default()
        }
    }
}

/// Where a container's root is in the guest, as Kata's runtimes have it.
pub(crate) fn rootfs_path(id: &ContainerId) -> String {
    format!("/run/kata-containers/{}/rootfs", id.as_str())
}

impl From<Storage> for agent::Storage {
    fn from(storage: Storage) -> Self {
        let Storage {
            driver,
            driver_options,
            source,
            fstype,
            options,
            mount_point,
            fs_group,
            shared,
        } = storage;
        let fs_group = fs_group.map(wire_group).into();
        let known = Self { driver, driver_options, source, fstype, options, ..Self::default() };
        Self { mount_point, fs_group, shared, ..known }
    }
}

fn wire_group(FsGroup { gid, only_if_root_differs }: FsGroup) -> agent::FSGroup {
    let policy = match only_if_root_differs {
        true => FSGroupChangePolicy::OnRootMismatch,
        false => FSGroupChangePolicy::Always,
    };
    agent::FSGroup { group_id: gid, group_change_policy: policy.into(), ..Default::default() }
}

/// All of them, in the wire's form.
pub(crate) fn to_wire(storages: Vec<Storage>) -> Vec<agent::Storage> {
    storages.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_layer_is_named_first() {
        let id = ContainerId::new("c").unwrap();
        let layer = |name| Storage::image("blk", "02", &ContainerId::new(name).unwrap());
        let root = Storage::overlay(&id, &[layer("low"), layer("mid"), layer("top")]);
        let images = "/run/hyperstart/images";
        let expected = format!("lowerdir={images}/top:{images}/mid:{images}/low");
        assert_eq!(root.options.first(), Some(&expected));
    }
}
