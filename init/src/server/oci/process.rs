//! OCI `process`.

use std::collections::BTreeSet;
use std::ffi::CString;

use hyperstart_protocol::oci;

use super::{absolute, bounded, invalid, refuse_if, scheduling};
use crate::container::spec::{
    Capabilities, CapabilitySet, ConsoleSize, Identity, ProcessSpec, Rlimit, User,
};
use crate::container::{capability_named, rlimit_named};
use crate::error::Result;
use crate::log;

/// Arguments and environment together, with a zero byte each; the kernel's own bound is 2 MiB (execve(2)).
pub(super) const ARGS_AND_ENV_MAX: usize = 1 << 20;
const GROUPS_MAX: usize = 1024;
/// Nobody's id: "no change" to the kernel.
const NO_ID: u32 = u32::MAX;
/// OCI `process`: a container's first, or one that joins it.
pub fn process_spec(process: oci::Process) -> Result<ProcessSpec> {
    refuse_if(!process.ApparmorProfile.is_empty(), "process.apparmorProfile")?;
    refuse_if(!process.SelinuxLabel.is_empty(), "process.selinuxLabel")?;
    let size: usize = process.Args.iter().chain(&process.Env).map(|text| text.len() + 1).sum();
    if size > ARGS_AND_ENV_MAX {
        return invalid(
            "process",
            &format!("args and env are {size} bytes, more than {ARGS_AND_ENV_MAX}"),
        );
    }
    if process.Args.is_empty() {
        return invalid("process.args", "empty");
    }
    let mut user = process.User.into_option().unwrap_or_default();
    let affinity = process.ExecCPUAffinity.into_option().unwrap_or_default();
    Ok(ProcessSpec {
        umask: umask(user.Umask.take())?,
        scheduler: process.Scheduler.into_option().map(scheduling::scheduler).transpose()?,
        io_priority: process.IOPriority.into_option().map(scheduling::io_priority).transpose()?,
        cpu_affinity: scheduling::cpu_affinity(affinity)?,
        terminal: process.Terminal,
        console_size: process.ConsoleSize.into_option().map(console_size).transpose()?,
        user: self::user(user)?,
        args: c_strings(process.Args, "process.args")?,
        env: c_strings(environment(process.Env)?, "process.env")?,
        cwd: absolute(process.Cwd, "process.cwd")?,
        capabilities: capabilities(&process.Capabilities.into_option().unwrap_or_default()),
        rlimits: rlimits(process.Rlimits)?,
        no_new_privileges: process.NoNewPrivileges,
        oom_score_adj: oom_score_adj(process.OOMScoreAdj)?,
    })
}

/// What other runtimes give where the spec says none.
const UMASK: u32 = 0o022;

fn umask(umask: Option<u32>) -> Result<u32> {
    match umask.unwrap_or(UMASK) {
        umask @ 0..=0o777 => Ok(umask),
        umask => invalid("process.user.umask", &format!("{umask:o} is more than 777 (octal)")),
    }
}

fn console_size(size: oci::Box) -> Result<ConsoleSize> {
    let side = |value: u32| match u16::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => invalid("process.consoleSize", "larger than 65535"),
    };
    Ok(ConsoleSize { columns: side(size.Width)?, rows: side(size.Height)? })
}

fn user(user: oci::User) -> Result<User> {
    bounded(user.AdditionalGids.len(), GROUPS_MAX, "process.user.additionalGids")?;
    if [user.UID, user.GID].iter().chain(&user.AdditionalGids).any(|id| *id == NO_ID) {
        return invalid("process.user", &format!("{NO_ID} is no id"));
    }
    let identity = if user.Username.is_empty() {
        Identity::Ids { uid: user.UID, gid: user.GID }
    } else {
        Identity::Named(user.Username)
    };
    Ok(User { identity, additional_gids: user.AdditionalGids })
}

pub(super) fn c_strings(list: Vec<String>, field: &str) -> Result<Vec<CString>> {
    let convert = |(at, text): (usize, String)| {
        CString::new(text).or_else(|_| invalid(&format!("{field}[{at}]"), "holds a zero byte"))
    };
    list.into_iter().enumerate().map(convert).collect()
}

/// Of two values of one variable the later counts; getenv(3) would find the earlier.
pub(super) fn environment(list: Vec<String>) -> Result<Vec<String>> {
    if let Some(at) = list.iter().position(|entry| entry.find('=').is_none_or(|length| length == 0))
    {
        return invalid(&format!("process.env[{at}]"), "not NAME=value");
    }
    let mut seen = BTreeSet::new();
    let is_last: Vec<bool> = list
        .iter()
        .rev()
        .map(|entry| seen.insert(entry.split('=').next().unwrap_or_default()))
        .collect();
    let is_last: Vec<bool> = is_last.into_iter().rev().collect();
    Ok(list.into_iter().zip(is_last).filter_map(|(entry, last)| last.then_some(entry)).collect())
}

fn capabilities(sets: &oci::LinuxCapabilities) -> Capabilities {
    let permitted = capability_set(&sets.Permitted);
    let inheritable = capability_set(&sets.Inheritable);
    Capabilities {
        bounding: capability_set(&sets.Bounding),
        effective: capability_set(&sets.Effective),
        ambient: ambient_set(capability_set(&sets.Ambient), permitted.intersection(inheritable)),
        inheritable,
        permitted,
    }
}

/// The kernel makes ambient only what is both permitted and inheritable (capabilities(7)). `runc spec` asks for more,
/// and the OCI spec wants a warning for what cannot be granted, and no failure.
fn ambient_set(asked: CapabilitySet, possible: CapabilitySet) -> CapabilitySet {
    let refused = asked.difference(possible);
    if !refused.is_empty() {
        let bits = refused.bits();
        log::warn!("process.capabilities.ambient: {bits:#x} are not inheritable and not granted");
    }
    asked.intersection(possible)
}

/// A capability that this guest does not know cannot be granted; the OCI spec wants a warning then, and no failure.
pub(super) fn capability_set(names: &[String]) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    for name in names {
        match capability_named(name) {
            Some(capability) => set |= capability,
            None => log::warn!("process.capabilities: {name:?} is unknown and not granted"),
        }
    }
    set
}

pub(super) fn rlimits(list: Vec<oci::POSIXRlimit>) -> Result<Vec<Rlimit>> {
    let mut rlimits: Vec<Rlimit> = Vec::with_capacity(list.len().min(16));
    for oci::POSIXRlimit { Type: name, Hard: hard, Soft: soft, .. } in list {
        let field = format!("process.rlimits[{name}]");
        let Some(resource) = rlimit_named(&name) else { return invalid(&field, "no such limit") };
        if rlimits.iter().any(|known| known.resource == resource) {
            return invalid(&field, "listed twice");
        }
        if soft > hard {
            return invalid(&field, "soft is more than hard");
        }
        let limit = |value: u64| (value != u64::MAX).then_some(value); // RLIM_INFINITY
        rlimits.push(Rlimit { resource, soft: limit(soft), hard: limit(hard) });
    }
    Ok(rlimits)
}

/// Where it is not said, the kernel's own default counts and not what PID 1 gave itself.
fn oom_score_adj(score: i64) -> Result<i32> {
    match i32::try_from(score) {
        Ok(score) if (-1000..=1000).contains(&score) => Ok(score),
        _ => invalid("process.oomScoreAdj", &format!("{score} is not in -1000 to 1000")),
    }
}
