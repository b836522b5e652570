//! What `hyperctl run`'s flags say of a container, seen from inside; for each the same look without the flag.

use harness::command::Place;

/// Runs a script in busybox with these flags, to its end.
fn script(place: &Place, flags: &[&str], script: &str) -> harness::command::Said {
    let words = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
    place.run_words(&words)
}

/// --memory, --cpus, --pids-limit and --ulimit bound the container, and the VM is made to fit.
#[test]
fn limits_are_the_containers_own() {
    let place = Place::new();
    let look = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; ulimit -n; ulimit -Hn; nproc;
        head -1 /proc/meminfo";
    let flags =
        ["--memory", "30m", "--cpus", "1.5", "--pids-limit", "20", "--ulimit", "nofile=64:99"];
    let said = script(&place, &flags, look);
    let lines: Vec<&str> = said.ok().lines().collect();
    assert_eq!(lines[..6], ["31457280", "150000 100000", "20", "64", "99", "2"]);
    let kib: u64 = lines[6].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((70_000..94 << 10).contains(&kib), "{kib} KiB of 64 + 30 MiB");
    let said = script(&place, &[], look);
    let lines: Vec<&str> = said.ok().lines().collect();
    assert_eq!((lines[0], lines[1], lines[2]), ("max", "max 100000", "max"));
    assert!(lines[3] != "64" && lines[5] == "1", "{lines:?}");
    place.assert_nothing_left();
}

/// A container that takes more memory than it may is killed, and one that may have it is not.
#[test]
fn memory_limit_is_enforced() {
    let place = Place::new();
    let eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null && echo had";
    let flags = |size| ["--memory", size, "--vm-memory", "128"];
    let killed = script(&place, &flags("12m"), eat);
    assert!(killed.code == 137 && killed.stdout.is_empty(), "{killed:?}");
    assert_eq!(script(&place, &flags("40m"), eat).ok(), "had\n");
    place.assert_nothing_left();
}

/// --cap-add and --cap-drop change Docker's set, by the numbers that the kernel shows and by what then works.
#[test]
fn capabilities_are_added_and_dropped() {
    let place = Place::new();
    let look = "grep CapBnd /proc/self/status; grep CapEff /proc/self/status; touch /x; chown 1 /x";
    let sets = |mask: &str| format!("CapBnd:\t{mask}\nCapEff:\t{mask}\n");
    for (flags, mask, chown_works) in [
        (&[][..], "00000000a80425fb", true),
        (&["--cap-add", "SYS_TIME", "--cap-drop", "CAP_CHOWN"], "00000000aa0425fa", false),
        (&["--cap-drop", "ALL", "--cap-add", "chown"], "0000000000000001", true),
        (&["--cap-add", "ALL", "--cap-drop", "KILL"], "000001ffffffffdf", true),
    ] {
        let said = script(&place, flags, look);
        assert_eq!(
            (said.code == 0, &said.stdout),
            (chown_works, &sets(mask)),
            "{flags:?} {said:?}"
        );
    }
    let unknown = script(&place, &["--cap-add", "SYS_NOPE"], "true");
    assert!(unknown.code == 125 && unknown.stderr.contains("SYS_NOPE"), "{unknown:?}");
    place.assert_nothing_left();
}

/// --device gives a device of the guest by its name, to be used as it says and not otherwise.
#[test]
fn device_of_the_guest_is_given_by_name() {
    let place = Place::new();
    let look = "ls -l /dev/fuse | cut -c1,32-38; : < /dev/fuse && echo readable; : > /dev/fuse";
    let said = script(&place, &["--device", "/dev/fuse:r"], look);
    assert!(said.code != 0 && said.stdout.contains("readable"), "{said:?}");
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
    let both = "stat -c '%F %t %T' /dev/fuse /dev/disk /dev/net/tun; : <> /dev/fuse && echo fuse;
        dd if=/dev/disk bs=1 skip=1024 count=4 2>/dev/null | hexdump -C | head -1";
    let flags =
        ["--device", "/dev/fuse", "--device", "/dev/vda:/dev/disk:r", "--device", "/dev/net"];
    let said = script(&place, &flags, both);
    let lines: Vec<&str> = said.ok().lines().collect();
    assert_eq!(
        lines[..4],
        [
            "character special file a e5",
            "block special file fe 0",
            "character special file a c8",
            "fuse"
        ]
    );
    assert!(lines[4].contains("e2 e1 f5 e0"), "EROFS's magic number: {lines:?}");
    let without = script(&place, &[], "ls /dev/fuse || mknod /dev/fuse c 10 229");
    assert!(without.code != 0 && without.stderr.contains("Operation not permitted"), "{without:?}");
    let missing = script(&place, &["--device", "/dev/nope"], "true");
    assert!(missing.code == 125 && missing.stderr.contains("\"/dev/nope\""), "{missing:?}");
    let no_device = script(&place, &["--device", "/dev/shm/../../etc"], "true");
    assert!(no_device.code == 125 && no_device.stderr.contains("not below /dev"), "{no_device:?}");
    place.assert_nothing_left();
}

/// --read-only, --tmpfs, --shm-size and --hostname make the place that they say.
#[test]
fn file_system_and_name_are_as_said() {
    let place = Place::new();
    let look = "hostname; touch /x && echo writable; touch /t/x && echo memory;
        grep ' /t ' /proc/mounts | cut -d' ' -f4; df -k /dev/shm | tail -1 | awk '{print $2}'";
    let flags = [
        "--read-only",
        "--tmpfs",
        "/t:size=1m,exec",
        "--shm-size",
        "2m",
        "--hostname",
        "web.example",
    ];
    let said = script(&place, &flags, look);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("web.example", "memory", "2048"), "{said:?}");
    let options: Vec<&str> = lines[2].split(',').collect();
    assert!(options.contains(&"nosuid") && options.contains(&"size=1024k"), "{options:?}");
    assert!(!options.contains(&"noexec"), "{options:?}");
    let without = script(&place, &[], look);
    assert!(
        without.stdout.contains("writable") && !without.stdout.contains("memory"),
        "{without:?}"
    );
    place.assert_nothing_left();
}

/// --sysctl sets what belongs to the container's namespaces, and what is the whole guest's is refused by name.
#[test]
fn kernel_parameters_of_the_container_are_set() {
    let place = Place::new();
    let flags = ["--sysctl", "kernel.msgmax=4321", "--sysctl", "fs.mqueue.msg_max=7"];
    let look = "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max";
    assert_eq!(script(&place, &flags, look).ok(), "4321\n7\n");
    assert_ne!(script(&place, &[], look).ok(), "4321\n7\n");
    let whole = script(&place, &["--sysctl", "kernel.core_pattern=|/x"], "true");
    assert!(whole.code == 125 && whole.stderr.contains("kernel.core_pattern"), "{whole:?}");
    place.assert_nothing_left();
}

/// --privileged gives all that the VM has; an ordinary container has none of it.
#[test]
fn privileged_is_everything_in_its_vm() {
    let place = Place::new();
    let look = "grep CapEff /proc/self/status; mount -t tmpfs x /mnt && echo mount;
        mkdir /sys/fs/cgroup/x && echo cgroup; echo 1 > /proc/sys/vm/drop_caches && echo sysctl;
        dd if=/dev/vda of=/dev/null bs=512 count=1 2>/dev/null && echo disk;
        mknod /tmp/k c 1 11 && : < /tmp/k && echo kmsg";
    let said = script(&place, &["--privileged"], look);
    let all = "CapEff:\t000001ffffffffff\nmount\ncgroup\nsysctl\ndisk\nkmsg\n";
    assert_eq!(said.stdout, all, "{said:?}");
    let ordinary = script(&place, &[], look);
    assert_eq!(ordinary.stdout, "CapEff:\t00000000a80425fb\n", "{ordinary:?}");
    place.assert_nothing_left();
}

/// --init is process 1: it passes signals on, reaps orphans, and ends with the program's code; without it the program is.
#[test]
fn an_init_is_process_1_and_reaps() {
    let place = Place::new();
    // The shell becomes a program that reaps nothing: its child's child stays a zombie unless another is its parent.
    let look = "echo $$ $(cat /proc/1/comm); (sleep 0.2 & exec sleep 0.1); exec awk 'BEGIN {
        system(\"sleep 1; for p in /proc/[0-9]*; do cut -d\\\" \\\" -f3 $p/stat; done | grep -c Z\"); exit 42 }'";
    let with = script(&place, &["--init"], look);
    assert_eq!((with.code, with.stdout.lines().last()), (42, Some("0")), "{with:?}");
    assert!(!with.stdout.starts_with("1 ") && with.stdout.contains(" init\n"), "{with:?}");
    let without = script(&place, &[], look);
    assert_eq!((without.code, without.stdout.lines().last()), (42, Some("1")), "{without:?}");
    assert!(without.stdout.starts_with("1 sh\n"), "{without:?}");
    place.run(["run", "-d", "--init", "--name", "web", "busybox", "sleep", "1000"]).ok();
    place.run(["kill", "--signal", "TERM", "web"]).ok();
    harness::command::until("it has ended", || {
        place.run(["ps", "-a"]).ok().contains("Exited (143)")
    });
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// In a user namespace root is nobody in the guest; what the flags say works in it as it does outside.
#[test]
fn flags_work_in_a_user_namespace() {
    let place = Place::new();
    let map = "cat /proc/self/uid_map";
    let words = |said: &str| said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(script(&place, &["--userns=private"], map).ok()), "0 100000 65536");
    assert_eq!(words(script(&place, &["--userns=host"], map).ok()), "0 0 4294967295");
    assert_eq!(words(script(&place, &["--privileged"], map).ok()), "0 0 4294967295");
    let look = "id -u; stat -c %u:%g / /bin/busybox /t /dev/fuse; touch /t/x && echo memory; touch /x || echo read-only;
        cat /proc/sys/kernel/msgmax; ping -c 1 127.0.0.1 > /dev/null 2>&1 || echo no ping; timeout 1 nc -lp 80 2>&1 | grep -c Permission; : < /dev/fuse && echo fuse;
        hostname; mount -t tmpfs x /t && echo mount; tty; cat /proc/1/comm; cat /sys/fs/cgroup/pids.max";
    let flags = [
        "-t",
        "--userns=private",
        "--read-only",
        "--tmpfs",
        "/t",
        "--device",
        "/dev/fuse",
        "--sysctl",
        "kernel.msgmax=4321",
        "--cap-add",
        "SYS_ADMIN",
        "--hostname",
        "web",
        "--init",
        "--pids-limit",
        "30",
    ];
    let said = script(&place, &flags, look);
    let text = said.ok().replace('\r', "");
    for line in [
        "0",
        "memory",
        "read-only",
        "4321",
        "no ping",
        "1",
        "fuse",
        "web",
        "mount",
        "/dev/pts/0",
        "init",
        "30",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}: {said:?}");
    }
    assert_eq!(text.lines().filter(|line| *line == "0:0").count(), 4, "{said:?}");
    // The network is the pod's, and no capability of a mapped container's reaches it.
    script(&place, &["--userns=host"], "ping -c 1 127.0.0.1").ok();
    let user = script(
        &place,
        &["--userns=private", "-u", "1000:1001"],
        "id -u; id -g; touch /tmp/x; stat -c %u /tmp/x",
    );
    assert_eq!(user.ok(), "1000\n1001\n1000\n");
    let run = ["run", "-d", "--userns=private", "--name", "web", "busybox", "sleep", "1000"];
    place.run(run).ok();
    assert_eq!(
        words(place.run(["exec", "web", "cat", "/proc/self/uid_map"]).ok()),
        "0 100000 65536"
    );
    assert_eq!(place.run(["exec", "-t", "web", "tty"]).ok().trim(), "/dev/pts/0");
    let pod = |mode| place.run(["run", "--rm", "--pod", "web", mode, "busybox", "sh", "-c", map]);
    assert_eq!(words(pod("--userns=private").ok()), "0 100000 65536");
    assert_eq!(words(pod("--userns=host").ok()), "0 0 4294967295");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// --security-opt: the default profile, one of a file in docker's form, none; and no_new_privs, seen by the kernel's word.
#[test]
fn security_options_confine_or_do_not() {
    let place = Place::new();
    let file = place.path("profile.json");
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] }],
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "excludes": { "caps": ["CAP_SYS_TIME"] } },
            { "names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "includes": { "arches": ["arm64"] } }
        ] }"#;
    std::fs::write(&file, profile).unwrap();
    let own = format!("seccomp={}", file.display());
    let look = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\n' ' ';
        mkdir /d 2>/dev/null && rmdir /d && echo made; unshare -n true 2>/dev/null && echo unshared; true";
    for (flags, expected) in [
        (&[][..], "0 2 made\n"),
        (&["--security-opt", "seccomp=unconfined"], "0 0 made\n"),
        (&["--security-opt", "no-new-privileges"], "1 2 made\n"),
        (&["--security-opt", "no-new-privileges=false", "--security-opt", &own], "0 2 "),
        (&["--security-opt", &own, "--cap-add", "SYS_TIME"], "0 2 made\n"),
        (&["--cap-add", "SYS_ADMIN"], "0 2 made\nunshared\n"),
        (&["--privileged"], "0 0 made\nunshared\n"),
        (&["--privileged", "--security-opt", &own], "0 2 made\nunshared\n"),
    ] {
        assert_eq!(script(&place, flags, look).ok(), expected, "{flags:?}");
    }
    let wrong = script(&place, &["--security-opt", "seccomp=/nowhere"], "true");
    assert!(wrong.code == 125 && wrong.stderr.contains("/nowhere"), "{wrong:?}");
    place.assert_nothing_left();
}
