//! OCI spec -> `grpc.Spec`: one function an object, its properties in the order of the OCI specification.
//!
//! proto3 cannot tell zero from absent. Where that would change the meaning, a zero is refused like a property that the
//! wire does not carry; where absence has a meaning of its own, it is written out.

use hyperstart_protocol::oci::{self, extensions};
use oci_spec::runtime;
use serde::Serialize;

use super::reader::{Object, convert_whole};
use crate::error::{Code, Error, Result};

/// EPERM: what a seccomp profile answers that says ERRNO and no number (OCI, "Seccomp").
const SECCOMP_DEFAULT_ERRNO: u32 = 1;

/// Any number, in a rule for devices (OCI, "Allowed Device list").
const ANY_DEVICE: i64 = -1;

/// Converts a whole spec.
pub(crate) fn to_wire(from: &runtime::Spec) -> Result<oci::Spec> {
    convert_whole("", json(from)?, spec)
}

/// Converts the process of an exec.
pub(crate) fn process_to_wire(from: &runtime::Process) -> Result<oci::Process> {
    convert_whole("process", json(from)?, process)
}

/// Converts the resources of an update.
pub(crate) fn resources_to_wire(from: &runtime::LinuxResources) -> Result<oci::LinuxResources> {
    convert_whole("linux.resources", json(from)?, resources)
}

fn json(from: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(from)
        .map_err(|err| Error::new(Code::InvalidArgument, "convert OCI spec", "", err))
}

fn spec(from: &mut Object) -> Result<oci::Spec> {
    Ok(oci::Spec {
        Version: from.string("ociVersion")?,
        Process: from.object("process", process)?.into(),
        Root: from.object("root", root)?.into(),
        Hostname: from.string("hostname")?,
        Mounts: from.objects("mounts", mount)?,
        Hooks: from.object("hooks", hooks)?.into(),
        Annotations: from.map("annotations")?,
        Linux: from.object("linux", linux)?.into(),
        Domainname: from.string("domainname")?,
        ..Default::default()
    })
}

fn root(from: &mut Object) -> Result<oci::Root> {
    Ok(oci::Root {
        Path: from.string("path")?,
        Readonly: from.bool("readonly")?,
        ..Default::default()
    })
}

fn mount(from: &mut Object) -> Result<oci::Mount> {
    Ok(oci::Mount {
        destination: from.string("destination")?,
        source: from.string("source")?,
        type_: from.string("type")?,
        options: from.strings("options")?,
        UIDMappings: from.objects("uidMappings", id_mapping)?,
        GIDMappings: from.objects("gidMappings", id_mapping)?,
        ..Default::default()
    })
}

fn process(from: &mut Object) -> Result<oci::Process> {
    Ok(oci::Process {
        Terminal: from.bool("terminal")?,
        ConsoleSize: from.object("consoleSize", console_size)?.into(),
        User: from.object("user", user)?.into(),
        Args: from.strings("args")?,
        Env: from.strings("env")?,
        Cwd: from.string("cwd")?,
        Capabilities: from.object("capabilities", capabilities)?.into(),
        Rlimits: from.objects("rlimits", rlimit)?,
        NoNewPrivileges: from.bool("noNewPrivileges")?,
        ApparmorProfile: from.string("apparmorProfile")?,
        OOMScoreAdj: from.i64("oomScoreAdj")?,
        SelinuxLabel: from.string("selinuxLabel")?,
        Scheduler: from.object("scheduler", scheduler)?.into(),
        IOPriority: from.object("ioPriority", io_priority)?.into(),
        ExecCPUAffinity: from.object("execCPUAffinity", cpu_affinity)?.into(),
        ..Default::default()
    })
}

fn console_size(from: &mut Object) -> Result<oci::Box> {
    Ok(oci::Box { Height: from.u32("height")?, Width: from.u32("width")?, ..Default::default() })
}

fn user(from: &mut Object) -> Result<oci::User> {
    Ok(oci::User {
        UID: from.u32("uid")?,
        GID: from.u32("gid")?,
        AdditionalGids: from.u32s("additionalGids")?,
        Username: from.string("username")?,
        Umask: from.optional_u32("umask")?,
        ..Default::default()
    })
}

fn capabilities(from: &mut Object) -> Result<oci::LinuxCapabilities> {
    // Sorted: oci-spec keeps them in hash sets, and the same spec should make the same bytes.
    let mut set = |name| {
        let mut names = from.strings(name)?;
        names.sort_unstable();
        Ok::<_, Error>(names)
    };
    Ok(oci::LinuxCapabilities {
        Bounding: set("bounding")?,
        Effective: set("effective")?,
        Inheritable: set("inheritable")?,
        Permitted: set("permitted")?,
        Ambient: set("ambient")?,
        ..Default::default()
    })
}

fn rlimit(from: &mut Object) -> Result<oci::POSIXRlimit> {
    Ok(oci::POSIXRlimit {
        Type: from.string("type")?,
        Hard: from.u64("hard")?,
        Soft: from.u64("soft")?,
        ..Default::default()
    })
}

fn scheduler(from: &mut Object) -> Result<extensions::Scheduler> {
    Ok(extensions::Scheduler {
        Policy: from.string("policy")?,
        Nice: from.i32("nice")?,
        Priority: from.i32("priority")?,
        Flags: from.strings("flags")?.into_iter().map(scheduler_flag).collect(),
        Runtime: from.u64("runtime")?,
        Deadline: from.u64("deadline")?,
        Period: from.u64("period")?,
        ..Default::default()
    })
}

/// oci-spec writes this one by the words of its own name, and not by the OCI spec's.
fn scheduler_flag(name: String) -> String {
    if name == "SCHED_FLAG_D_L_OVERRUN" { "SCHED_FLAG_DL_OVERRUN".to_owned() } else { name }
}

fn io_priority(from: &mut Object) -> Result<extensions::LinuxIOPriority> {
    Ok(extensions::LinuxIOPriority {
        Class: from.string("class")?,
        Priority: from.i64("priority")?,
        ..Default::default()
    })
}

fn cpu_affinity(from: &mut Object) -> Result<extensions::CPUAffinity> {
    Ok(extensions::CPUAffinity {
        Initial: from.string("initial")?,
        Final: from.string("final")?,
        ..Default::default()
    })
}

fn hooks(from: &mut Object) -> Result<oci::Hooks> {
    Ok(oci::Hooks {
        Prestart: from.objects("prestart", hook)?,
        CreateRuntime: from.objects("createRuntime", hook)?,
        CreateContainer: from.objects("createContainer", hook)?,
        StartContainer: from.objects("startContainer", hook)?,
        Poststart: from.objects("poststart", hook)?,
        Poststop: from.objects("poststop", hook)?,
        ..Default::default()
    })
}

fn hook(from: &mut Object) -> Result<oci::Hook> {
    Ok(oci::Hook {
        Path: from.string("path")?,
        Args: from.strings("args")?,
        Env: from.strings("env")?,
        Timeout: from.i64("timeout")?,
        ..Default::default()
    })
}

fn linux(from: &mut Object) -> Result<oci::Linux> {
    Ok(oci::Linux {
        UIDMappings: from.objects("uidMappings", id_mapping)?,
        GIDMappings: from.objects("gidMappings", id_mapping)?,
        Sysctl: from.map("sysctl")?,
        Resources: from.object("resources", resources)?.into(),
        CgroupsPath: from.string("cgroupsPath")?,
        Namespaces: from.objects("namespaces", namespace)?,
        Devices: from.objects("devices", device)?,
        Seccomp: from.object("seccomp", seccomp)?.into(),
        RootfsPropagation: from.string("rootfsPropagation")?,
        MaskedPaths: from.strings("maskedPaths")?,
        ReadonlyPaths: from.strings("readonlyPaths")?,
        MountLabel: from.string("mountLabel")?,
        IntelRdt: from.object("intelRdt", intel_rdt)?.into(),
        TimeOffsets: from.objects_by_name("timeOffsets", time_offset)?,
        Personality: from.object("personality", personality)?.into(),
        MemoryPolicy: from.object("memoryPolicy", memory_policy)?.into(),
        NetDevices: from.objects_by_name("netDevices", net_device)?,
        NamespacesAsListed: true,
        ..Default::default()
    })
}

fn id_mapping(from: &mut Object) -> Result<oci::LinuxIDMapping> {
    Ok(oci::LinuxIDMapping {
        HostID: from.u32("hostID")?,
        ContainerID: from.u32("containerID")?,
        Size: from.u32("size")?,
        ..Default::default()
    })
}

fn time_offset(from: &mut Object) -> Result<extensions::LinuxTimeOffset> {
    Ok(extensions::LinuxTimeOffset {
        Secs: from.i64("secs")?,
        Nanosecs: from.u32("nanosecs")?,
        ..Default::default()
    })
}

fn personality(from: &mut Object) -> Result<extensions::LinuxPersonality> {
    Ok(extensions::LinuxPersonality {
        Domain: from.string("domain")?,
        Flags: from.strings("flags")?,
        ..Default::default()
    })
}

fn memory_policy(from: &mut Object) -> Result<extensions::LinuxMemoryPolicy> {
    Ok(extensions::LinuxMemoryPolicy {
        Mode: from.string("mode")?,
        Nodes: from.string("nodes")?,
        Flags: from.strings("flags")?,
        ..Default::default()
    })
}

fn net_device(from: &mut Object) -> Result<extensions::LinuxNetDevice> {
    Ok(extensions::LinuxNetDevice { Name: from.string("name")?, ..Default::default() })
}

fn namespace(from: &mut Object) -> Result<oci::LinuxNamespace> {
    Ok(oci::LinuxNamespace {
        Type: from.string("type")?,
        Path: from.string("path")?,
        ..Default::default()
    })
}

fn device(from: &mut Object) -> Result<oci::LinuxDevice> {
    Ok(oci::LinuxDevice {
        Path: from.string("path")?,
        Type: from.string("type")?,
        Major: from.i64("major")?,
        Minor: from.i64("minor")?,
        // Absent means 0666 to a runtime, zero means that nobody may.
        FileMode: nonzero(from, "fileMode", Object::u32)?,
        UID: from.u32("uid")?,
        GID: from.u32("gid")?,
        ..Default::default()
    })
}

fn resources(from: &mut Object) -> Result<oci::LinuxResources> {
    Ok(oci::LinuxResources {
        Devices: from.objects("devices", device_rule)?,
        Memory: from.object("memory", memory)?.into(),
        CPU: from.object("cpu", cpu)?.into(),
        Pids: from.object("pids", pids)?.into(),
        BlockIO: from.object("blockIO", block_io)?.into(),
        HugepageLimits: from.objects("hugepageLimits", hugepage_limit)?,
        Network: from.object("network", network)?.into(),
        Unified: from.map("unified")?,
        Rdma: from.objects_by_name("rdma", rdma)?,
        ..Default::default()
    })
}

fn rdma(from: &mut Object) -> Result<extensions::LinuxRdma> {
    Ok(extensions::LinuxRdma {
        HcaHandles: from.optional_u32("hcaHandles")?,
        HcaObjects: from.optional_u32("hcaObjects")?,
        ..Default::default()
    })
}

fn device_rule(from: &mut Object) -> Result<oci::LinuxDeviceCgroup> {
    Ok(oci::LinuxDeviceCgroup {
        Allow: from.bool("allow")?,
        Type: from.string("type")?,
        Major: from.optional_i64("major")?.unwrap_or(ANY_DEVICE),
        Minor: from.optional_i64("minor")?.unwrap_or(ANY_DEVICE),
        Access: from.string("access")?,
        ..Default::default()
    })
}

fn memory(from: &mut Object) -> Result<oci::LinuxMemory> {
    Ok(oci::LinuxMemory {
        Limit: from.i64("limit")?,
        Reservation: from.i64("reservation")?,
        Swap: from.i64("swap")?,
        Kernel: from.i64("kernel")?,
        KernelTCP: from.i64("kernelTCP")?,
        // Absent means the system's, zero means not to swap.
        Swappiness: nonzero(from, "swappiness", Object::u64)?,
        DisableOOMKiller: from.bool("disableOOMKiller")?,
        CheckBeforeUpdate: from.bool("checkBeforeUpdate")?,
        ..Default::default()
    })
}

fn cpu(from: &mut Object) -> Result<oci::LinuxCPU> {
    Ok(oci::LinuxCPU {
        Shares: from.u64("shares")?,
        Quota: from.i64("quota")?,
        Period: from.u64("period")?,
        RealtimeRuntime: from.i64("realtimeRuntime")?,
        RealtimePeriod: from.u64("realtimePeriod")?,
        Cpus: from.string("cpus")?,
        Mems: from.string("mems")?,
        Burst: from.present("burst").then(|| from.u64("burst")).transpose()?,
        Idle: from.optional_i64("idle")?,
        ..Default::default()
    })
}

fn pids(from: &mut Object) -> Result<oci::LinuxPids> {
    Ok(oci::LinuxPids { Limit: from.i64("limit")?, ..Default::default() })
}

fn block_io(from: &mut Object) -> Result<oci::LinuxBlockIO> {
    Ok(oci::LinuxBlockIO {
        Weight: from.u32("weight")?,
        LeafWeight: from.u32("leafWeight")?,
        WeightDevice: from.objects("weightDevice", weight_device)?,
        ThrottleReadBpsDevice: from.objects("throttleReadBpsDevice", throttle_device)?,
        ThrottleWriteBpsDevice: from.objects("throttleWriteBpsDevice", throttle_device)?,
        ThrottleReadIOPSDevice: from.objects("throttleReadIOPSDevice", throttle_device)?,
        ThrottleWriteIOPSDevice: from.objects("throttleWriteIOPSDevice", throttle_device)?,
        ..Default::default()
    })
}

fn weight_device(from: &mut Object) -> Result<oci::LinuxWeightDevice> {
    Ok(oci::LinuxWeightDevice {
        Major: from.i64("major")?,
        Minor: from.i64("minor")?,
        Weight: from.u32("weight")?,
        LeafWeight: from.u32("leafWeight")?,
        ..Default::default()
    })
}

fn throttle_device(from: &mut Object) -> Result<oci::LinuxThrottleDevice> {
    Ok(oci::LinuxThrottleDevice {
        Major: from.i64("major")?,
        Minor: from.i64("minor")?,
        Rate: from.u64("rate")?,
        ..Default::default()
    })
}

fn hugepage_limit(from: &mut Object) -> Result<oci::LinuxHugepageLimit> {
    Ok(oci::LinuxHugepageLimit {
        Pagesize: from.string("pageSize")?,
        Limit: from.u64("limit")?,
        ..Default::default()
    })
}

fn network(from: &mut Object) -> Result<oci::LinuxNetwork> {
    Ok(oci::LinuxNetwork {
        ClassID: from.u32("classID")?,
        Priorities: from.objects("priorities", interface_priority)?,
        ..Default::default()
    })
}

fn interface_priority(from: &mut Object) -> Result<oci::LinuxInterfacePriority> {
    Ok(oci::LinuxInterfacePriority {
        Name: from.string("name")?,
        Priority: from.u32("priority")?,
        ..Default::default()
    })
}

fn seccomp(from: &mut Object) -> Result<oci::LinuxSeccomp> {
    Ok(oci::LinuxSeccomp {
        DefaultAction: from.string("defaultAction")?,
        Architectures: from.strings("architectures")?,
        Flags: from.strings("flags")?,
        Syscalls: from.objects("syscalls", syscall)?,
        // Said only where it says more than its absence, so that what Kata's agent can do is asked of it in its words.
        DefaultErrnoRet: from
            .optional_u32("defaultErrnoRet")?
            .filter(|errno| *errno != SECCOMP_DEFAULT_ERRNO),
        ..Default::default()
    })
}

fn syscall(from: &mut Object) -> Result<oci::LinuxSyscall> {
    Ok(oci::LinuxSyscall {
        Names: from.strings("names")?,
        Action: from.string("action")?,
        ErrnoRet: from.optional_u32("errnoRet")?.map(oci::linux_syscall::ErrnoRet::Errnoret),
        Args: from.objects("args", syscall_argument)?,
        ..Default::default()
    })
}

fn syscall_argument(from: &mut Object) -> Result<oci::LinuxSeccompArg> {
    Ok(oci::LinuxSeccompArg {
        Index: from.u64("index")?,
        Value: from.u64("value")?,
        ValueTwo: from.u64("valueTwo")?,
        Op: from.string("op")?,
        ..Default::default()
    })
}

fn intel_rdt(from: &mut Object) -> Result<oci::LinuxIntelRdt> {
    Ok(oci::LinuxIntelRdt { L3CacheSchema: from.string("l3CacheSchema")?, ..Default::default() })
}

/// A number that the wire takes for absent when it is zero.
fn nonzero<T: PartialEq + Default>(
    from: &mut Object,
    name: &str,
    read: impl FnOnce(&mut Object, &str) -> Result<T>,
) -> Result<T> {
    let present = from.present(name);
    let number = read(from, name)?;
    if present && number == T::default() { Err(from.not_carried(name)) } else { Ok(number) }
}
