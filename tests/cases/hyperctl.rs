//! `hyperctl` as a person who knows docker uses it.

use harness::command::{self, Place, until};
use harness::guest;
use harness::terminal::Session;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A pod in the background that sleeps, stopped and removed by the test itself.
fn sleeping_pod(place: &Place, name: &str) {
    let id = place.run(["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    assert!(id.ok().trim().len() == 12 && id.stderr.is_empty(), "{id:?}");
}

fn remove_pod(place: &Place, name: &str) {
    place.run(["rm", "-f", name]).ok();
    place.assert_nothing_left();
}

/// The first command of the README prints helloworld, and nothing of its VM stays.
#[test]
fn run_prints_helloworld() {
    let place = Place::new();
    let said = place.run(["run", "-t", "--rm", "busybox", "echo", "helloworld"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "helloworld\r\n", ""));
    place.assert_nothing_left();
}

/// The container's exit code is hyperctl's, its streams are hyperctl's, and its input comes by -i.
#[test]
fn run_is_transparent() {
    let place = Place::new();
    let script = "cat; echo err >&2; exit 7";
    let said = place.run_with_input(["run", "-i", "--rm", "busybox", "sh", "-c", script], b"in\n");
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "in\n", "err\n"));
    place.assert_nothing_left();
}

/// What cannot be executed is 127 or 126, as docker has it, and 125 is ours; each with a reason.
#[test]
fn run_tells_failures_apart_by_code() {
    let place = Place::new();
    let missing = place.run(["run", "--rm", "busybox", "no-such-command"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (127, ""));
    assert!(missing.stderr.contains("no-such-command"), "{missing:?}");
    let forbidden = place.run(["run", "--rm", "busybox", "/etc/passwd"]);
    assert_eq!(forbidden.code, 126, "{forbidden:?}");
    let unknown = place.run(["run", "--rm", "no-such-image", "true"]);
    assert!(unknown.code == 125 && unknown.stderr.contains("no-such-image"), "{unknown:?}");
    place.assert_nothing_left();
}

/// Flags reach the container and the machine: environment, directory, user, memory, processors.
#[test]
fn flags_reach_the_container() {
    let place = Place::new();
    let script = "echo $A $B; pwd; id -u; nproc; head -1 /proc/meminfo";
    let said = place.run([
        "run",
        "--rm",
        "-e",
        "A=1",
        "-e",
        "B=two words",
        "-w",
        "/tmp",
        "-u",
        "nobody",
        "--vm-memory",
        "100",
        "--vm-cpus",
        "2",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let lines: Vec<&str> = said.ok().lines().collect();
    assert_eq!(lines[..4], ["1 two words", "/tmp", "65534", "2"]);
    let kib: u64 = lines[4].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((70_000..102_400).contains(&kib), "{kib} KiB of 100 MiB");
    place.assert_nothing_left();
}

/// Both boot modes and both transports serve a run.
#[test]
fn run_works_in_every_boot_mode() {
    let place = Place::new();
    for (boot, transport) in [
        ("initrd", "serial"),
        ("dax", "serial"),
        ("initrd", "vhost-user-vsock"),
        ("dax", "vhost-user-vsock"),
    ] {
        let words =
            ["run", "--rm", "--boot", boot, "--transport", transport, "busybox", "echo", boot];
        assert_eq!(place.run(words).ok(), format!("{boot}\n"));
    }
    place.assert_nothing_left();
}

/// A pod in the background outlives its command, and is executed in, listed, inspected, stopped and removed.
#[test]
fn pod_in_the_background_is_driven_as_dockers() {
    let place = Place::new();
    sleeping_pod(&place, "pod1");
    let kernel = fs::read_to_string(guest::workspace().join("kernel/VERSION")).unwrap();
    let uname = place.run(["exec", "-t", "pod1", "uname", "-r"]);
    let release = uname.ok().trim_end();
    assert!(
        release.starts_with("6.") && kernel.contains(release.split('-').next().unwrap()),
        "{release} {kernel}"
    );
    assert_eq!(place.run_with_input(["exec", "-i", "pod1", "cat"], b"hi\n").ok(), "hi\n");
    assert_eq!(place.run(["exec", "pod1", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(place.run(["exec", "pod1", "no-such-command"]).code, 127);
    let listed = place.run(["ps"]);
    assert!(
        listed.ok().contains("pod1")
            && listed.stdout.contains("Up")
            && listed.stdout.contains("busybox"),
        "{listed:?}"
    );
    let inspected: Value = serde_json::from_str(place.run(["inspect", "pod1"]).ok()).unwrap();
    assert_eq!(
        (&inspected[0]["name"], &inspected[0]["state"]["status"]),
        (&"pod1".into(), &"running".into())
    );
    assert_eq!(place.run(["stop", "-t", "1", "pod1"]).ok(), "pod1\n");
    assert_eq!(place.processes(), [], "a stopped pod runs nothing");
    assert!(
        !place.run(["ps"]).ok().contains("pod1") && place.run(["ps", "-a"]).ok().contains("Exited")
    );
    remove_pod(&place, "pod1");
}

/// What a pod in the background says is kept, apart, and followed; its exit ends the following.
#[test]
fn logs_are_kept_and_followed() {
    let place = Place::new();
    let script = "echo one; echo two >&2; sleep 2; echo three";
    place.run(["run", "-d", "--name", "talker", "busybox", "sh", "-c", script]).ok();
    let followed = place.run(["logs", "-f", "talker"]);
    assert_eq!((followed.ok(), followed.stderr.as_str()), ("one\nthree\n", "two\n"));
    let kept = place.run(["logs", "talker"]);
    assert_eq!((kept.ok(), kept.stderr.as_str()), ("one\nthree\n", "two\n"));
    remove_pod(&place, "talker");
}

/// kill sends any signal; a container that handles it goes on, and one that is killed is 137.
#[test]
fn kill_sends_signals() {
    let place = Place::new();
    let script = "trap 'echo caught' USR1; echo ready; while true; do sleep 0.1; done";
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    until("ready", || place.run(["logs", "web"]).ok().contains("ready"));
    place.run(["kill", "-s", "USR1", "web"]).ok();
    until("SIGUSR1 arrives", || place.run(["logs", "web"]).ok().contains("caught"));
    place.run(["kill", "web"]).ok();
    until("it is over", || place.run(["ps", "-a"]).ok().contains("Exited (137)"));
    remove_pod(&place, "web");
}

/// A boot receipt has the steps as a table and as a picture, also after the pod has ended.
#[test]
fn boot_receipt_is_a_table_and_a_picture() {
    let place = Place::new();
    place.run(["run", "--name", "web", "busybox", "true"]).ok();
    let svg = place.path("boot.svg");
    let table = place.run(["boot-receipt", "web", "--svg", svg.to_str().unwrap()]);
    for step in ["kernel", "init: mounts", "init: listen", "init: say ready", "connect"] {
        assert!(table.ok().contains(step), "{step} not in {}", table.stdout);
    }
    let picture = fs::read_to_string(svg).unwrap();
    assert!(
        picture.starts_with("<svg")
            && picture.trim_end().ends_with("</svg>")
            && picture.contains("ready"),
        "{picture}"
    );
    let console = place.run(["console", "web"]);
    assert!(console.ok().contains("init: "), "{console:?}");
    remove_pod(&place, "web");
}

/// The images that can be run are listed.
#[test]
fn images_are_listed() {
    let listed = Place::new().run(["images"]);
    assert!(listed.ok().contains("busybox"), "{listed:?}");
}

/// A name is taken while its pod exists.
#[test]
fn name_is_taken_once() {
    let place = Place::new();
    sleeping_pod(&place, "web");
    let again = place.run(["run", "--rm", "--name", "web", "busybox", "true"]);
    assert!(again.code == 125 && again.stderr.contains("web"), "{again:?}");
    let running = place.run(["rm", "web"]);
    assert!(running.code == 125 && running.stderr.contains("running"), "{running:?}");
    let unknown = place.run(["exec", "nobody", "true"]);
    assert!(unknown.code == 125 && unknown.stderr.contains("nobody"), "{unknown:?}");
    remove_pod(&place, "web");
}

/// What a pod keeps on disk is its owner's alone.
#[test]
fn state_is_private() {
    let place = Place::new();
    sleeping_pod(&place, "web");
    let pods = place.state().join("pods");
    assert_eq!(mode(&pods), 0o700);
    for pod in fs::read_dir(&pods).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        assert_eq!(mode(&pod.path()), 0o700, "{:?}", pod.path());
    }
    remove_pod(&place, "web");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A terminal is raw while the container has it, follows the window's size, and is as before afterwards.
#[test]
fn terminal_is_handed_over_and_back() {
    let place = Place::new();
    let mut session =
        Session::start(&place.command(["run", "-it", "--rm", "busybox", "sh"]), 90, 30);
    session.shows("# ");
    assert!(session.is_raw(), "keys are the container's");
    session.types("stty size\r");
    session.shows("30 90");
    session.resize(111, 44);
    session.types("sleep 1; stty size\r");
    session.shows("44 111");
    session.types("sh -c 'echo go\"\"ing; sleep 100'\r");
    session.shows("going"); // only then is Ctrl-C a signal and not a key of the shell's own line
    session.types("\x03");
    session.shows("^C");
    session.types("exit 5\r");
    assert_eq!(session.wait(), 5);
    assert!(!session.is_raw(), "the terminal is as before");
    place.assert_nothing_left();
}

/// exec -it is a terminal of its own in a pod that has none, and its end is not the pod's.
#[test]
fn exec_has_a_terminal_of_its_own() {
    let place = Place::new();
    sleeping_pod(&place, "web");
    let mut session = Session::start(&place.command(["exec", "-it", "web", "sh"]), 70, 20);
    session.shows("# ");
    session.types("stty size; tty\r");
    session.shows("20 70");
    session.shows("/dev/pts/");
    session.shows("# ");
    session.types("\x04");
    assert_eq!(session.wait(), 0, "Ctrl-D is the end of a shell");
    assert!(place.run(["ps"]).ok().contains("web"));
    remove_pod(&place, "web");
}

/// stop asks, waits as long as it is told to, and then kills.
#[test]
fn stop_kills_after_the_grace_period() {
    let place = Place::new();
    let script = "trap 'echo no' TERM; echo ready; while true; do sleep 0.1; done";
    place.run(["run", "-d", "--name", "stubborn", "busybox", "sh", "-c", script]).ok();
    until("ready", || place.run(["logs", "stubborn"]).ok().contains("ready"));
    place.run(["stop", "-t", "1", "stubborn"]).ok();
    assert!(place.run(["logs", "stubborn"]).ok().contains("no"), "it was asked first");
    assert!(place.run(["ps", "-a"]).ok().contains("Exited (137)"));
    place.run(["rm", "--exited"]).ok();
    place.assert_nothing_left();
}

/// -t without a terminal at the other end is an error for -i, as with docker, and no broken terminal.
#[test]
fn interactive_terminal_needs_a_terminal() {
    let said = Place::new().run(["run", "-it", "--rm", "busybox", "true"]);
    assert!(said.code == 125 && said.stderr.contains("terminal"), "{said:?}");
}

/// Ctrl-C without a terminal of the container's is SIGINT for it.
#[test]
fn interrupt_goes_to_the_container() {
    let place = Place::new();
    let script = "trap 'echo bye; exit 33' INT; echo ready; while true; do sleep 0.1; done";
    let mut session =
        Session::start(&place.command(["run", "--rm", "busybox", "sh", "-c", script]), 80, 24);
    session.shows("ready");
    session.types("\x03");
    session.shows("bye");
    assert_eq!(session.wait(), 33);
    place.assert_nothing_left();
}

/// An OCI bundle runs with the words of its config.json, and writes into its own rootfs.
#[test]
fn bundle_runs_by_its_config() {
    let place = Place::new();
    let bundle = busybox_bundle(
        &place,
        &[
            "sh",
            "-c",
            "hostname; echo \"$GREETING\"; echo written > /out; id -u; ls /proc/1/ns | wc -l",
        ],
    );
    let said = place.run(["run", "--rm", "--bundle", bundle.to_str().unwrap()]);
    assert_eq!(said.ok(), "from-a-bundle\nhello bundle\n0\n10\n");
    assert_eq!(fs::read_to_string(bundle.join("rootfs/out")).unwrap(), "written\n");
    let replaced = place.run(["run", "--rm", "--bundle", bundle.to_str().unwrap(), "cat", "/out"]);
    assert_eq!(replaced.ok(), "written\n");
    place.assert_nothing_left();
}

/// What a bundle asks for and this guest does not honour is refused by its field, before anything runs.
#[test]
fn bundle_field_that_is_not_honoured_is_refused_by_name() {
    let place = Place::new();
    let bundle = busybox_bundle(&place, &["true"]);
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["linux"]["seccomp"] = serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"});
    fs::write(&path, config.to_string()).unwrap();
    let said = place.run(["run", "--rm", "--bundle", bundle.to_str().unwrap()]);
    assert!(said.code == 125 && said.stderr.contains("seccomp"), "{said:?}");
    place.assert_nothing_left();
}

/// A bundle whose config.json has what `runc spec` writes, and busybox with its applets as a rootfs.
pub fn busybox_bundle(place: &Place, words: &[&str]) -> std::path::PathBuf {
    let bundle = place.path("bundle");
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).unwrap();
    for directory in ["dev", "proc", "sys", "tmp", "etc"] {
        fs::create_dir(bundle.join("rootfs").join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", bin.join("busybox"))
        .expect("copy /bin/busybox (apt install busybox-static)");
    for applet in ["sh", "cat", "id", "ls", "wc", "hostname", "true"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let mut config: Value = serde_json::from_str(include_str!("bundle/config.json")).unwrap();
    config["process"]["args"] = words.into();
    fs::write(bundle.join("config.json"), serde_json::to_string_pretty(&config).unwrap()).unwrap();
    bundle
}

/// `make run`'s own line, as the Makefile has it, is covered by running the binary; its help names every command.
#[test]
fn help_names_every_command() {
    let help = Place::new().run(["--help"]);
    for word in [
        "run",
        "exec",
        "ps",
        "logs",
        "kill",
        "stop",
        "rm",
        "inspect",
        "console",
        "boot-receipt",
        "image ",
        "images",
        "attach",
        "wait",
        "pause",
        "unpause",
        "update",
        "stats",
        "top",
        "events",
    ] {
        assert!(
            help.ok().lines().any(|line| line.trim_start().starts_with(word)),
            "{word} not in {}",
            help.stdout
        );
    }
    let wrong = command::finish(Place::new().command(["run", "--no-such-flag", "busybox"]), b"");
    assert!(wrong.code != 0 && wrong.stderr.contains("--no-such-flag"), "{wrong:?}");
}
