//! OCI `linux.namespaces`, and what belongs to single ones of them: id mappings, time offsets.
//!
//! A list has two meanings. The OCI spec's (`NamespacesAsListed`): what is listed is new, or the one of its path; what
//! is not is the runtime's, which is the sandbox's here. Kata's runtimes list ipc and uts and mean the sandbox's, and
//! leave pid to the sandbox's `sandbox_pidns`. Mount and cgroup namespaces are always the container's own.

use std::collections::{BTreeMap, HashMap};

use hyperstart_protocol::oci::extensions::LinuxTimeOffset;
use hyperstart_protocol::oci::{Linux, LinuxNamespace};

use super::ids::id_maps;
use super::{absolute, invalid, unsupported};
use crate::container::spec::{Namespace, Namespaces, TimeOffset, UserNamespace};
use crate::error::Result;

const KINDS: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
/// Those that have offsets (time_namespaces(7)).
const CLOCKS: [&str; 2] = ["boottime", "monotonic"];
/// Where Kata's agent keeps the sandbox's namespaces, each by the name of its kind.
const SANDBOX: [&str; 2] = ["/run/sandbox-ns/", "/var/run/sandbox-ns/"];

/// What the sandbox has for its containers.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub hostname: String,
    /// There is a pid namespace for all of them.
    pub pid: bool,
}

/// The namespaces that `linux` asks for.
pub fn namespaces(linux: &Linux, shared: &Shared) -> Result<Namespaces> {
    let mut listed = list(&linux.Namespaces)?;
    let as_listed = linux.NamespacesAsListed;
    if let Some(Namespace::Joined(_) | Namespace::Sandbox) = listed.remove("mount") {
        return unsupported("linux.namespaces[mount].path");
    }
    let mut take = |kind: &str| listed.remove(kind);
    let of_pod = |listed: Option<Namespace>| match listed {
        Some(Namespace::New) if !as_listed => Namespace::Sandbox,
        listed => listed.unwrap_or(Namespace::Sandbox),
    };
    let time = take("time").unwrap_or(Namespace::Sandbox);
    Ok(Namespaces {
        cgroup: take("cgroup").unwrap_or(Namespace::New),
        ipc: of_pod(take("ipc")),
        network: take("network").unwrap_or(Namespace::Sandbox),
        pid: pid(take("pid"), as_listed, shared)?,
        user: user(linux, take("user"))?,
        uts: of_pod(take("uts")),
        time_offsets: time_offsets(&linux.TimeOffsets, &time)?,
        time,
    })
}

fn list(wire: &[LinuxNamespace]) -> Result<BTreeMap<&str, Namespace>> {
    let mut listed = BTreeMap::new();
    for namespace in wire {
        let kind = namespace.Type.as_str();
        let field = format!("linux.namespaces[{kind}]");
        if !KINDS.contains(&kind) {
            return invalid(&field, "no such namespace");
        }
        let path = namespace.Path.as_str();
        let is_sandbox = SANDBOX.iter().any(|directory| path.strip_prefix(directory) == Some(kind));
        let asked = match path {
            "" => Namespace::New,
            _ if is_sandbox => Namespace::Sandbox,
            path => Namespace::Joined(absolute(path.to_owned(), &format!("{field}.path"))?),
        };
        if listed.insert(kind, asked).is_some() {
            return invalid(&field, "listed twice");
        }
    }
    Ok(listed)
}

/// The guest's own, with PID 1 in it, is nobody's.
fn pid(listed: Option<Namespace>, as_listed: bool, shared: &Shared) -> Result<Namespace> {
    match listed {
        Some(Namespace::Joined(path)) => Ok(Namespace::Joined(path)),
        Some(Namespace::New) if as_listed => Ok(Namespace::New),
        None | Some(Namespace::New) if !as_listed && !shared.pid => Ok(Namespace::New),
        None | Some(Namespace::New | Namespace::Sandbox) if shared.pid => Ok(Namespace::Sandbox),
        None | Some(Namespace::New | Namespace::Sandbox) => invalid(
            "linux.namespaces",
            "pid is not listed, and the sandbox has no pid namespace that its containers share",
        ),
    }
}

fn user(linux: &Linux, listed: Option<Namespace>) -> Result<Option<UserNamespace>> {
    let maps = id_maps(&linux.UIDMappings, &linux.GIDMappings, "linux")?;
    match (listed, maps) {
        (None, None) => Ok(None),
        (Some(Namespace::New), Some(maps)) => Ok(Some(UserNamespace::New(maps))),
        (Some(Namespace::Joined(path)), None) => Ok(Some(UserNamespace::Joined(path))),
        (None, Some(_)) => invalid("linux.uidMappings", "linux.namespaces lists no user namespace"),
        (Some(Namespace::Joined(_)), Some(_)) => {
            invalid("linux.uidMappings", "the user namespace of a path has its own")
        }
        (Some(Namespace::New), None) => {
            invalid("linux.namespaces[user]", "neither uidMappings nor gidMappings")
        }
        (Some(Namespace::Sandbox), _) => {
            invalid("linux.namespaces[user].path", "the sandbox has none of its own")
        }
    }
}

/// The kernel bounds the clock that comes out.
fn time_offsets(
    wire: &HashMap<String, LinuxTimeOffset>,
    time: &Namespace,
) -> Result<Vec<TimeOffset>> {
    if let Some(unknown) = wire.keys().find(|name| !CLOCKS.contains(&name.as_str())) {
        return invalid("linux.timeOffsets", &format!("{unknown:?} is no clock of a namespace's"));
    }
    if !wire.is_empty() && *time != Namespace::New {
        return invalid("linux.timeOffsets", "linux.namespaces lists no new time namespace");
    }
    let offset = |(clock, offset): (&'static str, &LinuxTimeOffset)| {
        if offset.Nanosecs >= 1_000_000_000 {
            let field = format!("linux.timeOffsets[{clock}].nanosecs");
            return invalid(&field, "a second or more");
        }
        Ok(TimeOffset { clock, seconds: offset.Secs, nanoseconds: offset.Nanosecs })
    };
    CLOCKS.iter().filter_map(|clock| Some((*clock, wire.get(*clock)?))).map(offset).collect()
}

/// A name for the host alone needs a uts namespace that is not the sandbox's. Kata's runtimes say the sandbox's again.
pub fn hostname(
    hostname: String,
    as_listed: bool,
    namespaces: &Namespaces,
    shared: &Shared,
) -> Result<String> {
    if namespaces.uts != Namespace::Sandbox || hostname.is_empty() {
        return Ok(hostname);
    }
    if as_listed && hostname != shared.hostname {
        let why =
            format!("linux.namespaces lists no uts, and the sandbox's is {:?}", shared.hostname);
        return invalid("hostname", &why);
    }
    Ok(String::new())
}

pub fn domainname(domainname: String, namespaces: &Namespaces) -> Result<String> {
    if namespaces.uts == Namespace::Sandbox && !domainname.is_empty() {
        return invalid("domainname", "linux.namespaces lists no uts");
    }
    Ok(domainname)
}
