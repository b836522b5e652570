//! What a process of a container sees of itself and of the guest.

use harness::{Facts, Run, Vm, VmConfig, list_namespace};
use hyperstart::SandboxConfig;
use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxMemoryBuilder, LinuxNamespaceType, LinuxPidsBuilder,
    LinuxResourcesBuilder, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use std::collections::HashSet;

/// Docker's fourteen, as the kernel numbers them (capability.h).
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";
/// A container has these to itself.
const OWN_NAMESPACES: [&str; 3] = ["cgroup", "mnt", "pid"];

/// Changes the process of a spec.
fn edit_process(spec: &mut Spec, change: impl FnOnce(&mut Process)) {
    let mut process = spec.process().clone().unwrap();
    change(&mut process);
    spec.set_process(Some(process));
}

/// Runs the probe's `view` after a change of the spec.
fn view_with(vm: &Vm, change: impl FnOnce(&mut Spec)) -> Facts {
    vm.finish_with("web", &Run::probe(["view"]), change).facts()
}

/// Mount, pid and cgroup namespaces are the container's own; ipc, network, uts, user and time are the sandbox's.
#[test]
fn namespaces_are_its_own() {
    let vm = Vm::boot(&VmConfig::default());
    let running = ["web", "db"].map(|name| vm.start(name, &Run::probe(["sleep", "60000"])));
    let views =
        running.each_ref().map(|web| web.exec("view", &Run::probe(["view"])).finish().facts());
    for (name, guest) in vm.guest_view().below("ns.") {
        let [web, db] = views.each_ref().map(|view| view.get(&format!("ns.{name}")));
        if OWN_NAMESPACES.contains(&name) {
            assert!(web != guest && db != guest && web != db, "{name}: {guest} {web} {db}");
        } else {
            assert!(web == guest && db == guest, "{name}: {guest} {web} {db}");
        }
    }
    for web in running {
        web.kill();
        web.remove();
    }
    vm.shutdown();
}

/// A spec that lists a network namespace gets one of its own, with nothing but a loopback that is up.
#[test]
fn own_network_has_a_loopback() {
    let vm = Vm::boot(&VmConfig::default());
    let own_network = |spec: &mut Spec| list_namespace(spec, LinuxNamespaceType::Network, None);
    let script =
        "readlink /proc/self/ns/net; ip -o addr; ping -c1 -W5 127.0.0.1 >/dev/null && echo alive";
    let said = vm.finish_with("web", &Run::shell(script), own_network);
    assert!(!said.stdout().contains(vm.guest_view().get("ns.net")), "{said:?}");
    assert!(
        said.stdout().contains("127.0.0.1/8") && said.stdout().ends_with("alive\n"),
        "{said:?}"
    );
    assert!(!said.stdout().contains("eth"), "{said:?}");
    vm.shutdown();
}

/// Bounding, effective and permitted are what the spec says, inheritable and ambient are empty.
#[test]
fn default_capabilities_are_dockers() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.view("web");
    let sets =
        ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"].map(|set| view.get(set).to_owned());
    let (given, none) = (DEFAULT_CAPABILITIES, "0000000000000000");
    assert_eq!(sets, [given, given, given, none, none]);
    vm.shutdown();
}

/// Every capability that the kernel numbers can be given, in all five sets, to a user who is not root.
#[test]
fn every_capability_can_be_given() {
    let vm = Vm::boot(&VmConfig::default());
    let every: HashSet<Capability> = ALL_CAPABILITIES.into();
    assert_eq!(every.len(), 41, "CAP_LAST_CAP is 40 on 6.12");
    let run = Run::probe(["view"]).user("1000:1001");
    let view = vm.finish_with("web", &run, |spec| {
        edit_process(spec, |process| {
            process.set_capabilities(Some(in_all_sets(every)));
        })
    });
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(view.facts().get(set), "000001ffffffffff", "{set}");
    }
    vm.shutdown();
}

/// Each set is set by itself: no set takes from another what the spec does not give it.
#[test]
fn capability_sets_are_set_one_by_one() {
    let vm = Vm::boot(&VmConfig::default());
    let view = view_with(&vm, |spec| {
        edit_process(spec, |process| {
            let mut sets = LinuxCapabilities::default();
            sets.set_bounding(Some(
                [Capability::Chown, Capability::Kill, Capability::NetRaw, Capability::Mknod].into(),
            ))
            .set_permitted(Some([Capability::Chown, Capability::Kill, Capability::NetRaw].into()))
            .set_effective(Some([Capability::Chown, Capability::Kill].into()))
            .set_inheritable(Some([Capability::Kill, Capability::NetRaw].into()))
            .set_ambient(Some([Capability::Kill].into()));
            process.set_capabilities(Some(sets)).set_user(hyperstart::spec::user("1000:1001"));
        })
    });
    // A process that is not root keeps over execve what is ambient (capabilities(7)): kill is 5, net_raw 13.
    assert_eq!(view.get("CapBnd"), "0000000008002021");
    assert_eq!(view.get("CapInh"), "0000000000002020");
    assert_eq!(view.get("CapAmb"), "0000000000000020");
    assert_eq!((view.get("CapPrm"), view.get("CapEff")), ("0000000000000020", "0000000000000020"));
    vm.shutdown();
}

/// Without any capability even root has none.
#[test]
fn no_capabilities_are_none() {
    let vm = Vm::boot(&VmConfig::default());
    let view = view_with(&vm, |spec| {
        edit_process(spec, |process| {
            process.set_capabilities(None);
        })
    });
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(view.get(set), "0000000000000000", "{set}");
    }
    vm.shutdown();
}

/// Resource limits are those of the spec, in the container and in what is run in it besides.
#[test]
fn rlimits_are_set() {
    let vm = Vm::boot(&VmConfig::default());
    let limit = |kind, soft, hard| {
        PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().unwrap()
    };
    let view = view_with(&vm, |spec| {
        edit_process(spec, |process| {
            process.set_rlimits(Some(vec![
                limit(PosixRlimitType::RlimitNofile, 99_u64, 199_u64),
                limit(PosixRlimitType::RlimitCore, 0, 0),
                limit(PosixRlimitType::RlimitMemlock, u64::MAX, u64::MAX),
            ]));
        })
    });
    assert_eq!(view.get("rlimit.NOFILE"), "99:199");
    assert_eq!(view.get("rlimit.CORE"), "0:0");
    assert_eq!(view.get("rlimit.MEMLOCK"), "unlimited:unlimited");
    vm.shutdown();
}

/// What PID 1 gave itself stays with it: a container has the kernel's own limits, signals, score and files.
#[test]
fn nothing_of_pid_1_is_inherited() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.view("web");
    assert_eq!(view.get("rlimit.NOFILE"), "1024:524288", "as systemd gives it");
    assert_eq!((view.get("oom_score_adj"), view.get("umask")), ("0", "0022"));
    assert_eq!(
        view.below("fd.").iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        ["0", "1", "2"]
    );
    let variables: HashSet<&str> = view.below("env.").into_iter().map(|(name, _)| name).collect();
    assert_eq!(variables, HashSet::from(["PATH", "HOME"]), "HOME comes from /etc/passwd");
    // Not by the probe: Rust ignores SIGPIPE in every program of its own.
    let signals =
        vm.finish("grep", &Run::busybox(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]));
    assert_eq!(signals.stdout(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    vm.shutdown();
}

/// The mounts of the OCI specification are there, with the options that Docker gives them.
#[test]
fn default_mounts_are_there() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.view("web");
    for (target, fstype, options) in [
        ("/", "overlay", "rw"),
        ("/proc", "proc", "nosuid,nodev,noexec"),
        ("/dev", "tmpfs", "nosuid"),
        ("/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666"),
        ("/dev/shm", "tmpfs", "nosuid,nodev,noexec"),
        ("/dev/mqueue", "mqueue", "nosuid,nodev,noexec"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("/sys/fs/cgroup", "cgroup2", "ro,nosuid,nodev,noexec"),
    ] {
        let mount = view.get(&format!("mount.{target}"));
        assert!(mount.starts_with(fstype) && mount.contains(options), "{target}: {mount}");
    }
    let guest_paths =
        view.below("mount.").into_iter().filter(|(target, _)| target.contains("/run/"));
    assert_eq!(guest_paths.collect::<Vec<_>>(), [], "the guest's mounts are out of sight");
    vm.shutdown();
}

/// The device nodes of the OCI specification are there, and no other.
#[test]
fn default_nodes_are_there() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.view("web");
    let nodes: HashSet<(&str, &str)> = view.below("dev.").into_iter().collect();
    let expected = [
        ("null", "c 1:3 0666 0:0"),
        ("zero", "c 1:5 0666 0:0"),
        ("full", "c 1:7 0666 0:0"),
        ("random", "c 1:8 0666 0:0"),
        ("urandom", "c 1:9 0666 0:0"),
        ("tty", "c 5:0 0666 0:0"),
        ("ptmx", "-> pts/ptmx"),
        ("fd", "-> /proc/self/fd"),
        ("stdin", "-> /proc/self/fd/0"),
        ("stdout", "-> /proc/self/fd/1"),
        ("stderr", "-> /proc/self/fd/2"),
    ];
    for node in expected {
        assert!(nodes.contains(&node), "{node:?} not in {nodes:?}");
    }
    let directories = ["mqueue", "pts", "shm"];
    let names: HashSet<&str> =
        expected.iter().map(|(name, _)| *name).chain(directories).chain(["core"]).collect();
    let more: Vec<_> = nodes.iter().filter(|(name, _)| !names.contains(name)).collect();
    assert!(more.is_empty(), "{more:?}");
    vm.shutdown();
}

/// A container can make no node for the guest's disks, though it has CAP_MKNOD.
#[test]
fn disks_of_the_guest_are_out_of_reach() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.finish("web", &Run::probe(["make-node", "/tmp/disk"])).facts();
    assert_eq!(view.get("make"), libc::EPERM.to_string(), "{view:?}");
    assert_ne!(view.get("open"), "ok");
    vm.shutdown();
}

/// Masked paths read as empty, read-only ones refuse writes.
#[test]
fn paths_are_masked_or_read_only() {
    let vm = Vm::boot(&VmConfig::default());
    let script = "for file in interrupts kcore keys timer_list; do \
                      if test -e /proc/$file; then wc -c < /proc/$file; fi; done | sort -u; \
                  echo 1 > /proc/sys/kernel/panic; echo x > /proc/sys/kernel/hostname; true";
    let said = vm.finish("web", &Run::shell(script));
    assert_eq!(said.stdout(), "0\n");
    assert_eq!(said.stderr().matches("Read-only file system").count(), 2, "{said:?}");
    vm.shutdown();
}

/// A root that is read-only can not be written to; one that is not can, and its image stays as it is.
#[test]
fn root_is_writable_unless_it_is_read_only() {
    let vm = Vm::boot(&VmConfig::default());
    let script = Run::shell("echo x > /file && cat /file");
    assert_eq!(vm.finish("rw", &script).stdout(), "x\n");
    let read_only = vm.finish_with("ro", &script, |spec| {
        let mut root = spec.root().clone().unwrap();
        root.set_readonly(Some(true));
        spec.set_root(Some(root));
    });
    assert!(
        read_only.code != 0 && read_only.stderr().contains("Read-only file system"),
        "{read_only:?}"
    );
    assert_eq!(
        vm.finish("again", &Run::shell("test -e /file")).code,
        1,
        "a container wrote into the image"
    );
    vm.shutdown();
}

/// Directory, environment, arguments and host name are those of the spec.
#[test]
fn cwd_env_args_and_hostname_are_given() {
    let sandbox = SandboxConfig { hostname: "pod-7".into(), ..SandboxConfig::default() };
    let vm = Vm::boot(&VmConfig { sandbox, ..VmConfig::default() });
    let run = Run::probe(["view"]).cwd("/home/alice").env("A=1").env("B=two words").env("EMPTY=");
    let view = vm.finish("web", &run).facts();
    assert_eq!(view.get("cwd"), "/home/alice");
    assert_eq!(
        (view.get("env.A"), view.get("env.B"), view.get("env.EMPTY")),
        ("1", "two words", "")
    );
    assert_eq!((view.get("arg.0"), view.get("arg.1")), ("/probe", "view"));
    assert_eq!(view.get("hostname"), "pod-7", "the sandbox's, unless the spec has its own");
    let own = view_with(&vm, |spec| {
        list_namespace(spec, LinuxNamespaceType::Uts, None);
        spec.set_hostname(Some("web-1".to_owned()));
    });
    assert_eq!(own.get("hostname"), "web-1");
    vm.shutdown();
}

/// A user by name is looked up in the container's own files, with all of his groups.
#[test]
fn named_user_has_his_groups() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.finish("web", &Run::probe(["view"]).user("alice")).facts();
    assert_eq!(
        ["uid", "euid", "gid", "egid"].map(|id| view.get(id).to_owned()),
        ["1000", "1000", "1001", "1001"]
    );
    let groups: HashSet<&str> = view.get("groups").split(',').collect();
    assert!(
        groups.is_superset(&HashSet::from(["10", "29"])) && !groups.contains("50"),
        "{groups:?}"
    );
    let other = vm.finish("db", &Run::probe(["view"]).user("alice:staff")).facts();
    assert_eq!((other.get("uid"), other.get("gid")), ("1000", "50"));
    vm.shutdown();
}

/// A number stays a number, though a line of /etc/passwd has it for a name (CVE-2016-3697).
#[test]
fn numeric_user_is_not_looked_up() {
    let vm = Vm::boot(&VmConfig::default());
    let view = vm.finish("web", &Run::probe(["view"]).user("1000:7")).facts();
    assert_eq!((view.get("uid"), view.get("gid"), view.get("groups")), ("1000", "7", ""));
    assert_eq!(view.get("CapEff"), "0000000000000000", "who is not root has no capabilities");
    vm.shutdown();
}

/// Additional groups are those of the spec and no more.
#[test]
fn additional_groups_are_given() {
    let vm = Vm::boot(&VmConfig::default());
    let view = view_with(&vm, |spec| {
        edit_process(spec, |process| {
            let mut user = hyperstart::spec::user("5:6");
            user.set_additional_gids(Some(vec![30, 20, 4_000_000_000]));
            process.set_user(user);
        })
    });
    assert_eq!(view.get("groups"), "20,30,4000000000");
    vm.shutdown();
}

/// no_new_privileges and the OOM score are set when asked for.
#[test]
fn no_new_privileges_and_oom_score_are_set() {
    let vm = Vm::boot(&VmConfig::default());
    let view = view_with(&vm, |spec| {
        edit_process(spec, |process| {
            process.set_no_new_privileges(Some(true)).set_oom_score_adj(Some(321));
        })
    });
    assert_eq!((view.get("NoNewPrivs"), view.get("oom_score_adj")), ("1", "321"));
    assert_eq!(vm.view("db").get("NoNewPrivs"), "0");
    vm.shutdown();
}

/// A terminal is the controlling one, of the container's own devpts, on all three streams.
#[test]
fn terminal_is_its_own() {
    let vm = Vm::boot(&VmConfig::default());
    let said = vm.finish("web", &Run::probe(["view"]).terminal());
    let view = Facts::parse(&said.stdout().replace('\r', ""));
    assert_eq!(
        (view.get("tty"), view.get("tty.name"), view.get("tty.controlling")),
        ("111", "/dev/pts/0", "yes")
    );
    assert_eq!((view.get("pid"), view.get("sid")), ("1", "1"));
    let without = vm.view("db");
    assert_eq!((without.get("tty"), without.get("tty.controlling")), ("000", "error:6"), "ENXIO");
    vm.shutdown();
}

/// Limits of the spec are those of the container's cgroup, which is the root of its view.
#[test]
fn cgroup_limits_are_set() {
    let vm = Vm::boot(&VmConfig::default());
    let view = view_with(&vm, |spec| {
        let memory = LinuxMemoryBuilder::default().limit(32 << 20).build().unwrap();
        let pids = LinuxPidsBuilder::default().limit(77_i64).build().unwrap();
        let mut linux = spec.linux().clone().unwrap();
        linux.set_resources(Some(
            LinuxResourcesBuilder::default().memory(memory).pids(pids).build().unwrap(),
        ));
        spec.set_linux(Some(linux));
    });
    assert_eq!(view.get("cgroup"), "0::/");
    assert_eq!((view.get("cgroup.memory.max"), view.get("cgroup.pids.max")), ("33554432", "77"));
    assert_eq!(view.get("cgroup.cgroup.procs"), "1");
    vm.shutdown();
}

/// The same capabilities in each of the five sets.
fn in_all_sets(set: HashSet<Capability>) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set.clone()))
        .set_inheritable(Some(set.clone()))
        .set_ambient(Some(set));
    sets
}

const ALL_CAPABILITIES: [Capability; 41] = [
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::AuditWrite,
    Capability::BlockSuspend,
    Capability::Bpf,
    Capability::CheckpointRestore,
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Kill,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::Mknod,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetRaw,
    Capability::Perfmon,
    Capability::Setgid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysChroot,
    Capability::SysModule,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Syslog,
    Capability::WakeAlarm,
];
