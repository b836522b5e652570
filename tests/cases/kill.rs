//! SIGKILL to hyperctl at any moment: to who is in front of a pod, to who hosts it, to who stands by for that. No output,
//! no exit code and no pod is lost.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::command::{Place, finish_started, start, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TRANSPORTS: [&str; 2] = ["vhost-user-vsock", "serial"];
/// Numbered lines on both streams, until there is a file /stop; how many there were is the last line of each.
const TALK: &str = "i=0; while [ ! -e /stop ]; do echo $i; echo $i >&2; i=$((i+1)); usleep 2000; done; \
                    echo last $i; echo last $i >&2; exit 7";

/// Xorshift: the same moments for the same seed, as far as a busy machine repeats anything.
struct Random(u64);

impl Random {
    #[expect(clippy::print_stdout, reason = "a failed test's seed")]
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let seed = u64::try_from(now & 0xffff_ffff).unwrap() | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pause(&mut self, most_milliseconds: u64) {
        sleep(Duration::from_millis(self.below(most_milliseconds)));
    }
}

/// The processes that host pods of this place: more than one only where there is more than one pod, or in the moment of
/// a change.
pub fn hosts(place: &Place) -> Vec<u32> {
    let is_host = |words: &str| {
        words.split(' ').nth(1) == Some("host") && !words.contains("hyperstart-guardian")
    };
    place.processes().into_iter().filter(|(_, words)| is_host(words)).map(|(pid, _)| pid).collect()
}

fn guardian(place: &Place) -> u32 {
    let processes = place.processes();
    let is_guardian = |(_, words): &&(u32, String)| words.contains("hyperstart-guardian");
    processes.iter().find(is_guardian).expect("a guardian").0
}

pub fn qemu(place: &Place) -> u32 {
    let processes = place.processes();
    let is_qemu = |(_, words): &&(u32, String)| words.contains("qemu-system");
    processes.iter().find(is_qemu).expect("a VM").0
}

/// False: it was gone already.
fn killed(pid: u32) -> bool {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).is_ok()
}

fn kill_host(place: &Place) {
    until("a host", || hosts(place).first().is_some_and(|pid| killed(*pid)));
}

fn in_front(place: &Place, words: &[&str]) -> Child {
    let mut command = place.command([]);
    start(command.args(words).stdin(Stdio::null()))
}

/// The exec may be cut off by the end that it brings about.
fn stop_talking(place: &Place, container: &str) {
    until("it stops", || {
        let said = place.run(["exec", container, "touch", "/stop"]);
        said.code == 0 || said.stderr.contains("has exited") || said.stderr.contains("no such pod")
    });
}

/// Every line once, in order, and the last one says how many there were.
fn assert_whole(stream: &str) {
    let mut lines: Vec<&str> = stream.lines().collect();
    let last = lines.pop().unwrap_or_default();
    assert_eq!(last, format!("last {}", lines.len()), "{} lines", lines.len());
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, number.to_string());
    }
}

/// Waits for the end; should it be another, everything that is known of it is said.
fn assert_exited(place: &Place, container: &str, code: i32) {
    let said = place.run(["wait", container]);
    let expected = format!("{code}\n");
    assert!(
        said.code == 0 && said.stdout == expected,
        "{container}: {said:#?}\n{:#?}\n{}",
        place.run(["inspect", container]),
        host_logs(place)
    );
}

/// What the hosts of each pod have said, and QEMU and the guest of a pod that has ended badly.
fn host_logs(place: &Place) -> String {
    let pods = fs::read_dir(place.state().join("pods")).into_iter().flatten().flatten();
    let logs = pods.flat_map(|pod| ["host.log", "qemu.log"].map(|log| pod.path().join(log)));
    logs.map(|log| format!("{log:?}: {}\n", fs::read_to_string(&log).unwrap_or_default())).collect()
}

fn assert_logged(place: &Place, container: &str) {
    let said = place.run(["logs", container]);
    assert_whole(said.ok());
    assert_whole(&said.stderr);
}

/// A hundred kills, of whoever is in front and of each that hosts, at random moments under output: the log has every
/// line once, the exit code is right, nothing is left.
#[test]
fn a_hundred_kills_lose_nothing() {
    const PODS: usize = 4;
    const HOSTS: usize = 24;
    let mut random = Random::new();
    for transport in TRANSPORTS.into_iter().cycle().take(PODS) {
        let place = Place::new();
        let words = ["run", "--name", "web", "--transport", transport, "busybox", "sh", "-c", TALK];
        let mut front = in_front(&place, &words);
        until("it talks", || place.run(["logs", "web"]).stdout.contains('5'));
        random.pause(200);
        front.kill().unwrap();
        front.wait().unwrap();
        for _ in 0..HOSTS {
            random.pause(300);
            kill_host(&place);
        }
        stop_talking(&place, "web");
        assert_exited(&place, "web", 7);
        assert_logged(&place, "web");
        assert!(place.run(["ps", "-a"]).ok().contains("Exited (7)"));
        place.run(["rm", "web"]).ok();
        place.assert_nothing_left();
    }
}

/// Who is in front misses nothing when hosts are killed behind it, also with --rm, which leaves no record: its streams
/// are whole and its exit code is the container's.
#[test]
fn the_front_sees_nothing_of_its_hosts_deaths() {
    let mut random = Random::new();
    for transport in TRANSPORTS {
        let place = Place::new();
        let words =
            ["run", "--rm", "--name", "web", "--transport", transport, "busybox", "sh", "-c", TALK];
        let front = in_front(&place, &words);
        until("it talks", || place.run(["logs", "web"]).stdout.contains('5'));
        for _ in 0..5 {
            random.pause(500);
            kill_host(&place);
        }
        stop_talking(&place, "web");
        let said = finish_started(front);
        assert_eq!(said.code, 7, "{said:?}");
        assert_whole(&said.stdout);
        assert_whole(&said.stderr);
        place.assert_nothing_left();
    }
}

/// A consumer that does not read stops the container, over the deaths of hosts, and then gets all of it; one that is
/// killed holds it no longer.
#[test]
fn a_slow_consumer_stops_the_container_and_misses_nothing() {
    const BYTES: usize = 1 << 20;
    let place = Place::new();
    let script = "head -c 1048576 /dev/zero; echo done > /done; exit 3";
    let words = ["run", "--name", "web", "busybox", "sh", "-c", script];
    let is_done = || place.run(["exec", "web", "test", "-e", "/done"]).code == 0;
    let front = in_front(&place, &words);
    until("it runs", || place.run(["ps"]).stdout.contains("Up"));
    for _ in 0..3 {
        sleep(Duration::from_millis(500));
        assert!(!is_done(), "nobody reads");
        kill_host(&place);
    }
    let (code, stdout, _) = harness::command::finish_bytes(front);
    assert_eq!((code, stdout.len()), (3, BYTES));
    place.run(["rm", "web"]).ok();

    let mut front = in_front(&place, &words);
    until("it runs", || place.run(["ps"]).stdout.contains("Up"));
    sleep(Duration::from_millis(500));
    front.kill().unwrap();
    front.wait().unwrap();
    assert_exited(&place, "web", 3);
    assert_eq!(place.run(["logs", "web"]).stdout.len(), BYTES);
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// A host that is killed while it boots leaves nothing, and who waits for it is told; who is killed waiting leaves the pod.
#[test]
fn killed_while_booting() {
    for milliseconds in [20, 150, 400, 800] {
        let place = Place::new();
        let front = in_front(&place, &["run", "busybox", "sleep", "1000"]);
        until("a host", || !hosts(&place).is_empty());
        sleep(Duration::from_millis(milliseconds));
        kill_host(&place);
        // On a machine that is faster than that it ran, and goes on.
        let begun = Instant::now();
        while !place.processes().is_empty() && begun.elapsed() < Duration::from_secs(300) {
            if place.run(["ps"]).stdout.contains("Up") {
                let id = place.run(["ps", "-q"]).ok().trim().to_owned();
                place.run(["rm", "-f", &id]).ok();
            }
        }
        let said = finish_started(front);
        assert!([125, 137].contains(&said.code), "{said:?}");
        place.assert_nothing_left();
    }
    let place = Place::new();
    let mut front = in_front(&place, &["run", "--name", "web", "busybox", "sleep", "1000"]);
    until("it boots", || place.run(["ps"]).stdout.contains("web")); // the order was given
    front.kill().unwrap();
    front.wait().unwrap();
    until("it runs all the same", || place.run(["ps"]).stdout.contains("Up"));
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// Who is killed while it connects harms nobody: a client of the vsock daemon that is gone before it said where to, or
/// before it was told that it is there.
#[test]
fn clients_that_are_gone_are_forgotten() {
    let place = Place::new();
    let words = ["run", "-d", "--name", "web", "--transport", "vhost-user-vsock"];
    place.run_words(&[&words[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let mut pods = fs::read_dir(place.state().join("pods")).unwrap().flatten();
    let socket = pods.next().unwrap().path().join("vm/vsock.sock");
    for round in 0..60 {
        let mut client = UnixStream::connect(&socket).unwrap();
        if round % 3 > 0 {
            client.write_all(b"CONNECT 1024\n").unwrap();
        }
        sleep(Duration::from_micros(300 * (round % 9)));
    }
    assert_eq!(place.run(["exec", "web", "echo", "there"]).ok(), "there\n");
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}

/// A guardian that is killed with its host is missed by the next command, which appoints another.
#[test]
fn a_killed_guardian_is_replaced() {
    let place = Place::new();
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", TALK]).ok();
    assert!(killed(guardian(&place)));
    kill_host(&place);
    until("both are gone", || hosts(&place).is_empty());
    assert!(place.run(["ps"]).ok().contains("web"), "the pod is still there");
    until("an heir", || hosts(&place).len() == 1);
    kill_host(&place);
    stop_talking(&place, "web");
    assert_exited(&place, "web", 7);
    assert_logged(&place, "web");
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// A host that is killed while its pod is stopped: it is stopped all the same, and its last words are kept.
#[test]
fn killed_while_stopping() {
    let script = "trap 'sleep 1; echo bye; exit 12' TERM; echo ready; while :; do sleep 0.1; done";
    for milliseconds in [300, 1200, 1500] {
        let place = Place::new();
        place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
        until("ready", || place.run(["logs", "web"]).stdout.contains("ready"));
        let stop = in_front(&place, &["stop", "-t", "20", "web"]);
        sleep(Duration::from_millis(milliseconds));
        for pid in hosts(&place) {
            killed(pid);
        }
        assert_eq!(finish_started(stop).code, 0);
        assert!(place.run(["ps", "-a"]).ok().contains("Exited (12)"));
        assert_eq!(place.run(["logs", "web"]).ok(), "ready\nbye\n");
        place.run(["rm", "web"]).ok();
        place.assert_nothing_left();
    }
}

/// A QEMU that is killed, its host before or after it: the pod is recorded as ended by an error, with what it had said.
#[test]
fn a_killed_qemu_is_recorded() {
    for host_too in [false, true] {
        let place = Place::new();
        let script = "echo ready; sleep 1000";
        place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
        until("ready", || place.run(["logs", "web"]).stdout.contains("ready"));
        let vm = qemu(&place);
        if host_too {
            kill_host(&place);
        }
        killed(vm);
        until("it is over", || place.run(["ps", "-a"]).stdout.contains("Exited (125)"));
        let inspected = place.run(["inspect", "web"]);
        assert!(inspected.ok().contains("qemu"), "{inspected:?}");
        assert_eq!(place.run(["logs", "web"]).ok(), "ready\n");
        place.run(["rm", "web"]).ok();
        place.assert_nothing_left();
    }
}

/// Further containers are their pod's host's: killed, it leaves them to its heir, and who asked for one may be killed too.
#[test]
fn further_containers_outlive_their_host() {
    for transport in TRANSPORTS {
        let place = Place::new();
        let idle =
            ["run", "-d", "--name", "web", "--transport", transport, "busybox", "sleep", "1000"];
        place.run_words(&idle).ok();
        place.run(["run", "-d", "--pod", "web", "--name", "bg", "busybox", "sh", "-c", TALK]).ok();
        let talk = ["run", "--pod", "web", "--name", "side", "busybox", "sh", "-c", TALK];
        let front = in_front(&place, &talk);
        let words = ["run", "--pod", "web", "--name", "left", "busybox", "sh", "-c", TALK];
        let mut left = in_front(&place, &words);
        for name in ["web/bg", "web/side", "web/left"] {
            until("it talks", || place.run(["logs", name]).stdout.contains('5'));
        }
        left.kill().unwrap();
        left.wait().unwrap();
        for _ in 0..5 {
            kill_host(&place);
            sleep(Duration::from_millis(200));
        }
        for name in ["web/bg", "web/side", "web/left"] {
            stop_talking(&place, name);
        }
        let said = finish_started(front);
        assert_eq!(said.code, 7, "{said:?}");
        assert_whole(&said.stdout);
        for name in ["web/bg", "web/side", "web/left"] {
            assert_exited(&place, name, 7);
            assert_logged(&place, name);
        }
        place.run(["rm", "-f", "web"]).ok();
        place.assert_nothing_left();
    }
}

/// An exec goes on without its hyperctl, and without its host; -d says which it is.
#[test]
fn execs_outlive_who_started_them() {
    let place = Place::new();
    place.run(["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    let script = "touch /begun; sleep 2; echo written; echo done > /done";
    let mut front = in_front(&place, &["exec", "web", "sh", "-c", script]);
    until("it runs", || place.run(["exec", "web", "test", "-e", "/begun"]).code == 0);
    front.kill().unwrap();
    front.wait().unwrap();
    let detached = place.run(["exec", "-d", "web", "sh", "-c", "sleep 2; echo x > /also"]);
    assert!(detached.ok().starts_with("exec-"), "{detached:?}");
    kill_host(&place);
    for file in ["/done", "/also"] {
        until(file, || place.run(["exec", "web", "test", "-e", file]).code == 0);
    }
    place.run(["rm", "-f", "web"]).ok();
    place.assert_nothing_left();
}
