//! The wire's OCI spec made into the domain's: understood, bounded, or refused by the name of the field.
//!
//! Nothing is passed over in silence. What this guest does not honour is UNIMPLEMENTED, what nobody could is
//! INVALID_ARGUMENT; both say the field as the OCI runtime-spec writes it. Only annotations are ignored, as that spec
//! demands. proto3 tells an absent number from 0 as little as an absent text from an empty one: both mean "not said".

mod resources;

use std::collections::BTreeSet;
use std::ffi::CString;

use hyperstart_protocol::oci;

use crate::container::spec::{
    Capabilities, CapabilitySet, ConsoleSize, ContainerSpec, Device, DeviceKind, FsType, Identity,
    Mount, MountPropagationFlags, MountSource, Network, ProcessSpec, Rlimit, Root, User,
};
use crate::container::{
    Bind, MountOptions, capability_named, check_sysctl, normalised_cgroup_path, plan_mounts,
    propagation_named, rlimit_named,
};
use crate::error::{Code, Context, Error, Result};
use crate::log;

/// Arguments and environment together, with a zero byte each; the kernel's own bound is 2 MiB (execve(2)).
const ARGS_AND_ENV_MAX: usize = 1 << 20;
const MOUNTS_MAX: usize = 1024;
const DEVICES_MAX: usize = 1024;
const PATHS_MAX: usize = 1024;
const SYSCTLS_MAX: usize = 256;
const GROUPS_MAX: usize = 1024;
const PATH_MAX: usize = 4096;
/// HOST_NAME_MAX of limits.h.
const HOSTNAME_MAX: usize = 64;
/// Nobody's id: "no change" to the kernel.
const NO_ID: u32 = u32::MAX;

fn unsupported<T>(field: &str) -> Result<T> {
    Err(Error::new(Code::Unimplemented, format!("{field}: not supported by this guest")))
}

fn invalid<T>(field: &str, why: &str) -> Result<T> {
    Err(Error::new(Code::InvalidArgument, format!("{field}: {why}")))
}

fn refuse_if(present: bool, field: &str) -> Result<()> {
    if present { unsupported(field) } else { Ok(()) }
}

fn bounded(count: usize, max: usize, field: &str) -> Result<()> {
    if count > max { invalid(field, &format!("{count} entries, more than {max}")) } else { Ok(()) }
}

/// OCI `config.json`.
pub fn container_spec(spec: oci::Spec) -> Result<ContainerSpec> {
    if !spec.Version.is_empty() && !spec.Version.starts_with("1.") {
        return invalid("ociVersion", &format!("{:?} is not 1.x", spec.Version));
    }
    refuse_if(spec.Solaris.is_some(), "solaris")?;
    refuse_if(spec.Windows.is_some(), "windows")?;
    refuse_hooks(spec.Hooks.into_option().unwrap_or_default())?;
    let Some(process) = spec.Process.into_option() else { return invalid("process", "missing") };
    let Some(root) = spec.Root.into_option() else { return invalid("root", "missing") };
    if spec.Hostname.len() > HOSTNAME_MAX {
        return invalid("hostname", &format!("longer than {HOSTNAME_MAX} bytes"));
    }
    let linux = spec.Linux.into_option().unwrap_or_default();
    refuse_linux(&linux)?;
    let network = network(&linux.Namespaces)?;
    let cgroup_path = normalised_cgroup_path(&linux.CgroupsPath)?;
    Ok(ContainerSpec {
        process: process_spec(process)?,
        root: root_spec(root, &linux.RootfsPropagation)?,
        hostname: spec.Hostname,
        mounts: mounts(spec.Mounts)?,
        network,
        devices: devices(linux.Devices)?,
        cgroup_path: (!cgroup_path.is_empty()).then_some(cgroup_path),
        resources: resources::resources(linux.Resources.into_option().unwrap_or_default())?,
        sysctls: sysctls(linux.Sysctl, network)?,
        masked_paths: paths(linux.MaskedPaths, "linux.maskedPaths")?,
        readonly_paths: paths(linux.ReadonlyPaths, "linux.readonlyPaths")?,
    })
}

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
    Ok(ProcessSpec {
        terminal: process.Terminal,
        console_size: process.ConsoleSize.into_option().map(console_size).transpose()?,
        user: user(process.User.into_option().unwrap_or_default())?,
        args: c_strings(process.Args, "process.args")?,
        env: c_strings(environment(process.Env)?, "process.env")?,
        cwd: absolute(process.Cwd, "process.cwd")?,
        capabilities: capabilities(&process.Capabilities.into_option().unwrap_or_default()),
        rlimits: rlimits(process.Rlimits)?,
        no_new_privileges: process.NoNewPrivileges,
        oom_score_adj: oom_score_adj(process.OOMScoreAdj)?,
    })
}

fn refuse_hooks(hooks: oci::Hooks) -> Result<()> {
    refuse_if(!hooks.Prestart.is_empty(), "hooks.prestart")?;
    refuse_if(!hooks.CreateRuntime.is_empty(), "hooks.createRuntime")?;
    refuse_if(!hooks.CreateContainer.is_empty(), "hooks.createContainer")?;
    refuse_if(!hooks.StartContainer.is_empty(), "hooks.startContainer")?;
    refuse_if(!hooks.Poststart.is_empty(), "hooks.poststart")?;
    refuse_if(!hooks.Poststop.is_empty(), "hooks.poststop")
}

fn refuse_linux(linux: &oci::Linux) -> Result<()> {
    refuse_if(!linux.UIDMappings.is_empty(), "linux.uidMappings")?;
    refuse_if(!linux.GIDMappings.is_empty(), "linux.gidMappings")?;
    refuse_if(linux.Seccomp.is_some(), "linux.seccomp")?;
    refuse_if(!linux.MountLabel.is_empty(), "linux.mountLabel")?;
    refuse_if(linux.IntelRdt.is_some(), "linux.intelRdt")
}

/// A container has its mount, pid, ipc, uts and cgroup namespaces to itself whether the spec lists them or not.
fn network(namespaces: &[oci::LinuxNamespace]) -> Result<Network> {
    let mut seen = BTreeSet::new();
    for namespace in namespaces {
        let kind = namespace.Type.as_str();
        let field = format!("linux.namespaces[{kind}]");
        match kind {
            "mount" | "pid" | "ipc" | "uts" | "cgroup" | "network" => {}
            "user" | "time" => return unsupported(&field),
            _ => return invalid(&field, "no such namespace"),
        }
        refuse_if(!namespace.Path.is_empty(), &format!("{field}.path"))?;
        if !seen.insert(kind) {
            return invalid(&field, "listed twice");
        }
    }
    Ok(if seen.contains("network") { Network::Own } else { Network::Sandbox })
}

fn root_spec(root: oci::Root, propagation: &str) -> Result<Root> {
    let path = absolute(root.Path, "root.path")?;
    if path.split('/').all(|part| matches!(part, "" | "." | "..")) {
        return invalid("root.path", "the guest's own root");
    }
    let propagation = match (propagation, propagation_named(propagation)) {
        ("", _) => None,
        (_, Some(propagation)) => Some(propagation.difference(MountPropagationFlags::REC)),
        (named, None) => {
            return invalid("linux.rootfsPropagation", &format!("{named:?} is none"));
        }
    };
    Ok(Root { path, readonly: root.Readonly, propagation })
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

fn c_strings(list: Vec<String>, field: &str) -> Result<Vec<CString>> {
    let convert = |(at, text): (usize, String)| {
        CString::new(text).or_else(|_| invalid(&format!("{field}[{at}]"), "holds a zero byte"))
    };
    list.into_iter().enumerate().map(convert).collect()
}

/// Of two values of one variable the later counts; getenv(3) would find the earlier.
fn environment(list: Vec<String>) -> Result<Vec<String>> {
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

fn absolute(path: String, field: &str) -> Result<String> {
    if !path.starts_with('/') {
        return invalid(field, &format!("{path:?} is not an absolute path"));
    }
    path_like(path, field)
}

fn path_like(path: String, field: &str) -> Result<String> {
    if path.is_empty() || path.len() >= PATH_MAX || path.contains('\0') {
        return invalid(field, "not a path");
    }
    Ok(path)
}

fn paths(list: Vec<String>, field: &str) -> Result<Vec<String>> {
    bounded(list.len(), PATHS_MAX, field)?;
    list.into_iter()
        .enumerate()
        .map(|(at, path)| absolute(path, &format!("{field}[{at}]")))
        .collect()
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
fn capability_set(names: &[String]) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    for name in names {
        match capability_named(name) {
            Some(capability) => set |= capability,
            None => log::warn!("process.capabilities: {name:?} is unknown and not granted"),
        }
    }
    set
}

fn rlimits(list: Vec<oci::POSIXRlimit>) -> Result<Vec<Rlimit>> {
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

fn mounts(list: Vec<oci::Mount>) -> Result<Vec<Mount>> {
    bounded(list.len(), MOUNTS_MAX, "mounts")?;
    let mounts = list
        .into_iter()
        .enumerate()
        .map(|(at, mount)| mount_spec(at, mount))
        .collect::<Result<Vec<_>>>()?;
    plan_mounts(&mounts)?; // what the plan refuses is refused before anything is made
    Ok(mounts)
}

fn mount_spec(at: usize, mount: oci::Mount) -> Result<Mount> {
    let field = format!("mounts[{at}]");
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

fn devices(list: Vec<oci::LinuxDevice>) -> Result<Vec<Device>> {
    bounded(list.len(), DEVICES_MAX, "linux.devices")?;
    list.into_iter()
        .enumerate()
        .map(|(at, device)| device_spec(&format!("linux.devices[{at}]"), device))
        .collect()
}

/// Permissions of a node whose spec says none, as other runtimes have it.
const DEVICE_MODE: u32 = 0o666;

fn device_spec(field: &str, device: oci::LinuxDevice) -> Result<Device> {
    let number = |value: i64| match u32::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => invalid(field, &format!("{value} is not a device number")),
    };
    let kind = match device.Type.as_str() {
        "c" | "u" => {
            DeviceKind::Character { major: number(device.Major)?, minor: number(device.Minor)? }
        }
        "b" => DeviceKind::Block { major: number(device.Major)?, minor: number(device.Minor)? },
        "p" => DeviceKind::Fifo,
        other => {
            return invalid(&format!("{field}.type"), &format!("{other:?} is not c, b, u or p"));
        }
    };
    let mode = match device.FileMode & 0o7777 {
        0 => DEVICE_MODE,
        mode => mode,
    };
    let path = absolute(device.Path, &format!("{field}.path"))?;
    Ok(Device { path, kind, mode, uid: device.UID, gid: device.GID })
}

fn sysctls(
    map: std::collections::HashMap<String, String>,
    network: Network,
) -> Result<Vec<(String, String)>> {
    bounded(map.len(), SYSCTLS_MAX, "linux.sysctl")?;
    let mut list: Vec<(String, String)> = map.into_iter().collect();
    list.sort();
    list.iter().try_for_each(|(name, _)| check_sysctl(name, network))?;
    Ok(list)
}

#[cfg(test)]
mod tests;
