//! Changes to the namespaces that a spec lists.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

/// Lists one more: a new one, or that of a path in the guest.
pub fn list_namespace(spec: &mut Spec, kind: LinuxNamespaceType, path: Option<&str>) {
    let mut builder = LinuxNamespaceBuilder::default().typ(kind);
    if let Some(path) = path {
        builder = builder.path(path);
    }
    let namespace = builder.build().expect("a namespace");
    change(spec, |listed| listed.push(namespace));
}

/// Lists one less.
pub fn unlist_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    change(spec, |listed| listed.retain(|namespace| namespace.typ() != kind));
}

fn change(spec: &mut Spec, change: impl FnOnce(&mut Vec<LinuxNamespace>)) {
    let mut linux = spec.linux().clone().expect("a Linux section");
    let mut listed = linux.namespaces().clone().unwrap_or_default();
    change(&mut listed);
    linux.set_namespaces(Some(listed));
    spec.set_linux(Some(linux));
}
