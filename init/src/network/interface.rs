//! An interface becomes what the host declares: its name, its MTU, its flags, its addresses.
//!
//! What is added comes before what is taken away, so that a live link keeps its routes; only addresses that the host
//! has declared before are taken away.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::address::{self, Assigned};
use super::changes::{Change, Changes};
use super::cidr::{Cidr, Mac};
use super::link::{self, Link, NOT_FOUND};
use crate::error::{Code, Context, Error, Result};
use crate::pci::PciPath;
use crate::uevent::Uevents;

const CLASS: &str = "/sys/class/net";
const PROMOTE_SECONDARIES: &str = "/proc/sys/net/ipv4/conf/all/promote_secondaries";
/// The flags of netdevice(7) that a host may set.
const SETTABLE: u32 = bit(libc::IFF_NOARP) | bit(libc::IFF_PROMISC) | bit(libc::IFF_ALLMULTI);
const UP: u32 = bit(libc::IFF_UP);
/// Those that only tell what a link is or how it does; a host that gives back what it was told may have them.
const TOLD: u32 = UP
    | bit(libc::IFF_BROADCAST)
    | bit(libc::IFF_RUNNING)
    | bit(libc::IFF_MULTICAST)
    | IFF_LOWER_UP;
const IFF_LOWER_UP: u32 = 1 << 16;

/// What an interface is to be.
#[derive(Debug, Clone, Default)]
pub struct InterfaceSpec {
    /// By which it is found, and by the PCI path if there is one.
    pub mac: Option<Mac>,
    pub pci_path: Option<PciPath>,
    /// None: it keeps its own, and so its MTU.
    pub name: Option<String>,
    pub mtu: Option<u32>,
    pub flags: u32,
    pub addresses: Vec<Cidr>,
}

/// What an interface is.
#[derive(Debug, Clone)]
pub struct Interface {
    pub link: Link,
    pub addresses: Vec<Cidr>,
}

const fn bit(flag: i32) -> u32 {
    flag.cast_unsigned()
}

impl InterfaceSpec {
    pub fn check(&self) -> Result<()> {
        if self.mac.is_none() && self.pci_path.is_none() {
            return Err(bad("neither hwAddr nor devicePath: one says which interface it is"));
        }
        if let Some(name) = &self.name {
            link::check_name(name)?;
        }
        let unknown = self.flags & !(SETTABLE | TOLD);
        if unknown != 0 {
            return Err(bad(format!("flags {unknown:#x}: not to be set by a host")));
        }
        for (index, cidr) in self.addresses.iter().enumerate() {
            if self.addresses.iter().take(index).any(|earlier| earlier.address == cidr.address) {
                return Err(bad(format!("address {cidr}: named twice")));
            }
        }
        Ok(())
    }

    /// How an error names it.
    fn object(&self) -> String {
        let by_mac = self.mac.map(|mac| format!("hardware address {mac}"));
        let by_path = self.pci_path.as_ref().map(|path| format!("PCI path {path}"));
        format!("interface with {}", by_mac.or(by_path).unwrap_or_default())
    }

    /// Waits for the link, which may be a device that is being plugged in, and gives its index.
    pub async fn find(&self, uevents: &Uevents, deadline: Duration) -> Result<u32> {
        let object = self.object();
        let found = uevents.wait_for(&object, deadline, || self.look()).await;
        found.map_err(|err| match err.code() {
            Code::DeadlineExceeded => {
                let waited = deadline.as_secs();
                Error::new(Code::NotFound, format!("find {object}: {NOT_FOUND} within {waited} s"))
            }
            _ => err, // of the uevents, whatever it is
        })
    }

    /// Only devices that the machine has: what a container makes may have any address.
    fn look(&self) -> Option<u32> {
        if let Some(path) = &self.pci_path {
            let (_name, directory) = path.find_virtio("net")?;
            return self.index_of(&directory);
        }
        let mut devices = fs::read_dir(CLASS).ok()?.flatten().map(|entry| entry.path());
        devices.find_map(|directory| self.index_of(&directory))
    }

    fn index_of(&self, directory: &Path) -> Option<u32> {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        if let Some(mac) = self.mac {
            let has_it = Mac::parse(read("address")?.trim()).is_ok_and(|address| address == mac);
            if !has_it || !directory.join("device").exists() {
                return None;
            }
        }
        read("ifindex")?.trim().parse().ok()
    }
}

/// Makes link `index` what `spec` says. `declared` are the addresses that the host gave it before.
pub async fn apply(
    changes: &mut Changes<'_>,
    spec: &InterfaceSpec,
    index: u32,
    links: &[Link],
    declared: &[Cidr],
) -> Result<()> {
    let gone = || Error::new(Code::NotFound, format!("{}: {NOT_FOUND}", spec.object()));
    let link = links.iter().find(|link| link.index == index).ok_or_else(gone)?;
    let name = spec.name.as_ref().unwrap_or(&link.name);
    if *name != link.name {
        rename(changes, link, name, links).await?;
    }
    if let Some(mtu) = spec.mtu.filter(|mtu| *mtu != link.mtu) {
        let request = link::set_mtu(index, mtu);
        let inverse = link::set_mtu(index, link.mtu);
        let what = format!("set MTU {mtu} of link {name}");
        changes.make(Change { what, request, inverse, settled: None }).await?;
    }
    let (mask, flags) = (SETTABLE | UP, spec.flags & SETTABLE | UP);
    if link.flags & mask != flags {
        trust_the_host_alone(name)?;
        let request = link::set_flags(index, flags, mask);
        let inverse = link::set_flags(index, link.flags, mask);
        let what = format!("set flags {flags:#x} of link {name}");
        changes.make(Change { what, request, inverse, settled: None }).await?;
    }
    set_addresses(changes, spec, index, name, declared).await
}

/// What the host declares is all: no router may add to it (accept_ra), and no address waits a second for the question
/// whether another has it (accept_dad).
fn trust_the_host_alone(name: &str) -> Result<()> {
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(name);
    if !directory.exists() {
        return Ok(()); // a kernel without IPv6, or a link with an MTU below 1280
    }
    for setting in ["accept_ra", "accept_dad"] {
        let file = directory.join(setting);
        fs::write(&file, "0").context(|| format!("write {file:?}"))?;
    }
    Ok(())
}

/// When another link has the name, the two swap theirs, by way of a third.
async fn rename(changes: &mut Changes<'_>, link: &Link, name: &str, links: &[Link]) -> Result<()> {
    let mut own = link.name.clone();
    if let Some(other) = links.iter().find(|other| other.name == name) {
        if other.flags & bit(libc::IFF_LOOPBACK) != 0 {
            return Err(bad(format!("name {name:?}: is the loopback interface's")));
        }
        let between = format!("_swap{}", link.index);
        set_name(changes, link.index, &own, &between).await?;
        set_name(changes, other.index, name, &own).await?;
        own = between;
    }
    set_name(changes, link.index, &own, name).await
}

async fn set_name(changes: &mut Changes<'_>, index: u32, old: &str, new: &str) -> Result<()> {
    let (request, inverse) = (link::set_name(index, new), link::set_name(index, old));
    let what = format!("rename link {old} to {new}");
    changes.make(Change { what, request, inverse, settled: None }).await
}

async fn set_addresses(
    changes: &mut Changes<'_>,
    spec: &InterfaceSpec,
    index: u32,
    name: &str,
    declared: &[Cidr],
) -> Result<()> {
    let present = address::addresses(changes.netlink()).await?;
    let is_present = |cidr: Cidr| present.contains(&Assigned { index, cidr });
    let stale = || {
        let given = declared.iter().copied().filter(|cidr| !spec.addresses.contains(cidr));
        given.filter(|cidr| is_present(*cidr))
    };
    // The same address with another prefix cannot be there beside itself.
    let in_the_way = |old: &Cidr| spec.addresses.iter().any(|new| new.address == old.address);
    for cidr in stale().filter(in_the_way) {
        delete(changes, index, name, cidr).await?;
    }
    for cidr in spec.addresses.iter().copied().filter(|cidr| !is_present(*cidr)) {
        let (request, inverse) = (address::add(index, cidr), address::delete(index, cidr));
        let what = format!("add address {cidr} to link {name}");
        changes.make(Change { what, request, inverse, settled: None }).await?;
    }
    if stale().next().is_some() {
        // Else the kernel takes with the first address of a subnet all others of it.
        fs::write(PROMOTE_SECONDARIES, "1").context(|| format!("write {PROMOTE_SECONDARIES:?}"))?;
    }
    for cidr in stale().filter(|cidr| !in_the_way(cidr)) {
        delete(changes, index, name, cidr).await?;
    }
    Ok(())
}

async fn delete(changes: &mut Changes<'_>, index: u32, name: &str, cidr: Cidr) -> Result<()> {
    let (request, inverse) = (address::delete(index, cidr), address::add(index, cidr));
    let what = format!("delete address {cidr} of link {name}");
    let settled = Some(Errno::EADDRNOTAVAIL);
    changes.make(Change { what, request, inverse, settled }).await
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message)
}
