//! What of a spec Kata's messages have no place for: it goes in extensions of theirs (oci.proto), which only a
//! hyperstart guest reads.

use hyperstart_protocol::oci;

/// How a guest says that it reads them (`hyperstart.v1.Guest/Version`).
pub(crate) const CAPABILITY: &str = "oci-extensions";

/// A property of `spec` that takes an extension, if there is one.
pub(crate) fn of_spec(spec: &oci::Spec) -> Option<&'static str> {
    let linux = spec.Linux.get_or_default();
    let is_idmapped =
        |mount: &oci::Mount| !mount.UIDMappings.is_empty() || !mount.GIDMappings.is_empty();
    // An agent of Kata's would share the former, and make the latter anew.
    let lists = |kind: &str| linux.Namespaces.iter().find(|namespace| namespace.Type == kind);
    let is_new = |kind: &str| lists(kind).is_some_and(|namespace| namespace.Path.is_empty());
    let properties = [
        ("linux.namespaces[ipc]", is_new("ipc")),
        ("linux.namespaces[uts]", is_new("uts")),
        ("linux.namespaces without pid", linux.NamespacesAsListed && lists("pid").is_none()),
        ("domainname", !spec.Domainname.is_empty()),
        ("init", spec.Init),
        ("mounts[].uidMappings", spec.Mounts.iter().any(is_idmapped)),
        ("linux.timeOffsets", !linux.TimeOffsets.is_empty()),
        ("linux.personality", linux.Personality.is_some()),
        ("linux.memoryPolicy", linux.MemoryPolicy.is_some()),
        ("linux.netDevices", !linux.NetDevices.is_empty()),
        ("linux.seccomp.defaultErrnoRet", linux.Seccomp.get_or_default().DefaultErrnoRet.is_some()),
    ];
    first(&properties)
        .or_else(|| of_resources(linux.Resources.get_or_default()))
        .or_else(|| of_process(spec.Process.get_or_default()))
}

/// The same of the resources of an update.
pub(crate) fn of_resources(resources: &oci::LinuxResources) -> Option<&'static str> {
    let cpu = resources.CPU.get_or_default();
    first(&[
        ("linux.resources.unified", !resources.Unified.is_empty()),
        ("linux.resources.rdma", !resources.Rdma.is_empty()),
        ("linux.resources.cpu.burst", cpu.Burst.is_some()),
        ("linux.resources.cpu.idle", cpu.Idle.is_some()),
        (
            "linux.resources.memory.checkBeforeUpdate",
            resources.Memory.get_or_default().CheckBeforeUpdate,
        ),
    ])
}

/// The same of the process of an exec.
pub(crate) fn of_process(process: &oci::Process) -> Option<&'static str> {
    first(&[
        ("process.user.umask", process.User.get_or_default().Umask.is_some()),
        ("process.scheduler", process.Scheduler.is_some()),
        ("process.ioPriority", process.IOPriority.is_some()),
        ("process.execCPUAffinity", process.ExecCPUAffinity.is_some()),
    ])
}

fn first(properties: &[(&'static str, bool)]) -> Option<&'static str> {
    properties.iter().find(|(_, present)| *present).map(|(name, _)| *name)
}
