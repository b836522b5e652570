use super::linux::device_spec;
use super::mounts::{layers, mount_spec};
use super::process::{capability_set, environment, rlimits};
use super::*;
use crate::container::Extent;
use crate::container::spec::{
    Access, CapabilitySet, DeviceKind, FsType, Identity, Limit, MountSource, Namespace, RuleKind,
    UserNamespace,
};

fn process() -> oci::Process {
    let mut process = oci::Process::new();
    process.Args = vec!["sh".to_owned()];
    process.Cwd = "/".to_owned();
    process
}

fn spec() -> oci::Spec {
    let mut spec = oci::Spec::new();
    spec.Process = Some(process()).into();
    let root = spec.Root.mut_or_insert_default();
    root.Path = "/run/kata-containers/c/rootfs".to_owned();
    spec
}

fn mount(kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    let mut mount = oci::Mount::new();
    mount.destination = "/data".to_owned();
    mount.type_ = kind.to_owned();
    mount.source = source.to_owned();
    mount.options = options.iter().map(|option| (*option).to_owned()).collect();
    mount
}

fn refusal(change: impl FnOnce(&mut oci::Spec)) -> (Code, String) {
    let mut spec = spec();
    change(&mut spec);
    let err = container_spec(spec, &Shared::default()).unwrap_err();
    (err.code(), err.message().to_owned())
}

#[test]
fn the_smallest_spec_is_a_container() {
    let spec = container_spec(spec(), &Shared::default()).unwrap();
    assert_eq!(spec.namespaces.network, Namespace::Sandbox);
    assert_eq!(spec.cgroup_path, None);
    assert_eq!(spec.process.user.identity, Identity::Ids { uid: 0, gid: 0 });
    assert_eq!(
        spec.process.capabilities.effective,
        CapabilitySet::empty(),
        "none asked for, none given"
    );
    assert_eq!(spec.root.propagation, None);
}

#[test]
fn what_is_not_honoured_is_refused_by_its_name() {
    let refusals = [
        (
            refusal(|s| s.Linux.mut_or_insert_default().MountLabel = "x".to_owned()),
            "linux.mountLabel",
        ),
        (
            refusal(|s| {
                s.Linux.mut_or_insert_default().IntelRdt = Some(oci::LinuxIntelRdt::new()).into()
            }),
            "linux.intelRdt",
        ),
        (
            refusal(|s| s.Process.mut_or_insert_default().ApparmorProfile = "x".to_owned()),
            "process.apparmorProfile",
        ),
        (
            refusal(|s| s.Process.mut_or_insert_default().SelinuxLabel = "x".to_owned()),
            "process.selinuxLabel",
        ),
        (refusal(|s| s.Windows = Some(oci::Windows::new()).into()), "windows"),
        (refusal(|s| s.Mounts = vec![mount("nfs", "x", &[])]), "mounts[0].type \"nfs\""),
        (
            refusal(|s| s.Mounts = vec![mount("tmpfs", "x", &["copy-symlink"])]),
            "mounts[0].options: copy-symlink",
        ),
    ];
    for ((code, message), field) in refusals {
        assert_eq!(
            (code, message.as_str()),
            (Code::Unimplemented, format!("{field}: not supported by this guest").as_str())
        );
    }
}

/// A recursive value would undo what the mounts have of their own.
#[test]
fn the_roots_propagation_is_its_own() {
    let mut spec = spec();
    spec.Linux.mut_or_insert_default().RootfsPropagation = "rslave".to_owned();
    let root = container_spec(spec, &Shared::default()).unwrap().root;
    assert_eq!(root.propagation, Some(MountPropagationFlags::DOWNSTREAM));
}

/// A spec that lists `kinds`, each with a path or an empty one.
fn listing(kinds: &[(&str, &str)]) -> oci::Spec {
    let mut spec = spec();
    spec.Linux.mut_or_insert_default().Namespaces = kinds
        .iter()
        .map(|(kind, path)| oci::LinuxNamespace {
            Type: (*kind).to_owned(),
            Path: (*path).to_owned(),
            ..oci::LinuxNamespace::default()
        })
        .collect();
    spec
}

fn as_listed(mut spec: oci::Spec) -> oci::Spec {
    spec.Linux.mut_or_insert_default().NamespacesAsListed = true;
    spec
}

const EVERY: [(&str, &str); 7] = [
    ("cgroup", ""),
    ("ipc", ""),
    ("mount", ""),
    ("network", ""),
    ("pid", ""),
    ("time", ""),
    ("uts", ""),
];

#[test]
fn a_list_of_namespaces_means_what_oci_says_or_what_kata_says() {
    use Namespace::{New, Sandbox};
    let pods = Shared { hostname: "pod".to_owned(), pid: true };
    let of = |spec: oci::Spec, shared: &Shared| {
        let all = container_spec(spec, shared).unwrap().namespaces;
        [all.cgroup, all.ipc, all.network, all.pid, all.time, all.uts]
    };
    let alone = Shared::default();
    assert_eq!(of(as_listed(listing(&EVERY)), &pods), [New, New, New, New, New, New]);
    assert_eq!(of(listing(&EVERY), &pods), [New, Sandbox, New, Sandbox, New, Sandbox]);
    assert_eq!(of(listing(&EVERY), &alone), [New, Sandbox, New, New, New, Sandbox]);
    let none = [New, Sandbox, Sandbox, Sandbox, Sandbox, Sandbox];
    assert_eq!(of(as_listed(listing(&[])), &pods), none);
    assert_eq!(of(listing(&[]), &alone)[3], New);
    let err = container_spec(as_listed(listing(&[])), &alone).unwrap_err();
    assert!(err.message().starts_with("linux.namespaces: pid is not listed"), "{err}");
}

#[test]
fn a_path_is_joined_in_either_meaning() {
    let kinds = ["cgroup", "ipc", "network", "pid", "time", "uts"].map(|kind| (kind, "/proc/7/ns"));
    for spec in [listing(&kinds), as_listed(listing(&kinds))] {
        let all = container_spec(spec, &Shared::default()).unwrap().namespaces;
        for namespace in [all.cgroup, all.ipc, all.network, all.pid, all.time, all.uts] {
            assert_eq!(namespace, Namespace::Joined("/proc/7/ns".to_owned()));
        }
    }
    let katas = as_listed(listing(&[("ipc", "/var/run/sandbox-ns/ipc"), ("pid", "")]));
    let all = container_spec(katas, &Shared::default()).unwrap().namespaces;
    assert_eq!(all.ipc, Namespace::Sandbox);
}

#[test]
fn namespaces_that_cannot_be_are_refused_by_name() {
    for (kinds, message) in [
        (&[("net", "")][..], "linux.namespaces[net]: no such namespace"),
        (&[("pid", ""), ("pid", "")], "linux.namespaces[pid]: listed twice"),
        (&[("mount", "/x")], "linux.namespaces[mount].path: not supported by this guest"),
        (&[("ipc", "x")], "linux.namespaces[ipc].path: \"x\" is not an absolute path"),
        (&[("user", "")], "linux.namespaces[user]: neither uidMappings nor gidMappings"),
    ] {
        let err = container_spec(listing(kinds), &Shared::default()).unwrap_err();
        assert_eq!(err.message(), message);
    }
}

/// What a user namespace maps is all of what was said, or it is refused (CVE-2021-43784).
#[test]
fn a_user_namespace_and_its_mappings_come_together() {
    let mapping = |count| {
        let (inside, outside) = (0, 100_000);
        vec![
            oci::LinuxIDMapping {
                ContainerID: inside,
                HostID: outside,
                Size: 1,
                ..oci::LinuxIDMapping::default()
            };
            count
        ]
    };
    let with = |kinds: &[(&str, &str)], uids: usize, gids: usize| {
        let mut spec = listing(kinds);
        let linux = spec.Linux.mut_or_insert_default();
        (linux.UIDMappings, linux.GIDMappings) = (mapping(uids), mapping(gids));
        container_spec(spec, &Shared::default()).map(|spec| spec.namespaces.user)
    };
    let (new, joined) = ([("user", "")], [("user", "/proc/7/ns/user")]);
    assert!(matches!(with(&new, 1, 1), Ok(Some(UserNamespace::New(_)))));
    assert!(matches!(with(&joined, 0, 0), Ok(Some(UserNamespace::Joined(_)))));
    for (kinds, uids, gids, field) in [
        (&new[..], 1, 0, "linux.gidMappings: empty"),
        (&new, 0, 1, "linux.uidMappings: empty"),
        (&new, 10_000, 1, "linux.uidMappings: 10000 entries"),
        (&new, 1, 10_000, "linux.gidMappings: 10000 entries"),
        (&[], 1, 1, "linux.uidMappings: linux.namespaces lists no user namespace"),
        (&joined, 1, 1, "linux.uidMappings: the user namespace of a path has its own"),
    ] {
        let err = with(kinds, uids, gids).unwrap_err();
        assert!(err.message().starts_with(field), "{field}: {err}");
        assert_eq!(err.code(), Code::InvalidArgument);
    }
}

#[test]
fn offsets_are_of_clocks_that_a_new_time_namespace_has() {
    let with = |kinds: &[(&str, &str)], clock: &str, nanoseconds: u32| {
        let mut spec = listing(kinds);
        let offset = oci::extensions::LinuxTimeOffset {
            Secs: -5,
            Nanosecs: nanoseconds,
            ..oci::extensions::LinuxTimeOffset::default()
        };
        spec.Linux.mut_or_insert_default().TimeOffsets.insert(clock.to_owned(), offset);
        container_spec(spec, &Shared::default()).map(|spec| spec.namespaces.time_offsets)
    };
    let new = [("time", "")];
    let offsets = with(&new, "monotonic", 999_999_999).unwrap();
    assert_eq!((offsets[0].seconds, offsets[0].nanoseconds), (-5, 999_999_999));
    assert!(with(&new, "boottime", 0).is_ok());
    for (kinds, clock, nanoseconds, message) in [
        (&new[..], "realtime", 0, "linux.timeOffsets: \"realtime\" is no clock of a namespace's"),
        (
            &new,
            "monotonic",
            1_000_000_000,
            "linux.timeOffsets[monotonic].nanosecs: a second or more",
        ),
        (&[], "monotonic", 0, "linux.timeOffsets: linux.namespaces lists no new time namespace"),
    ] {
        assert_eq!(with(kinds, clock, nanoseconds).unwrap_err().message(), message);
    }
}

/// In OCI's meaning a name needs a uts namespace to be set in; Kata's runtimes say the sandbox's name again.
#[test]
fn a_hostname_is_the_containers_own_or_the_sandboxs() {
    let shared = Shared { hostname: "pod".to_owned(), pid: true };
    let named = |mut spec: oci::Spec, name: &str| {
        spec.Hostname = name.to_owned();
        container_spec(spec, &shared).map(|spec| spec.hostname)
    };
    let own = || as_listed(listing(&[("uts", "")]));
    assert_eq!(named(own(), "web").unwrap(), "web");
    assert_eq!(named(as_listed(spec()), "pod").unwrap(), "");
    assert_eq!(named(spec(), "web").unwrap(), "");
    let err = named(as_listed(spec()), "web").unwrap_err();
    assert!(err.message().starts_with("hostname: linux.namespaces lists no uts"), "{err}");
}

/// Parameters of the sandbox's namespaces are set by Kata's runtimes, and by nobody who lists what is the container's.
#[test]
fn sysctls_of_shared_namespaces_are_not_the_containers() {
    let with = |mut spec: oci::Spec, name: &str| {
        spec.Linux.mut_or_insert_default().Sysctl.insert(name.to_owned(), "1".to_owned());
        container_spec(spec, &Shared { hostname: String::new(), pid: true }).map(drop)
    };
    assert!(with(spec(), "kernel.shm_rmid_forced").is_ok());
    assert!(with(as_listed(spec()), "kernel.shm_rmid_forced").is_err());
    assert!(with(as_listed(listing(&[("ipc", "")])), "kernel.shm_rmid_forced").is_ok());
    assert!(with(spec(), "net.ipv4.ip_forward").is_err());
    assert!(with(listing(&[("network", "")]), "net.ipv4.ip_forward").is_ok());
}

#[test]
fn nonsense_is_invalid() {
    let messages = [
        refusal(|s| s.Version = "2.0.0".to_owned()),
        refusal(|s| s.Process = None.into()),
        refusal(|s| s.Root = None.into()),
        refusal(|s| s.Root.mut_or_insert_default().Path = "rootfs".to_owned()),
        refusal(|s| s.Root.mut_or_insert_default().Path = "/..//.".to_owned()),
        refusal(|s| s.Hostname = "x".repeat(65)),
        refusal(|s| s.Process.mut_or_insert_default().Args.clear()),
        refusal(|s| s.Process.mut_or_insert_default().Args = vec!["a\0b".to_owned()]),
        refusal(|s| s.Process.mut_or_insert_default().Args = vec!["x".repeat(1 << 20)]),
        refusal(|s| s.Process.mut_or_insert_default().Env = vec!["novalue".to_owned()]),
        refusal(|s| s.Process.mut_or_insert_default().Cwd = "tmp".to_owned()),
        refusal(|s| s.Process.mut_or_insert_default().Cwd = String::new()),
        refusal(|s| s.Process.mut_or_insert_default().OOMScoreAdj = 1001),
        refusal(|s| s.Process.mut_or_insert_default().User.mut_or_insert_default().UID = u32::MAX),
        refusal(|s| s.Mounts = vec![mount("bind", "relative", &["rbind"])]),
        refusal(|s| s.Mounts = vec![mount("bind", "/x", &["rbind", "size=1"])]),
        refusal(|s| s.Mounts = vec![mount("tmpfs", "x", &[]); 1025]),
        refusal(|s| {
            s.Mounts = vec![oci::Mount {
                destination: "/proc/self".to_owned(),
                ..mount("tmpfs", "x", &[])
            }]
        }),
        refusal(|s| s.Linux.mut_or_insert_default().CgroupsPath = "a/../../b".to_owned()),
        refusal(|s| s.Linux.mut_or_insert_default().RootfsPropagation = "rbind".to_owned()),
        refusal(|s| s.Linux.mut_or_insert_default().MaskedPaths = vec!["proc".to_owned()]),
        refusal(|s| {
            s.Linux
                .mut_or_insert_default()
                .Sysctl
                .insert("kernel.core_pattern".to_owned(), "x".to_owned());
        }),
    ];
    for (code, message) in messages {
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.len() < 300, "{message}");
    }
}

#[test]
fn a_value_of_the_environment_is_never_shown() {
    let (_, message) = refusal(|s| {
        s.Process.mut_or_insert_default().Env = vec!["A=1".to_owned(), "secret".to_owned()]
    });
    assert_eq!(message, "process.env[1]: not NAME=value");
}

#[test]
fn the_later_of_two_variables_counts() {
    let list = ["A=1", "B=2", "A=3", "C="].map(str::to_owned).to_vec();
    assert_eq!(environment(list).unwrap(), ["B=2", "A=3", "C="]);
}

#[test]
fn a_bind_is_said_by_type_or_by_option() {
    let source = |mount| mount_spec(0, mount, None).unwrap().source;
    let bind = |extent| MountSource::Bind { path: "/x".to_owned(), extent };
    assert_eq!(source(mount("bind", "/x", &[])), bind(Extent::Single));
    assert_eq!(source(mount("bind", "/x", &["rbind", "ro"])), bind(Extent::Recursive));
    assert_eq!(source(mount("none", "/x", &["bind"])), bind(Extent::Single));
    let cgroup = MountSource::Filesystem { fstype: FsType::Cgroup2, source: "cgroup".to_owned() };
    assert_eq!(source(mount("cgroup", "cgroup", &["ro"])), cgroup);
}

#[test]
fn layers_of_an_overlay_are_paths_of_the_guest() {
    let parse = |options: &[&str]| {
        let mut data = options.iter().map(|&option| option.to_owned()).collect();
        layers("mounts[0].options", &mut data).map(|layers| (layers, data))
    };
    let (layers, rest) =
        parse(&["lowerdir=/a\\:b:/c", "upperdir=/u", "volatile", "workdir=/w"]).unwrap();
    assert_eq!(layers.lower, ["/a:b", "/c"]);
    assert_eq!(layers.upper, Some(("/u".to_owned(), "/w".to_owned())));
    assert_eq!(rest, ["volatile"]);
    for bad in [
        &[][..],
        &["lowerdir=/a::/data"],
        &["lowerdir=relative"],
        &["lowerdir=/a", "upperdir=/u"],
        &["lowerdir=/a", "lowerdir+=/b"],
        &["lowerdir=/a", "lowerdir=/b"],
        &["lowerdir=/a", "datadir+=/b"],
    ] {
        let err = parse(bad).unwrap_err();
        assert!(err.message().starts_with("mounts[0].options: "), "{bad:?}: {err}");
    }
}

#[test]
fn a_mount_that_cannot_have_an_option_says_so() {
    let message = |mount| mount_spec(0, mount, None).unwrap_err().message().to_owned();
    for (kind, options, what) in [
        ("bind", vec!["sync"], "\"sync\" is not an option of a bind mount"),
        ("sysfs", vec!["lazytime"], "\"lazytime\" is not an option of sysfs"),
        ("cgroup", vec!["nsdelegate"], "\"nsdelegate\" is not an option of cgroup2"),
        ("proc", vec!["tmpcopyup"], "\"tmpcopyup\" is not an option of proc"),
        ("tmpfs", vec!["remount", "tmpcopyup"], "\"tmpcopyup\" is not an option of a remount"),
        (
            "none",
            vec!["remount", "bind", "size=1m"],
            "\"size=1m\" is not an option of a remount of a bind mount",
        ),
    ] {
        assert_eq!(message(mount(kind, "/x", &options)), format!("mounts[0].options: {what}"));
    }
}

#[test]
fn an_unknown_capability_is_not_granted() {
    let names = ["CAP_KILL", "CAP_FLY"].map(str::to_owned);
    assert_eq!(capability_set(&names), CapabilitySet::KILL);
}

#[test]
fn a_limit_of_all_ones_is_none() {
    let rlimit = |name: &str, soft, hard| {
        let mut rlimit = oci::POSIXRlimit::new();
        rlimit.Type = name.to_owned();
        rlimit.Soft = soft;
        rlimit.Hard = hard;
        rlimit
    };
    let converted = rlimits(vec![rlimit("RLIMIT_CORE", 5, u64::MAX)]).unwrap();
    assert_eq!((converted[0].soft, converted[0].hard), (Some(5), None));
    for bad in [
        vec![rlimit("RLIMIT_FOO", 0, 0)],
        vec![rlimit("RLIMIT_CPU", 2, 1)],
        vec![rlimit("RLIMIT_CPU", 1, 1), rlimit("RLIMIT_CPU", 1, 1)],
    ] {
        assert_eq!(rlimits(bad).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn a_device_without_a_mode_gets_one() {
    let mut device = oci::LinuxDevice::new();
    device.Path = "/dev/fuse".to_owned();
    device.Type = "c".to_owned();
    (device.Major, device.Minor) = (10, 229);
    let converted = device_spec("linux.devices[0]", device.clone()).unwrap();
    assert_eq!(converted.kind, DeviceKind::Character { major: 10, minor: 229 });
    assert_eq!(converted.mode, 0o666);
    device.Major = -1;
    assert!(device_spec("linux.devices[0]", device.clone()).is_err());
    device.Type = "d".to_owned();
    assert!(device_spec("linux.devices[0]", device).is_err());
}

mod of_resources {
    use super::*;
    use crate::container::spec::Resources;

    fn convert(change: impl FnOnce(&mut oci::LinuxResources)) -> Result<Resources> {
        let mut resources = oci::LinuxResources::new();
        change(&mut resources);
        super::resources::resources(resources)
    }

    #[test]
    fn memory_and_swap_are_told_apart() {
        let memory = |limit, swap| {
            convert(|r| {
                let memory = r.Memory.mut_or_insert_default();
                (memory.Limit, memory.Swap) = (limit, swap);
            })
        };
        let converted = memory(64 << 20, 96 << 20).unwrap();
        assert_eq!(converted.memory_limit, Some(Limit::Of(64 << 20)));
        assert_eq!(converted.swap_limit, Some(Limit::Of(32 << 20)));
        assert_eq!(memory(-1, -1).unwrap().swap_limit, Some(Limit::Max));
        assert_eq!(memory(0, 0).unwrap(), Resources::default());
        for (limit, swap) in [(64, 32), (0, 5), (-2, 0)] {
            assert_eq!(memory(limit, swap).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn cpus_are_a_list() {
        let cpus = |list: &str| convert(|r| r.CPU.mut_or_insert_default().Cpus = list.to_owned());
        assert_eq!(cpus("0-1,3").unwrap().cpus.as_deref(), Some("0-1,3"));
        assert!(cpus("all").is_err());
    }

    #[test]
    fn a_page_size_is_the_kernels_name_of_one() {
        let pages = |size: &str| {
            let mut limit = oci::LinuxHugepageLimit::new();
            limit.Pagesize = size.to_owned();
            convert(|r| r.HugepageLimits = vec![limit])
        };
        assert!(pages("2MB").is_ok());
        for bad in ["", "MB", "2", "../2MB", "2mb", "2M"] {
            assert!(pages(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_rule_is_exact() {
        let rule = |kind: &str, major, minor, access: &str| {
            let mut rule = oci::LinuxDeviceCgroup::new();
            rule.Type = kind.to_owned();
            (rule.Major, rule.Minor) = (major, minor);
            rule.Access = access.to_owned();
            convert(|r| r.Devices = vec![rule]).map(|resources| resources.device_rules[0])
        };
        let all = rule("a", 0, 0, "rwm").unwrap();
        assert_eq!(
            (all.kind, all.major, all.minor, all.access),
            (RuleKind::All, None, None, Access::ALL)
        );
        let any_minor = rule("c", 136, -1, "rw").unwrap();
        assert_eq!((any_minor.major, any_minor.minor), (Some(136), None));
        assert!(!any_minor.access.mknod);
        for (kind, major, access) in [("x", 1, "r"), ("c", -2, "r"), ("c", 1, ""), ("c", 1, "rx")] {
            assert!(rule(kind, major, 0, access).is_err());
        }
    }
}
