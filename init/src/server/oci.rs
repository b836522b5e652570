//! The wire's OCI spec made into the domain's: understood, bounded, or refused by the name of the field.
//!
//! Nothing is passed over in silence. What this guest does not honour is UNIMPLEMENTED, what nobody could is
//! INVALID_ARGUMENT; both say the field as the OCI runtime-spec writes it. Only annotations ask for nothing, as that spec
//! demands: they are kept for a host that lists containers, and hooks are told them. proto3 tells an absent number from 0 as little as an absent text from an empty one: both mean "not said".

mod annotations;
mod block_io;
mod hooks;
mod ids;
mod linux;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod scheduling;
mod seccomp;

use std::rc::Rc;

use hyperstart_protocol::oci;

use crate::container::spec::{ContainerSpec, Execution, MountPropagationFlags, Root};
use crate::container::{normalised_cgroup_path, propagation_named};
use crate::error::{Code, Error, Result};

pub use linux::guest_devices;
pub use namespaces::Shared;
pub use process::process_spec;
pub use resources::resources;

const PATHS_MAX: usize = 1024;
const PATH_MAX: usize = 4096;
/// HOST_NAME_MAX of limits.h.
const HOSTNAME_MAX: usize = 64;

fn unsupported<T>(field: &str) -> Result<T> {
    Err(Error::new(Code::Unimplemented, format!("{field}: not supported by this guest")))
}

fn invalid<T>(field: &str, why: &str) -> Result<T> {
    Err(Error::new(Code::InvalidArgument, format!("{field}: {why}")))
}

fn refuse_if(present: bool, field: &str) -> Result<()> {
    if present { unsupported(field) } else { Ok(()) }
}

/// For what is refused for ever: why that is.
fn refuse_for(present: bool, field: &str, why: &str) -> Result<()> {
    if !present {
        return Ok(());
    }
    let message = format!("{field}: not supported by this guest: {why}");
    Err(Error::new(Code::Unimplemented, message))
}

fn bounded(count: usize, max: usize, field: &str) -> Result<()> {
    if count > max { invalid(field, &format!("{count} entries, more than {max}")) } else { Ok(()) }
}

/// OCI `config.json`.
pub fn container_spec(mut spec: oci::Spec, shared: &Shared) -> Result<ContainerSpec> {
    if !spec.Version.is_empty() && !spec.Version.starts_with("1.") {
        return invalid("ociVersion", &format!("{:?} is not 1.x", spec.Version));
    }
    refuse_if(spec.Solaris.is_some(), "solaris")?;
    refuse_if(spec.Windows.is_some(), "windows")?;
    let annotations = annotations::kept(&spec.Annotations);
    let hooks = match spec.Hooks.take() {
        Some(hooks) => hooks::hooks(hooks, &spec.Version, spec.Annotations)?,
        None => None,
    };
    let Some(process) = spec.Process.into_option() else { return invalid("process", "missing") };
    let Some(root) = spec.Root.into_option() else { return invalid("root", "missing") };
    for (name, field) in [(&spec.Hostname, "hostname"), (&spec.Domainname, "domainname")] {
        if name.len() > HOSTNAME_MAX {
            return invalid(field, &format!("longer than {HOSTNAME_MAX} bytes"));
        }
    }
    let mut linux = spec.Linux.into_option().unwrap_or_default();
    refuse_linux(&linux)?;
    let as_listed = linux.NamespacesAsListed;
    let namespaces = namespaces::namespaces(&linux, shared)?;
    let cgroup_path = normalised_cgroup_path(&linux.CgroupsPath)?;
    let execution = Execution {
        personality: linux.Personality.take().map(scheduling::personality).transpose()?,
        memory_policy: linux.MemoryPolicy.take().map(scheduling::memory_policy).transpose()?,
        filter: linux.Seccomp.take().map(seccomp::filter).transpose()?.map(Rc::new),
    };
    Ok(ContainerSpec {
        process: process_spec(process)?,
        init: spec.Init,
        root: root_spec(root, &linux.RootfsPropagation)?,
        hostname: namespaces::hostname(spec.Hostname, as_listed, &namespaces, shared)?,
        domainname: namespaces::domainname(spec.Domainname, &namespaces)?,
        mounts: mounts::mounts(spec.Mounts, namespaces.id_maps())?,
        devices: linux::devices(linux.Devices)?,
        guest_devices: Vec::new(), // they come beside the spec
        cgroup_path: (!cgroup_path.is_empty()).then_some(cgroup_path),
        resources: resources::resources(linux.Resources.into_option().unwrap_or_default())?,
        sysctls: linux::sysctls(linux.Sysctl, &namespaces, as_listed)?,
        masked_paths: paths(linux.MaskedPaths, "linux.maskedPaths")?,
        readonly_paths: paths(linux.ReadonlyPaths, "linux.readonlyPaths")?,
        execution,
        hooks,
        annotations,
        namespaces,
    })
}

fn refuse_linux(linux: &oci::Linux) -> Result<()> {
    refuse_if(!linux.NetDevices.is_empty(), "linux.netDevices")?;
    refuse_if(!linux.MountLabel.is_empty(), "linux.mountLabel")?;
    refuse_if(linux.IntelRdt.is_some(), "linux.intelRdt")
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

#[cfg(test)]
mod tests;
