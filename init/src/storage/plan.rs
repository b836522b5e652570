//! From a storage to what is to be mounted: the device that its driver finds, and what its options mean.

use std::path::PathBuf;
use std::time::Duration;

use nix::mount::MsFlags;

use super::huge_pages::HugePages;
use super::options::{self, MountOptions};
use super::ownership::{self, Group};
use super::{DRIVERS, Storage, block, check_mount_point, mkfs, overlay, scsi};
use crate::error::{Code, Context, Error, Result};
use crate::idmap::IdMaps;
use crate::reaper::Reaper;
use crate::uevent::Uevents;

/// For a device or a peer to answer a mount.
const MOUNT_DEADLINE: Duration = Duration::from_secs(10);
/// For each file of a volume to get its group, and for memory to be cleared for huge pages.
const LONG_DEADLINE: Duration = Duration::from_secs(120);

/// How a storage gets mounted, once its device is there.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // there are few of them, and a box would be in the way of every pattern
pub enum Plan {
    Mount(MountPlan),
    Directory {
        mode: u32,
        gid: Option<u32>,
    },
    /// A copy that is kept up to date.
    Watched {
        source: PathBuf,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct MountPlan {
    pub source: String,
    pub fstype: String,
    pub flags: MsFlags,
    pub data: String,
    /// Made first; whose they are is the host's business.
    pub directories: Vec<PathBuf>,
    /// Made first, and removed after the unmount with all that is in them.
    pub scratch: Vec<PathBuf>,
    /// Of an overlay's layers.
    pub idmap: Option<IdMaps>,
    /// Taken first, and given back after the unmount.
    pub huge_pages: Option<HugePages>,
    /// Whose the files become.
    pub group: Option<Group>,
    /// The disk gets its file system first.
    pub creates: bool,
}

impl MountPlan {
    pub fn new(source: &str, fstype: &str, MountOptions { flags, data }: MountOptions) -> Self {
        Self {
            source: source.to_owned(),
            fstype: fstype.to_owned(),
            flags,
            data,
            directories: Vec::new(),
            scratch: Vec::new(),
            idmap: None,
            huge_pages: None,
            group: None,
            creates: false,
        }
    }
}

impl Plan {
    /// Whether the mount asks a device or a peer that may be slow to answer, or is work.
    pub fn may_block(&self) -> bool {
        match self {
            Self::Mount(plan) => {
                plan.idmap.is_some() // makes and waits for a child
                    || plan.huge_pages.is_some()
                    || matches!(plan.group, Some(Group::Tree { .. }))
                    || plan.source.starts_with("/dev/")
                    || matches!(plan.fstype.as_str(), "9p" | "virtiofs")
            }
            Self::Watched { .. } => true,
            Self::Directory { .. } => false,
        }
    }

    /// For all of it.
    pub fn deadline(&self) -> Duration {
        match self {
            Self::Mount(MountPlan { group: Some(Group::Tree { .. }), .. })
            | Self::Mount(MountPlan { huge_pages: Some(_), .. }) => LONG_DEADLINE,
            Self::Mount(_) | Self::Directory { .. } | Self::Watched { .. } => MOUNT_DEADLINE,
        }
    }
}

/// Waits for the device, and says what to do with it.
pub async fn plan(
    storage: &Storage,
    uevents: &Uevents,
    device_timeout: Duration,
    reaper: &Reaper,
) -> Result<Plan> {
    let source = &storage.source;
    match storage.driver.as_str() {
        "mmioblk" | "nvdimm" | "virtio-pmem" => {
            let device = block::device_path(source)?;
            uevents.wait_for_path(&device, device_timeout).await?;
            plan_disk(storage, source)
        }
        "blk" => {
            let device = block::wait_for(source, uevents, device_timeout, reaper).await?;
            plan_disk(storage, &device)
        }
        "scsi" => {
            let device = scsi::wait_for(source, uevents, device_timeout, reaper).await?;
            plan_disk(storage, &device)
        }
        "virtio-fs" => plan_mount(storage, source, "virtiofs"),
        "9p" => plan_mount(storage, source, "9p"),
        "ephemeral" => plan_ephemeral(storage),
        "bind" => plan_mount(storage, source, "bind"),
        "overlayfs" => {
            refuse_group(storage)?;
            overlay::plan(storage)
        }
        "local" => plan_directory(storage),
        "watchable-bind" => plan_watched(storage),
        other => {
            let message =
                format!("driver {other:?}: not supported; known are {}", DRIVERS.join(", "));
            Err(Error::new(Code::Unimplemented, message))
        }
    }
}

/// A file system on a device that is there.
fn plan_disk(storage: &Storage, device: &str) -> Result<Plan> {
    let creates = storage.driver_options.iter().any(|option| option == mkfs::OPTION);
    if creates {
        mkfs::check(&storage.fstype)?;
    }
    let others = storage.driver_options.iter().filter(|option| *option != mkfs::OPTION);
    refuse_driver_option(storage, others.into_iter().next())?;
    let mut plan = mounted(storage, device, &storage.fstype);
    plan.creates = creates;
    Ok(Plan::Mount(plan))
}

fn plan_mount(storage: &Storage, source: &str, fstype: &str) -> Result<Plan> {
    refuse_driver_option(storage, storage.driver_options.first())?;
    let mut plan = mounted(storage, source, fstype);
    if fstype == "bind" {
        plan.flags |= MsFlags::MS_BIND;
    }
    Ok(Plan::Mount(plan))
}

fn mounted(storage: &Storage, source: &str, fstype: &str) -> MountPlan {
    let options = MountOptions::parse(&storage.options);
    let read_only = options.flags.contains(MsFlags::MS_RDONLY);
    let mut plan = MountPlan::new(source, fstype, options);
    plan.group = storage.fs_group.map(|group| Group::Tree { group, read_only });
    plan
}

/// The guest's own memory: a tmpfs, which /dev/shm is too, or huge pages.
fn plan_ephemeral(storage: &Storage) -> Result<Plan> {
    refuse_driver_option(storage, storage.driver_options.first())?;
    let (gid, options) = ownership::take_option(&storage.options)?;
    let huge_pages = match storage.fstype.as_str() {
        "tmpfs" => None,
        "hugetlbfs" => Some(HugePages::parse(&options)?),
        other => {
            let message =
                format!("fstype {other:?} of \"ephemeral\": only tmpfs and hugetlbfs are");
            return Err(Error::new(Code::Unimplemented, message));
        }
    };
    let mut plan = MountPlan::new(&storage.source, &storage.fstype, MountOptions::parse(&options));
    let gid = gid.or(storage.fs_group.map(|group| group.gid)); // it is empty: policies agree
    plan.group = gid.map(Group::Root);
    plan.huge_pages = huge_pages;
    Ok(Plan::Mount(plan))
}

fn plan_directory(storage: &Storage) -> Result<Plan> {
    refuse_driver_option(storage, storage.driver_options.first())?;
    let (gid, options) = ownership::take_option(&storage.options)?;
    let gid = gid.or(storage.fs_group.map(|group| group.gid));
    Ok(Plan::Directory { mode: options::directory_mode(&options)?, gid })
}

/// What a bind may be asked for says nothing of a copy; containers' own mounts say what they may do with it.
fn plan_watched(storage: &Storage) -> Result<Plan> {
    const OPTIONS: [&str; 8] =
        ["bind", "rbind", "ro", "rw", "private", "rprivate", "slave", "rslave"];
    refuse_group(storage)?;
    refuse_driver_option(storage, storage.driver_options.first())?;
    let mut options = storage.options.iter().flat_map(|option| option.split(','));
    if let Some(option) = options.find(|option| !OPTIONS.contains(option)) {
        let message = format!("option {option:?} of \"watchable-bind\": not supported");
        return Err(Error::new(Code::Unimplemented, message));
    }
    let source = PathBuf::from(&storage.source);
    check_mount_point(&source).context(|| "source".to_owned())?;
    Ok(Plan::Watched { source })
}

fn refuse_driver_option(storage: &Storage, option: Option<&String>) -> Result<()> {
    match option {
        None => Ok(()),
        Some(option) => {
            let message =
                format!("driver option {option:?} of {:?}: not supported", storage.driver);
            Err(Error::new(Code::Unimplemented, message))
        }
    }
}

fn refuse_group(storage: &Storage) -> Result<()> {
    match storage.fs_group {
        None => Ok(()),
        Some(_) => {
            let message = format!("fs_group of {:?}: not supported", storage.driver);
            Err(Error::new(Code::Unimplemented, message))
        }
    }
}
