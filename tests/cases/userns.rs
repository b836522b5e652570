//! User namespaces: who a container's users are, inside and in the guest, and what its root may do.

use harness::inspect::privileged;
use harness::{Finished, Run, Running, Vm, VmConfig, add_capabilities, list_namespace};
use hyperstart::spec::map_ids;
use hyperstart::{Code, Storage};
use oci_spec::runtime::{
    Capability, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType as Kind, MountBuilder,
    PosixRlimitBuilder, PosixRlimitType, Spec,
};

const FIRST: u32 = 100_000;
const MAP: &str = "0 100000 65536";

fn script(vm: &Vm, script: &str, change: impl FnOnce(&mut Spec)) -> Finished {
    vm.finish_with("web", &Run::shell(script).ids(FIRST), change)
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Adds to what root has, without a seccomp profile: the user namespace is what is tested.
fn grant(spec: &mut Spec, more: &[Capability]) {
    add_capabilities(spec, more);
    let mut linux = spec.linux().clone().unwrap();
    linux.set_seccomp(None);
    spec.set_linux(Some(linux));
}

/// Inside, the image is root's and so is what is made; in the guest both are of the range that was asked for.
#[test]
fn the_image_is_roots_inside_and_nobodys_outside() {
    let vm = Vm::boot(&VmConfig::default());
    let look = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -G; stat -c %u:%g / /bin/busybox \
                /dev /dev/null /dev/pts /dev/shm /dev/mqueue /tmp; \
                mkdir /made /tmp/x; touch /made/file; chown 1000:1001 /made/file; stat -c %u:%g /made /made/file; \
                echo x >> /etc/passwd; stat -c %u:%g /etc/passwd; sleep 1000";
    let run = Run::shell(&format!("({look}) 2>&1")).ids(FIRST);
    let web = vm.start("web", &run);
    let outside = "cd /run/kata-containers/web/upper; stat -c %u:%g made made/file etc/passwd";
    let mut seen = String::new();
    for _ in 0..100 {
        let said = vm.finish_with(
            "outside",
            &Run::shell(&format!("cd /guest/run; {}", outside.replace("cd /run/", "cd "))),
            |spec| {
                privileged(spec);
                let run =
                    MountBuilder::default().destination("/guest/run").source("/run").typ("bind");
                let mut mounts = spec.mounts().clone().unwrap();
                mounts.push(run.options(vec!["rbind".to_owned()]).build().unwrap());
                spec.set_mounts(Some(mounts));
            },
        );
        if said.code == 0 {
            seen = said.stdout().to_owned();
            break;
        }
    }
    // On the layer they are as they look inside: the mapping is the mount's.
    assert_eq!(seen, "0:0\n1000:1001\n0:0\n");
    let maps =
        web.exec("maps", &Run::shell("cat /proc/self/uid_map; id -u; stat -c %u /made")).finish();
    assert_eq!(words(maps.stdout()), format!("{MAP} 0 0"));
    web.kill();
    let said = web.finish();
    // The message queues are the sandbox's.
    let expected =
        format!("{MAP} {MAP} 0 0 {} 65534:65534 0:0 0:0 1000:1001 0:0", ["0:0"; 6].join(" "));
    assert_eq!(words(said.stdout()), expected);
    web.remove();
    vm.shutdown();
}

/// Without the mapping of its layers an image is nobody's: the check above can fail.
#[test]
fn an_image_that_is_not_mapped_is_nobodys() {
    let vm = Vm::boot(&VmConfig::default());
    let said = vm.finish_with("web", &Run::shell("stat -c %u:%g /bin/busybox; touch /x"), |spec| {
        map_ids(spec, FIRST);
    });
    assert_eq!(said.stdout(), "65534:65534\n");
    assert_ne!(said.code, 0, "{said:?}");
    vm.shutdown();
}

/// The process is a user of the range in the guest, and has the spec's capabilities inside.
#[test]
fn a_process_is_another_user_in_the_guest() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::busybox(["sleep", "1000"]).ids(FIRST).user("7:8"));
    let find = "for p in /guest/proc/[0-9]*; do grep -q '^Name:.sleep' $p/status && grep -E '^(Uid|Gid)' $p/status; done; true";
    let seen = vm.inspect(&Run::shell(find));
    assert_eq!(
        words(seen.stdout()),
        "Uid: 100007 100007 100007 100007 Gid: 100008 100008 100008 100008"
    );
    let view = web
        .exec("view", &Run::shell("grep Cap /proc/self/status; echo to > /dev/stdout; id"))
        .finish();
    assert!(view.stdout().contains("CapBnd:\t00000000a80425fb"), "{view:?}");
    assert!(view.stdout().contains("to\nuid=0(root) gid=0(root)"), "{view:?}");
    web.kill();
    web.remove();
    for (user, field) in
        [("65536", "process.user: uid 65536"), ("5:70000", "process.user: gid 70000")]
    {
        let run = Run::shell("id").ids(FIRST).user(user);
        let err = vm.try_create("web", &run, |_| {}).unwrap_err();
        assert!(err.to_string().contains(&format!("{field}: not mapped")), "{err}");
        assert_eq!(err.code(), Code::InvalidArgument);
    }
    vm.shutdown();
}

/// Root of a user namespace may use its capabilities on what is the container's own, and on nothing else.
#[test]
fn capabilities_count_in_the_containers_own_namespaces() {
    let vm = Vm::boot(&VmConfig::default());
    let own = |spec: &mut Spec| {
        for kind in [Kind::Uts, Kind::Ipc, Kind::Network] {
            list_namespace(spec, kind, None);
        }
        let more = [Capability::SysAdmin, Capability::NetAdmin, Capability::SysResource];
        grant(spec, &more);
    };
    let may = "mount -t tmpfs x /tmp && echo mounted; hostname inside && hostname; \
               ip link set lo mtu 1400 && echo network; ping -c1 127.0.0.1 > /dev/null && echo lo; stat -c %u /dev/mqueue";
    let said = script(&vm, may, own);
    assert_eq!(said.stdout(), "mounted\ninside\nnetwork\nlo\n0\n", "{said:?}");
    // Masks are no mounts of the container's: they stay, whoever is root.
    let may_not = "umount /proc/kcore; umount /proc/sys; umount -l /sys/firmware; mount -o remount,rw /proc/sys; \
                   cat /proc/kcore; ls /sys/firmware; echo x > /proc/sys/kernel/core_pattern; \
                   echo 1 > /proc/sys/vm/drop_caches; mknod /tmp/disk b 254 0; mount -t tmpfs x /proc/sys; \
                   echo x > /proc/sys/kernel/core_pattern; umount /; ulimit -n 2000000; date -s 2020-01-01; \
                   cat /guest/kcore; true";
    let said = script(&vm, may_not, own);
    assert!(!said.stdout().contains("ELF"), "{said:?}");
    let pattern = vm.finish("pattern", &Run::shell("cat /proc/sys/kernel/core_pattern; date +%Y"));
    assert!(
        pattern.stdout().starts_with("core\n") && !pattern.stdout().contains("2020"),
        "{pattern:?}"
    );
    // The sandbox's own names are not its to change.
    let shared =
        script(&vm, "hostname inside; hostname", |spec| grant(spec, &[Capability::SysAdmin]));
    assert_ne!(shared.stdout(), "inside\n", "{shared:?}");
    vm.shutdown();
}

/// Limits that only the guest's root may raise are as the spec says, and the score and a terminal of its own work.
#[test]
fn what_takes_the_guests_rights_is_done_before() {
    let vm = Vm::boot(&VmConfig::default());
    let limits = |spec: &mut Spec| {
        let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitMemlock);
        let limit = limit.soft(1_u64 << 40).hard(1_u64 << 41).build().unwrap();
        let mut process = spec.process().clone().unwrap();
        process.set_rlimits(Some(vec![limit])).set_oom_score_adj(Some(-500));
        spec.set_process(Some(process));
    };
    let run = Run::probe(["view"]).ids(FIRST).terminal().user("1000:1001");
    let finished = vm.finish_with("web", &run, limits);
    let text = finished.stdout().replace('\r', "");
    let view = harness::Facts::parse(&text);
    assert_eq!(view.get("rlimit.MEMLOCK"), format!("{}:{}", 1_u64 << 40, 1_u64 << 41));
    assert_eq!((view.get("oom_score_adj"), view.get("tty")), ("-500", "111"));
    assert_eq!((view.get("tty.name"), view.get("tty.controlling")), ("/dev/pts/0", "yes"));
    assert_eq!((view.get("uid"), view.get("gid"), view.get("groups")), ("1000", "1001", ""));
    for (name, owner) in [("null", "c 1:3 0666 0:0"), ("tty", "c 5:0 0666 0:0")] {
        assert_eq!(view.get(&format!("dev.{name}")), owner);
    }
    let fds: Vec<&str> = view.below("fd.").into_iter().map(|(number, _)| number).collect();
    assert_eq!(fds, ["0", "1", "2"]);
    vm.shutdown();
}

/// What is run in a container later is in all of its namespaces, the user namespace too.
#[test]
fn a_process_that_joins_is_in_the_same_namespaces() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["sleep", "100000"]).ids(FIRST));
    let first = web.exec("first", &Run::probe(["namespaces-of", "1"])).finish().facts();
    let own = web.exec("own", &Run::probe(["view"])).finish().facts();
    let guest = vm.guest_view();
    for (name, namespace) in first.below("ns.") {
        assert_eq!(own.get(&format!("ns.{name}")), namespace, "{name}");
        let is_own = matches!(name, "cgroup" | "mnt" | "pid" | "user");
        assert_eq!(guest.get(&format!("ns.{name}")) != namespace, is_own, "{name}");
    }
    let (pid, user) = (pid_of(&vm, "probe"), first.get("ns.user").to_owned());
    let path = format!("/proc/{pid}/ns/user");
    let joined = Run::probe(["view"]);
    let joined =
        vm.finish_with("joined", &joined, |spec| list_namespace(spec, Kind::User, Some(&path)));
    assert_eq!(joined.facts().get("ns.user"), user, "by its path");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// The pid in the guest of the only process of that name that is not the one that looks.
fn pid_of(vm: &Vm, name: &str) -> u32 {
    let view = vm.guest_view();
    let of = |process: &&str| process.strip_suffix(&format!(" {name}")).is_some();
    let first = view.all("process").into_iter().find(of).expect("a process of that name");
    first.split(' ').next().unwrap().parse().unwrap()
}

/// Mappings that the kernel does not take, or half of them, are refused and never others instead (CVE-2021-43784).
#[test]
fn wrong_mappings_are_refused_by_name() {
    let vm = Vm::boot(&VmConfig::default());
    let mapping = |inside: u32, outside: u32, size: u32| {
        let builder = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside);
        builder.size(size).build().unwrap()
    };
    let many: Vec<LinuxIdMapping> = (0..10_000).map(|id| mapping(id, id, 1)).collect();
    for (uids, why) in [
        (Some(many), "linux.uidMappings: 10000 entries"),
        (
            Some(vec![mapping(0, FIRST, 10), mapping(5, 5, 1)]),
            "linux.uidMappings: [1]: 5 5 1 overlaps",
        ),
        (Some(vec![mapping(0, FIRST, 0)]), "linux.uidMappings: [0]: 0 100000 0 is no range"),
        (None, "linux.uidMappings: empty"),
        (Some(vec![mapping(1, FIRST, 10)]), "uid 0: not mapped"),
    ] {
        let err = vm.try_create("web", &Run::shell("id"), |spec| {
            map_ids(spec, FIRST);
            let mut linux = spec.linux().clone().unwrap();
            linux.set_uid_mappings(uids);
            spec.set_linux(Some(linux));
        });
        let err = err.expect_err(why);
        assert!(err.to_string().contains(why), "{err}");
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
    }
    let storage = Storage { options: vec!["X-mount.idmap=b:0:1".to_owned()], ..overlay() };
    let err = vm.try_create("web", &Run::shell("id").storage(storage), |_| {}).unwrap_err();
    assert!(err.to_string().contains("b:0:1"), "{err}");
    vm.shutdown();
}

fn overlay() -> Storage {
    let mount_point = "/run/kata-containers/more/rootfs".to_owned();
    Storage { driver: "overlayfs".to_owned(), mount_point, ..Storage::default() }
}

/// A pids limit of one is for the container's own process, not for what sets it up.
#[test]
fn one_process_is_enough() {
    let vm = Vm::boot(&VmConfig::default());
    let run = Run::probe(["view"]).ids(FIRST);
    let said: Running<'_> = vm.start_with("web", &run, |spec| {
        harness::edit::put(spec, "/linux/resources", serde_json::json!({ "pids": { "limit": 1 } }));
    });
    let view = said.finish().facts();
    assert_eq!(view.get("cgroup.pids.max"), "1");
    said.remove();
    vm.shutdown();
}

/// Mounts that shall be shared are, though their copies in a less privileged namespace would not be.
#[test]
fn shared_mounts_stay_shared() {
    let vm = Vm::boot(&VmConfig::default());
    let look = "awk '$5 == \"/\" || $5 == \"/dev/shm\" { print $7 }' /proc/self/mountinfo";
    let kinds = |propagation: &str, option: &str| {
        let said = script(&vm, look, |spec| {
            let shm = spec.mounts().iter().flatten().position(|m| m.destination() == "/dev/shm");
            let options = format!("/mounts/{}/options", shm.unwrap());
            harness::edit::put(spec, "/linux/rootfsPropagation", propagation.into());
            harness::edit::push(spec, &options, option.into());
        });
        said.stdout().lines().map(|line| line.starts_with("shared:")).collect::<Vec<_>>()
    };
    assert_eq!(kinds("shared", "shared"), [true, true]);
    assert_eq!(kinds("private", "private"), [false, false]);
    vm.shutdown();
}
