//! What a container is to itself: its host name, the parameters of its namespaces' kernel side, its process 1.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

/// HOST_NAME_MAX of limits.h.
const HOSTNAME_MAX: usize = 64;

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct IdentityFlags {
    /// Host name [default: the pod's id]
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub hostname: Option<String>,
    /// A kernel parameter of the container's own namespaces, such as kernel.shmmax=1000000
    #[arg(long = "sysctl", value_name = "NAME=VALUE", value_parser = sysctl)]
    pub sysctls: Vec<(String, String)>,
    /// A small init is process 1: it passes signals on and reaps orphans
    #[arg(long)]
    pub init: bool,
}

impl IdentityFlags {
    pub fn edit_spec(&self, spec: &mut Spec) {
        if let Some(name) = &self.hostname {
            spec.set_hostname(Some(name.clone()));
            own_namespace(spec, LinuxNamespaceType::Uts);
        }
        for (name, _) in &self.sysctls {
            if name == "kernel.domainname" {
                own_namespace(spec, LinuxNamespaceType::Uts);
            } else if name.starts_with("kernel.") || name.starts_with("fs.mqueue.") {
                own_namespace(spec, LinuxNamespaceType::Ipc);
            }
        }
        if self.sysctls.is_empty() {
            return;
        }
        let mut linux = spec.linux().clone().unwrap_or_default();
        let mut sysctls: HashMap<String, String> = linux.sysctl().clone().unwrap_or_default();
        sysctls.extend(self.sysctls.iter().cloned());
        linux.set_sysctl(Some(sysctls));
        spec.set_linux(Some(linux));
    }
}

/// What the containers of a pod share unless one says more of it than the others.
fn own_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut listed = linux.namespaces().clone().unwrap_or_default();
    if !listed.iter().any(|namespace| namespace.typ() == kind) {
        let mut own = LinuxNamespace::default();
        own.set_typ(kind).set_path(None);
        listed.push(own);
    }
    linux.set_namespaces(Some(listed));
    spec.set_linux(Some(linux));
}

/// Whether it is the container's own is for the guest to say.
fn sysctl(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("NAME=VALUE, such as kernel.shmmax=1000000".into()),
    }
}

fn hostname(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && text.len() <= HOSTNAME_MAX && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(format!("letters, digits, '-' and '.', a letter or digit first, {HOSTNAME_MAX} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_has_a_name_and_a_value() {
        assert_eq!(sysctl("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert_eq!(sysctl("a.b="), Ok(("a.b".into(), String::new())));
        for bad in ["", "a.b", "=1"] {
            assert!(sysctl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_is_one() {
        for good in ["web", "web-1.example.com", &"x".repeat(64)] {
            assert!(hostname(good).is_ok(), "{good}");
        }
        for bad in ["", "-web", ".web", "a b", "a_b", &"x".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_added_to_the_specs_own() {
        let sysctls = vec![sysctl("a=1").unwrap(), sysctl("a=2").unwrap(), sysctl("b=3").unwrap()];
        let flags = IdentityFlags { sysctls, ..IdentityFlags::default() };
        let mut spec = Spec::default();
        flags.edit_spec(&mut spec);
        let map = spec.linux().as_ref().unwrap().sysctl().clone().unwrap();
        assert_eq!((map["a"].as_str(), map["b"].as_str()), ("2", "3"));
    }
}
