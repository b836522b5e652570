//! What the tests of the ways out of a container share: the weakest container that a user can ask for short of
//! `--privileged`, so that the defence that a test is about is met and not one before it.

use harness::{Run, Vm, add_capabilities};
use oci_spec::runtime::{Capability, MountBuilder, Spec};

/// No seccomp profile, no user namespace, nothing masked, nothing read-only, and these capabilities besides the usual.
pub fn weakest(spec: &mut Spec, capabilities: &[Capability]) {
    let mut linux = spec.linux().clone().unwrap();
    linux.set_seccomp(None).set_masked_paths(None).set_readonly_paths(None);
    linux.set_uid_mappings(None).set_gid_mappings(None);
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    let kept = namespaces
        .into_iter()
        .filter(|namespace| namespace.typ() != oci_spec::runtime::LinuxNamespaceType::User);
    linux.set_namespaces(Some(kept.collect()));
    spec.set_linux(Some(linux));
    add_capabilities(spec, capabilities);
    let mut process = spec.process().clone().unwrap();
    process.set_no_new_privileges(Some(false));
    spec.set_process(Some(process));
}

/// A bind mount of something of the guest's.
pub fn bind(spec: &mut Spec, source: &str, destination: &str) {
    let mount = MountBuilder::default().source(source).destination(destination).typ("bind");
    let mount = mount.options(vec!["bind".to_owned(), "ro".to_owned()]).build().unwrap();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
}

/// SHA-256 of the program that PID 1 is, as the guest has it now.
pub fn hash_of_init(vm: &Vm) -> String {
    let said = vm.finish_with("hash", &Run::busybox(["sha256sum", "/guest-init"]), |spec| {
        bind(spec, "/init", "/guest-init");
    });
    let hash = said.stdout().split_whitespace().next().unwrap_or_default().to_owned();
    assert!(hash.len() == 64 && said.code == 0, "{said:?}");
    hash
}
