//! Resource limits of one process (setrlimit(2), OCI `process.rlimits`).

use rustix::process::{Resource, Rlimit as Values, setrlimit};

use super::spec::Rlimit;
use crate::error::{Context, Result};

/// What a process gets that its spec does not limit: what systemd gives to a service, as docker's containers have it.
///
/// PID 1 raises its open files far up, and a child would inherit that: programs that close every possible descriptor,
/// or keep a table of them, then take seconds. The kernel's limit of processes counts those of one uid in the whole
/// guest, across containers, and is 180 in a small one: a cgroup's `pids.max` is what limits a container.
const DEFAULTS: [(Resource, Values); 2] = [
    (Resource::Nofile, Values { current: Some(1024), maximum: Some(524_288) }),
    (Resource::Nproc, Values { current: None, maximum: None }),
];

/// Sets what the spec lists, and the defaults that it does not.
pub fn apply(rlimits: &[Rlimit]) -> Result<()> {
    for (resource, values) in DEFAULTS {
        if !rlimits.iter().any(|rlimit| rlimit.resource == resource) {
            setrlimit(resource, values).context(|| format!("set {}", name(resource)))?;
        }
    }
    for Rlimit { resource, soft, hard } in rlimits {
        setrlimit(*resource, Values { current: *soft, maximum: *hard })
            .context(|| format!("set {}", name(*resource)))?;
    }
    Ok(())
}

/// As the OCI spec and getrlimit(2) name them.
const NAMES: &[(&str, Resource)] = &[
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

pub fn from_name(name: &str) -> Option<Resource> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource)
}

fn name(resource: Resource) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == resource).map_or("rlimit", |(name, _)| name)
}
