//! OCI `hooks`: the two kinds that run in the guest. The others are of the host, and run there (host-lib,
//! `spec::take_host_hooks`).

use std::collections::HashMap;
use std::ffi::CString;
use std::time::Duration;

use hyperstart_protocol::oci;

use super::process::{ARGS_AND_ENV_MAX, c_strings};
use super::{absolute, bounded, invalid, refuse_for};
use crate::container::spec::{Hook, Hooks};
use crate::error::Result;

/// Of each kind.
const HOOKS_MAX: usize = 64;
/// Names and values together: they are all told to each hook.
const ANNOTATIONS_MAX: usize = 1 << 20;
/// What a state says that comes from a spec without a version.
const OCI_VERSION: &str = "1.2.0";

pub fn hooks(
    wire: oci::Hooks,
    oci_version: &str,
    annotations: HashMap<String, String>,
) -> Result<Option<Box<Hooks>>> {
    for (name, list) in [
        ("prestart", &wire.Prestart),
        ("createRuntime", &wire.CreateRuntime),
        ("poststart", &wire.Poststart),
        ("poststop", &wire.Poststop),
    ] {
        refuse_for(!list.is_empty(), &format!("hooks.{name}"), "it is the host's to run")?;
    }
    let create_container = list(wire.CreateContainer, "hooks.createContainer")?;
    let start_container = list(wire.StartContainer, "hooks.startContainer")?;
    if create_container.is_empty() && start_container.is_empty() {
        return Ok(None);
    }
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX {
        return invalid("annotations", &format!("{size} bytes, more than {ANNOTATIONS_MAX}"));
    }
    let oci_version = if oci_version.is_empty() { OCI_VERSION } else { oci_version };
    Ok(Some(Box::new(Hooks {
        oci_version: oci_version.to_owned(),
        annotations: annotations.into_iter().collect(),
        create_container,
        start_container,
    })))
}

fn list(wire: Vec<oci::Hook>, field: &str) -> Result<Vec<Hook>> {
    bounded(wire.len(), HOOKS_MAX, field)?;
    wire.into_iter().enumerate().map(|(at, wire)| hook(wire, &format!("{field}[{at}]"))).collect()
}

fn hook(wire: oci::Hook, field: &str) -> Result<Hook> {
    let size: usize = wire.Args.iter().chain(&wire.Env).map(|text| text.len() + 1).sum();
    if size > ARGS_AND_ENV_MAX {
        let why = format!("args and env are {size} bytes, more than {ARGS_AND_ENV_MAX}");
        return invalid(field, &why);
    }
    let path = absolute(wire.Path, &format!("{field}.path"))?;
    let Ok(path) = CString::new(path) else { return invalid(field, "holds a zero byte") };
    let timeout = match u64::try_from(wire.Timeout) {
        Ok(0) => None, // not said
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => return invalid(&format!("{field}.timeout"), "negative"),
    };
    let mut args = c_strings(wire.Args, &format!("{field}.args"))?;
    if args.is_empty() {
        args.push(path.clone());
    }
    Ok(Hook { path, args, env: c_strings(wire.Env, &format!("{field}.env"))?, timeout })
}
