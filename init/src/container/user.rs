//! Who a process is: ids, groups, capabilities (credentials(7), capabilities(7)).
//!
//! Numbers stay numbers. Only a name is looked up, in the container's own /etc/passwd and /etc/group, which are read
//! beneath its root: an image that makes them links to files of the guest reads its own (CVE-2025-24965), and a user
//! whose *name* is a number gains nothing by it (CVE-2016-3697).

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::spec::{Capabilities, Identity, User};
use super::tree::{Links, Tree};
use crate::error::{Code, Context, Error, Result};

/// A longer passwd or group file is refused.
const FILE_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// What HOME is, unless the spec says.
    pub home: String,
}

/// Finds out who `user` is in the container's tree, and with `with_home` where the home is, which is `/` unless known.
pub fn resolve(tree: &Tree, user: &User, with_home: bool) -> Result<Credentials> {
    match &user.identity {
        Identity::Ids { uid, gid } => {
            // An id is good without any file; one that cannot be read says no home.
            let passwd = if with_home { read(tree, PASSWD) } else { Ok(String::new()) };
            let home = passwd.map_or_else(|_| "/".to_owned(), |passwd| home_of(&passwd, *uid));
            let groups = user.additional_gids.clone();
            Ok(Credentials { uid: *uid, gid: *gid, groups, home })
        }
        Identity::Named(name) => {
            look_up(name, &read(tree, PASSWD)?, &read(tree, GROUP)?, &user.additional_gids)
        }
    }
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A file that is missing is empty.
fn read(tree: &Tree, path: &str) -> Result<String> {
    let open = || -> Result<String> {
        // Looked at before it is opened: to open a device or a pipe would do something.
        let is_regular = |fd: &OwnedFd| -> rustix::io::Result<bool> {
            Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::RegularFile)
        };
        let refused = || Error::new(Code::InvalidArgument, "not a regular file");
        let place = match tree.locate(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
            place => place?,
        };
        if !is_regular(&place)? {
            return Err(refused());
        }
        let file =
            tree.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Links::Follow)?;
        if !is_regular(&file)? {
            return Err(refused());
        }
        let mut content = Vec::new();
        let length = File::from(file).take(FILE_MAX + 1).read_to_end(&mut content)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > FILE_MAX {
            return Err(Error::new(
                Code::ResourceExhausted,
                format!("longer than {FILE_MAX} bytes"),
            ));
        }
        Ok(String::from_utf8_lossy(&content).into_owned())
    };
    open().context(|| format!("read {path:?}"))
}

/// `user` or `user:group`, each a name or an id. As docker has it: without a group it is the user's own, and a named
/// user is in every group that lists it.
fn look_up(name: &str, passwd: &str, group: &str, additional: &[u32]) -> Result<Credentials> {
    let (user, group_name) = match name.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (name, None),
    };
    let entry = match parse_id(user) {
        Some(uid) => find_by_uid(passwd, uid),
        None => find_by_name(passwd, user),
    };
    let unknown = |what: &str, name: &str, file: &str| {
        Error::new(Code::NotFound, format!("{what} {name:?}: no such {what} in {file}"))
    };
    let uid = parse_id(user).or(entry.as_ref().map(|entry| entry.uid));
    let uid = uid.ok_or_else(|| unknown("user", user, PASSWD))?;
    let mut groups = additional.to_vec();
    let gid = match group_name {
        Some(group_name) => parse_id(group_name)
            .or_else(|| gid_of_group(group, group_name))
            .ok_or_else(|| unknown("group", group_name, GROUP))?,
        None => {
            if let Some(entry) = &entry {
                groups.extend(groups_listing(group, &entry.name));
            }
            entry.as_ref().map_or(0, |entry| entry.gid)
        }
    };
    let home = entry.map_or_else(|| "/".to_owned(), |entry| entry.home);
    Ok(Credentials { uid, gid, groups, home })
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// passwd(5): `name:password:uid:gid:comment:home:shell`. A line that is not one is skipped.
fn passwd_entries(passwd: &str) -> impl Iterator<Item = PasswdEntry> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = fields.nth(1).and_then(parse_id)?;
        let gid = fields.next().and_then(parse_id)?;
        let home = fields.nth(1).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn find_by_uid(passwd: &str, uid: u32) -> Option<PasswdEntry> {
    passwd_entries(passwd).find(|entry| entry.uid == uid)
}

fn find_by_name(passwd: &str, name: &str) -> Option<PasswdEntry> {
    passwd_entries(passwd).find(|entry| entry.name == name)
}

fn home_of(passwd: &str, uid: u32) -> String {
    find_by_uid(passwd, uid).map_or_else(|| "/".to_owned(), |entry| entry.home)
}

/// group(5): `name:password:gid:member,member`.
fn group_entries(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1).and_then(parse_id)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn gid_of_group(group: &str, name: &str) -> Option<u32> {
    group_entries(group).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid)
}

fn groups_listing<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_entries(group)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

/// Digits alone; -1 means "no change" to the kernel and is nobody's id.
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

/// Takes on the identity, for good. Each of the five sets is then exactly as the spec has it; what execve(2) makes of
/// them is capabilities(7)'s to say. The permitted and the effective one have `until_exec` besides: execve(2) makes both
/// anew, of the other three and of the file.
pub fn assume(
    credentials: &Credentials,
    capabilities: &Capabilities,
    until_exec: CapabilitySet,
    no_new_privileges: bool,
) -> Result<()> {
    // The bounding set first: dropping from it takes CAP_SETPCAP.
    drop_from_bounding(capabilities.bounding).context(|| "bounding capabilities".to_owned())?;
    let groups: Vec<Gid> = credentials.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups).context(|| "set groups".to_owned())?;
    let (uid, gid) = (Uid::from_raw(credentials.uid), Gid::from_raw(credentials.gid));
    set_thread_res_gid(gid, gid, gid).context(|| format!("set gid {}", credentials.gid))?;
    // A change of uid would clear the permitted set, from which the others are filled.
    set_keep_capabilities(true).context(|| "keep capabilities".to_owned())?;
    set_thread_res_uid(uid, uid, uid).context(|| format!("set uid {}", credentials.uid))?;
    set_keep_capabilities(false).context(|| "keep capabilities".to_owned())?;
    let Capabilities { effective, permitted, inheritable, ambient, .. } = *capabilities;
    clear_ambient_capability_set().context(|| "ambient capabilities".to_owned())?;
    let (effective, permitted) = (effective | until_exec, permitted | until_exec);
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
        .context(|| "set capabilities".to_owned())?;
    for capability in each(ambient) {
        configure_capability_in_ambient_set(capability, true)
            .context(|| "ambient capabilities".to_owned())?;
    }
    if no_new_privileges {
        set_no_new_privs(true).context(|| "no_new_privs".to_owned())?;
    }
    Ok(())
}

/// Up to the last capability that the kernel knows, which need not be the last that this program knows.
fn drop_from_bounding(keep: CapabilitySet) -> rustix::io::Result<()> {
    for capability in each(CapabilitySet::from_bits_retain(!keep.bits())) {
        match remove_capability_from_bounding_set(capability) {
            Err(Errno::INVAL) => return Ok(()),
            dropped => dropped?,
        }
    }
    Ok(())
}

fn each(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
        .filter(move |one| set.contains(*one))
}

/// capabilities(7), by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capability that the OCI spec calls `CAP_…`.
pub fn capability_named(name: &str) -> Option<CapabilitySet> {
    let name = name.strip_prefix("CAP_")?;
    let bit = NAMES.iter().position(|known| *known == name)?;
    Some(CapabilitySet::from_bits_retain(1 << bit))
}

#[cfg(test)]
mod tests;
