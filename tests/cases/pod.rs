//! Several containers in one pod, as `hyperctl run --pod` makes them.

use harness::command::{Place, until};
use harness::guest;
use harness::terminal::Session;
use serde_json::Value;
use std::fs;

/// A pod in the background whose first container does what the script says.
fn pod(place: &Place, flags: &[&str], script: &str) {
    let words = [&["run", "-d", "--name", "web"], flags, &["busybox", "sh", "-c", script]].concat();
    place.run_words(&words).ok();
}

const IDLE: &str = "hostname > /own; sleep 1000";

/// An image that is not the pod's: busybox under another file, which is all that a pod knows of an image.
fn other_image(place: &Place, name: &str) -> String {
    for end in ["erofs", "json"] {
        let from = guest::file(&format!("images/busybox.{end}"));
        fs::copy(from, place.path(&format!("{name}.{end}"))).unwrap();
    }
    place.path(&format!("{name}.erofs")).display().to_string()
}

/// Two containers of a pod share its network and host name; each has its own root, mounts and processes.
#[test]
fn containers_of_a_pod_share_what_pods_share() {
    let place = Place::new();
    pod(&place, &[], IDLE);
    let ns = "for n in net ipc uts mnt pid cgroup; do readlink /proc/self/ns/$n; done; hostname";
    let first = place.run(["exec", "web", "sh", "-c", ns]);
    let second = place.run(["run", "--rm", "--pod", "web", "busybox", "sh", "-c", ns]);
    let (first, second): (Vec<_>, Vec<_>) =
        (first.ok().lines().collect(), second.ok().lines().collect());
    assert_eq!(first[..3], second[..3], "network, ipc and host name are the pod's");
    for (one, other) in first[3..6].iter().zip(&second[3..6]) {
        assert_ne!(one, other, "mounts, processes and cgroup are the container's own");
    }
    assert_eq!(first[6], second[6]);
    let own = place.run([
        "run",
        "--rm",
        "--pod",
        "web",
        "busybox",
        "sh",
        "-c",
        "ls /own; ps > /ps; wc -l < /ps",
    ]);
    assert!(own.stderr.contains("/own") && own.stdout.trim() == "3", "{own:?}");
    let talk = "nc -lp 5000 -e echo from the first";
    let listener = place.run(["exec", "web", "sh", "-c", &format!("{talk} >/dev/null 2>&1 &")]);
    listener.ok();
    let heard =
        "for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 5000 </dev/null && break; sleep 0.2; done";
    let heard = place.run(["run", "--rm", "--pod", "web", "busybox", "sh", "-c", heard]);
    assert_eq!(heard.stdout, "from the first\n", "{heard:?}");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// With --share-pid the containers of a pod see each other's processes, whoever their users are; without, only their own.
#[test]
fn processes_are_shared_where_the_pod_says_so() {
    let place = Place::new();
    let names = "for p in /proc/[0-9]*; do cat $p/comm; done; readlink /proc/self/ns/pid";
    for (shares, flags) in
        [(true, &["--share-pid"][..]), (true, &["--share-pid", "--userns=private"]), (false, &[])]
    {
        pod(&place, flags, "exec sleep 1000");
        let first = place.run(["exec", "web", "sh", "-c", names]);
        for mode in ["--userns=host", "--userns=private"] {
            let words = ["run", "--rm", "--pod", "web", mode, "busybox", "sh", "-c", names];
            let second = place.run(words);
            let sees = second.ok().lines().any(|line| line == "sleep");
            assert_eq!(sees, shares, "{flags:?} {mode} {second:?}");
            let same = first.ok().lines().last() == second.stdout.lines().last();
            assert_eq!(same, shares, "{flags:?} {mode} {first:?} {second:?}");
        }
        place.run(["rm", "-f", "web"]).ok();
    }
    place.assert_nothing_left();
}

/// A further container has its own exit code, streams, input, log, record and name; commands find it by POD/NAME.
#[test]
fn further_container_is_a_container_of_its_own() {
    let place = Place::new();
    pod(&place, &[], "echo first; sleep 1000");
    let script = "cat; echo err >&2; exit 7";
    let said = place.run_with_input(
        ["run", "-i", "--pod", "web", "--name", "side", "busybox", "sh", "-c", script],
        b"in\n",
    );
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "in\n", "err\n"));
    let bg = ["run", "-d", "--pod", "web", "--name", "bg", "busybox", "sh", "-c"];
    let words =
        [&bg[..], &["trap 'exit 3' TERM; echo second; while :; do sleep 0.1; done"]].concat();
    place.run_words(&words).ok();
    until("the log", || place.run(["logs", "web/bg"]).ok() == "second\n");
    assert_eq!(place.run(["logs", "-c", "bg", "web"]).ok(), "second\n");
    assert_eq!(place.run(["logs", "web"]).ok(), "first\n");
    assert_eq!(place.run(["logs", "web/side"]).ok(), "in\n");
    assert_eq!(place.run(["exec", "--container", "bg", "web", "sh", "-c", "exit 9"]).code, 9);
    let listed = place.run(["ps", "-a"]);
    assert!(listed.ok().contains("web/bg") && listed.stdout.contains("Exited (7)"), "{listed:?}");
    let inspected: Value = serde_json::from_str(place.run(["inspect", "web/bg"]).ok()).unwrap();
    assert_eq!(
        (&inspected[0]["pod"], &inspected[0]["state"]["status"]),
        (&"web".into(), &"running".into())
    );
    let taken = place.run(["run", "--pod", "web", "--name", "bg", "busybox", "true"]);
    assert!(taken.code == 125 && taken.stderr.contains("\"bg\""), "{taken:?}");
    place.run(["stop", "web/bg"]).ok();
    assert!(place.run(["ps", "-a"]).ok().contains("Exited (3)"));
    place.run(["rm", "web/bg", "web/side"]).ok();
    assert!(place.run(["ps"]).ok().contains("web "), "the pod goes on");
    let missing = place.run(["run", "--rm", "--pod", "web", "busybox", "no-such-command"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    let mut terminal = Session::start(
        &place.command(["run", "-it", "--rm", "--pod", "web", "busybox", "sh"]),
        70,
        20,
    );
    terminal.shows("# ");
    terminal.types("stty size; exit 4\r");
    terminal.shows("20 70");
    assert_eq!(terminal.wait(), 4);
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// A pod ends with its first container: the further ones are asked to stop and have their say, on every transport.
#[test]
fn pod_ends_with_its_first_container() {
    for transport in ["serial", "vhost-user-vsock"] {
        let place = Place::new();
        pod(&place, &["--transport", transport], "while [ ! -e /go ]; do sleep 0.1; done; exit 6");
        let script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
        let words = ["run", "-d", "--pod", "web", "--name", "side", "busybox", "sh", "-c", script];
        place.run(words).ok();
        until("ready", || place.run(["logs", "web/side"]).ok().contains("ready"));
        place.run(["exec", "web", "touch", "/go"]).ok();
        until("it is over", || !place.run(["ps"]).ok().contains("web"));
        let listed = place.run(["ps", "-a"]);
        assert!(
            listed.ok().contains("Exited (6)") && listed.stdout.contains("Exited (9)"),
            "{listed:?}"
        );
        assert!(place.run(["logs", "web/side"]).ok().contains("bye"));
        let late = place.run(["run", "--pod", "web", "busybox", "true"]);
        assert!(late.code == 125 && late.stderr.contains("has exited"), "{late:?}");
        place.run(["rm", "web"]).ok();
        place.assert_nothing_left();
    }
}

/// Another image is plugged into a running pod on the boards that can, used by two at a time, let go, and its slot is used
/// again.
#[test]
fn another_image_is_plugged_in() {
    for board in ["q35", "pc"] {
        let place = Place::new();
        let (one, two) = (other_image(&place, "one"), other_image(&place, "two"));
        pod(&place, &["--machine", board, "--slots", "1"], IDLE);
        let run =
            |image: &str| place.run(["run", "--rm", "--pod", "web", image, "echo", "plugged"]);
        assert_eq!(run(&one).ok(), "plugged\n");
        assert_eq!(run(&two).ok(), "plugged\n", "in the slot of the one before");
        place.run(["run", "-d", "--pod", "web", "--name", "bg", &one, "sleep", "1000"]).ok();
        assert_eq!(run(&one).ok(), "plugged\n", "on the same disk");
        let full = run(&two);
        assert!(full.code == 125 && full.stderr.contains("no free slot"), "{full:?}");
        place.run(["exec", "web/bg", "true"]).ok();
        place.run(["rm", "-f", "web/bg"]).ok();
        assert_eq!(run(&two).ok(), "plugged\n");
        place.run(["rm", "-f", "web"]).ok();
        place.assert_nothing_left();
    }
}

/// A microvm takes no image later, and says what to do; one that was attached from the start can be run.
#[test]
fn microvm_runs_the_images_that_it_was_started_with() {
    let place = Place::new();
    let (one, two) = (other_image(&place, "one"), other_image(&place, "two"));
    pod(&place, &["--attach-image", &one], IDLE);
    let run = |image: &str| place.run(["run", "--rm", "--pod", "web", image, "echo", "there"]);
    assert_eq!(run("busybox").ok(), "there\n");
    assert_eq!(run(&one).ok(), "there\n");
    let refused = run(&two);
    assert!(refused.code == 125 && refused.stderr.contains("--attach-image"), "{refused:?}");
    assert!(refused.stderr.contains("--machine q35 --slots"), "{refused:?}");
    let bundle = place.run(["run", "--pod", "web", "--bundle", "/nonexistent"]);
    assert!(bundle.code == 125 && bundle.stderr.contains("--bundle"), "{bundle:?}");
    let machine = place.run(["run", "--pod", "web", "--vm-memory", "99", "busybox", "true"]);
    assert!(machine.code == 125 && machine.stderr.contains("--vm-memory"), "{machine:?}");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// Limits, capabilities and devices are each container's own.
#[test]
fn flags_are_the_further_containers_own() {
    let place = Place::new();
    pod(&place, &["--pids-limit", "50"], IDLE);
    let look = "cat /sys/fs/cgroup/pids.max; grep CapEff /proc/self/status";
    let flags = ["run", "--rm", "--pod", "web", "--pids-limit", "9", "--cap-drop", "ALL"];
    let said = place.run_words(&[&flags[..], &["busybox", "sh", "-c", look]].concat());
    assert_eq!(said.ok(), "9\nCapEff:\t0000000000000000\n");
    let first = place.run(["exec", "web", "sh", "-c", look]);
    assert_eq!(first.ok(), "50\nCapEff:\t00000000a80425fb\n");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}
