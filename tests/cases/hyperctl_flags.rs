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
