//! A container's user namespace (user_namespaces(7)): its ids are others in the guest, and its capabilities count in
//! its own namespaces only.
//!
//! A process that enters one gives up the guest's rights for good, so each does it last: until then it mounts, makes
//! device nodes and sets limits as the guest's root. What it makes for the container's root it makes as that user
//! (`act_as_root`), or else files would be nobody's inside. At the end the mount namespace is made once more, owned by
//! the user namespace: then the container may mount what it likes, while what was mounted before is locked together,
//! masks included (mount_namespaces(7), "Restrictions on mount namespaces").

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, openat};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::detached::set_propagation;
use super::namespaces;
use super::spec::{
    self, Device, FsType, Mount, MountPropagationFlags, MountSource, Namespace, Namespaces,
};
use super::tree::Tree;
use super::user::Credentials;
use crate::error::{Code, Context, Error, Result};
use crate::idmap::{Holder, IdMaps, act_as};
use crate::sys::CGROUP_ROOT;

/// One that is ready to be entered.
pub struct UserNamespace {
    user: OwnedFd, // the namespace, or a pidfd of a process in it
    maps: IdMaps,
    /// Namespaces of the caller's that are to be made once more inside.
    again: CloneFlags,
    owns_ipc: bool,
    shared: Vec<Propagation>,
}

/// A mount in the container, and what it shall be in this order.
type Propagation = (String, Vec<MountPropagationFlags>);

impl UserNamespace {
    /// Makes it, or opens it, and joins the new namespaces that it owns.
    pub fn prepare(asked: &spec::UserNamespace, namespaces: &Namespaces) -> Result<Self> {
        let owned = namespaces::owned(namespaces);
        // Not in the container's cgroup: it is none of the processes that the container may have.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let cgroup = openat(CWD, CGROUP_ROOT, flags, Mode::empty())
            .context(|| format!("open {CGROUP_ROOT:?}"))?;
        let (holder, maps) = match asked {
            spec::UserNamespace::New(maps) => {
                (Holder::new(maps, owned, Some(cgroup.as_fd()))?, maps.clone())
            }
            spec::UserNamespace::Joined(path) => {
                let user = namespaces::open_not_guests(path, "user", CloneFlags::CLONE_NEWUSER)?;
                let holder = Holder::inside(user, owned, Some(cgroup.as_fd()))?;
                let maps = IdMaps::of_process(holder.as_fd())?;
                (holder, maps)
            }
        };
        if !owned.is_empty() {
            let owned = ThreadNameSpaceType::from_bits_retain(owned.bits().cast_unsigned());
            move_into_thread_name_spaces(holder.as_fd(), owned)
                .context(|| "join namespaces".to_owned())?;
        }
        let mut again = CloneFlags::CLONE_NEWNS;
        if namespaces.cgroup == Namespace::New {
            again |= CloneFlags::CLONE_NEWCGROUP;
        }
        let owns_ipc = namespaces.ipc == Namespace::New;
        Ok(Self { user: holder.user_namespace()?, maps, again, owns_ipc, shared: Vec::new() })
    }

    /// That of a container's first process.
    pub fn of_process(first: BorrowedFd<'_>) -> Result<Self> {
        let (maps, again) = (IdMaps::of_process(first)?, CloneFlags::empty());
        Ok(Self {
            user: first.try_clone_to_owned()?,
            maps,
            again,
            owns_ipc: false,
            shared: Vec::new(),
        })
    }

    /// What is made from here on belongs to the container's root.
    pub fn act_as_root(&self) -> Result<()> {
        let (uid, gid) = self.root()?;
        act_as(uid, gid)
    }

    /// The guest's ids of the container's root.
    pub fn root(&self) -> Result<(u32, u32)> {
        Ok((self.uid(0)?, self.gid(0)?))
    }

    /// The owner in the guest of an ipc namespace that is the user namespace's.
    pub fn ipc_owner(&self) -> Result<Option<u32>> {
        self.owns_ipc.then(|| self.uid(0)).transpose()
    }

    pub fn uid(&self, uid: u32) -> Result<u32> {
        self.maps.uid(uid).ok_or_else(|| unmapped("uid", uid))
    }

    fn gid(&self, gid: u32) -> Result<u32> {
        self.maps.gid(gid).ok_or_else(|| unmapped("gid", gid))
    }

    /// Filesystems are mounted by the guest's root, and so with the guest's ids.
    pub fn translate_mounts(&self, mounts: &mut [Mount]) -> Result<()> {
        for mount in mounts {
            if let MountSource::Filesystem { .. } = mount.source {
                for option in &mut mount.options.data {
                    self.translate_option(option)
                        .context(|| format!("mount on {:?}", mount.destination))?;
                }
            }
        }
        Ok(())
    }

    fn translate_option(&self, option: &mut String) -> Result<()> {
        let Some((key, value)) = option.split_once('=') else { return Ok(()) };
        let Ok(id) = value.parse() else { return Ok(()) }; // the filesystem's to refuse
        match key {
            "uid" => *option = format!("uid={}", self.uid(id)?),
            "gid" => *option = format!("gid={}", self.gid(id)?),
            _ => {}
        }
        Ok(())
    }

    pub fn translate_devices(&self, devices: &mut [Device]) -> Result<()> {
        for device in devices {
            let translated =
                || -> Result<(u32, u32)> { Ok((self.uid(device.uid)?, self.gid(device.gid)?)) };
            (device.uid, device.gid) =
                translated().context(|| format!("device {:?}", device.path))?;
        }
        Ok(())
    }

    /// A devpts gives its root directory to the guest's root, whoever mounts it, and so does an ipc namespace with its
    /// message queues.
    pub fn own_mounts(&self, tree: &Tree, mounts: &[Mount]) -> Result<()> {
        let (uid, gid) = self.root()?;
        for Mount { destination, source, .. } in mounts {
            let MountSource::Filesystem { fstype, .. } = source else { continue };
            if *fstype != FsType::Devpts && !(*fstype == FsType::Mqueue && self.owns_ipc) {
                continue;
            }
            let own = || -> rustix::io::Result<()> {
                let place = tree.locate(destination)?;
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                chownat(place, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            };
            own().context(|| format!("own {destination:?}"))?;
        }
        Ok(())
    }

    /// Remembers which mounts shall be shared: the copies that `enter` makes are not, being less privileged.
    pub fn keep_shared(&mut self, mounts: &[Mount], root: Option<MountPropagationFlags>) {
        let root = root.map(|propagation| ("/".to_owned(), vec![propagation]));
        let others = mounts
            .iter()
            .map(|mount| (mount.destination.clone(), mount.options.propagation.clone()));
        let is_shared = |(_, propagation): &Propagation| {
            propagation.iter().any(|kind| kind.contains(MountPropagationFlags::SHARED))
        };
        self.shared = others.chain(root).filter(is_shared).collect();
    }

    /// Who has no number in the guest cannot be in the container.
    pub fn check(&self, Credentials { uid, gid, groups, .. }: &Credentials) -> Result<()> {
        self.uid(*uid).and_then(|_| self.gid(*gid)).context(|| "process.user".to_owned())?;
        groups.iter().try_for_each(|gid| {
            self.gid(*gid).map(drop).context(|| "process.user.additionalGids".to_owned())
        })
    }

    /// From here on the caller has every capability, inside.
    pub fn enter(&self) -> Result<()> {
        let enter = || -> nix::Result<()> {
            setns(&self.user, CloneFlags::CLONE_NEWUSER)?;
            unshare(self.again)
        };
        enter().context(|| "enter the user namespace".to_owned())?;
        for (destination, propagation) in &self.shared {
            let share = || -> Result<()> {
                let mount = Tree::of_root()?.locate(destination)?;
                propagation.iter().try_for_each(|kind| set_propagation(mount.as_fd(), *kind))
            };
            share().context(|| format!("share {destination:?}"))?;
        }
        Ok(())
    }
}

fn unmapped(kind: &str, id: u32) -> Error {
    let message = format!("{kind} {id}: not mapped in the user namespace");
    Error::new(Code::InvalidArgument, message)
}
