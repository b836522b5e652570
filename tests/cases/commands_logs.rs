//! `hyperctl logs`: which lines, of which container, with which times, and until when; and from where.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::Duration;

use harness::command::{self, Place, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kill;

/// The last lines, those since and until a time, and their times: of a pod that runs, of one that has ended, and of a
/// further container.
#[test]
fn logs_are_chosen_by_line_and_by_time() {
    let place = Place::new();
    let script = "echo one; echo two >&2; printf half; until [ -e /tmp/go ]; do sleep 0.1; done; \
                  echo -half; echo last; sleep 1000";
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    place.run(["run", "-d", "--pod", "web", "--name", "side", "busybox", "echo", "aside"]).ok();
    until("it has spoken", || place.run(["logs", "web"]).ok().ends_with("half"));
    let stamped = place.run(["logs", "-t", "web"]);
    let (time, one) = stamped.ok().lines().next().unwrap().split_once(' ').unwrap();
    assert!(one == "one" && time.ends_with('Z') && time.len() == 24, "{stamped:?}");
    thread::sleep(Duration::from_millis(1500));
    place.run(["exec", "web", "touch", "/tmp/go"]).ok();
    until("it goes on", || place.run(["logs", "web"]).ok().ends_with("last\n"));

    let said = place.run(["logs", "--tail", "1", "web"]);
    assert_eq!((said.ok(), said.stderr.as_str()), ("last\n", ""));
    // Which of the two outputs came first is not said; the half line goes with its beginning.
    let said = place.run(["logs", "-n", "3", "web"]);
    let lines = (said.ok().lines().count(), said.stderr.lines().count());
    assert!(lines.0 + lines.1 == 3 && said.stdout.ends_with("half-half\nlast\n"), "{said:?}");
    assert_eq!(place.run(["logs", "-n", "0", "web"]).ok(), "");
    assert_eq!(place.run(["logs", "--until", time, "web"]).ok().lines().next(), Some("one"));
    assert!(!place.run(["logs", "--until", time, "web"]).ok().contains("last"));
    let since = place.run(["logs", "-t", "--tail", "1", "web"]);
    let since = since.ok().split_once(' ').unwrap().0.to_owned();
    assert_eq!(place.run(["logs", "--since", &since, "web"]).ok(), "last\n");
    assert_eq!(
        place.run(["logs", "--since", "1h", "--tail", "all", "web"]).ok(),
        "one\nhalf-half\nlast\n"
    );
    assert_eq!(place.run(["logs", "-c", "side", "web"]).ok(), "aside\n");
    assert_eq!(place.run(["logs", "web/side"]).ok(), "aside\n", "it has ended");

    place.run(["stop", "-t", "0", "web"]).ok();
    let said = place.run(["logs", "-f", "-n", "3", "web"]);
    let lines = (said.ok().lines().count(), said.stderr.lines().count());
    assert!(lines.0 + lines.1 == 3 && said.stdout.ends_with("half-half\nlast\n"), "{said:?}");
    for (words, complaint) in [
        (&["logs", "nobody"][..], "no such pod"),
        (&["logs", "-c", "nobody", "web"], "no such pod"),
        (&["logs", "--tail", "few", "web"], "a number of lines"),
        (&["logs", "--since", "yesterday", "web"], "a time, such as"),
        (&["logs"], "<POD>"),
    ] {
        let refused = place.run_words(words);
        assert!(refused.code == 125 && refused.stderr.contains(complaint), "{words:?} {refused:?}");
    }
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// Following shows lines as they come, from the tail on, and ends with the pod, or at a time.
#[test]
fn logs_are_followed_from_the_tail_to_the_end() {
    let place = Place::new();
    let script = "echo one; echo two; until [ -e /tmp/go ]; do sleep 0.1; done; echo three; exit 3";
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    until("it has spoken", || place.run(["logs", "web"]).ok().ends_with("two\n"));
    let follower = command::start(&mut place.command(["logs", "-f", "-n", "1", "web"]));
    assert_eq!(place.run(["logs", "-f", "--until", "0s", "web"]).ok(), "one\ntwo\n");
    place.run(["exec", "web", "touch", "/tmp/go"]).ok();
    let said = command::finish_started(follower);
    assert_eq!((said.code, said.stdout.as_str()), (0, "two\nthree\n"), "{said:?}");
    place.run(["wait", "web"]).ok();
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// What the record does not have yet comes from the guest, and once: while the host is stopped `logs` and who follows show
/// what is printed then, of a pod's first container and of a further one, and when the host has recorded it do so as before.
/// A guest that does not answer leaves the record, and a word about it.
#[test]
fn logs_have_what_the_host_has_not_recorded() {
    let place = Place::new();
    let script = "i=1; while :; do until [ -e /go$i ]; do sleep 0.1; done; \
                  echo line $i; echo error $i >&2; i=$((i+1)); done";
    let names = ["web", "web/side"];
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    place.run(["run", "-d", "--pod", "web", "--name", "side", "busybox", "sh", "-c", script]).ok();
    let go_on = |number: u32| {
        for name in names {
            place.run(["exec", name, "touch", &format!("/go{number}")]).ok();
        }
    };
    let expected = |kind: &str, last: u32| -> String {
        (1..=last).map(|number| format!("{kind} {number}\n")).collect()
    };
    let whole = |name: &str, last: u32| {
        let said = place.run(["logs", name]);
        said.ok() == expected("line", last) && said.stderr == expected("error", last)
    };
    go_on(1);
    for name in names {
        until("it has spoken", || whole(name, 1) && recorded(&place, name).contains("error 1"));
    }
    let followers = names.map(|name| Following::start(&place, name));
    for following in &followers {
        until("it is followed", || following.said() == (expected("line", 1), expected("error", 1)));
    }

    let host = kill::hosts(&place).remove(0);
    signal(host, Signal::SIGSTOP);
    go_on(2);
    for (name, following) in names.iter().zip(&followers) {
        until("it is seen", || whole(name, 2));
        let last = place.run(["logs", "--since", "1h", "-n", "2", name]);
        assert_eq!((last.ok(), last.stderr.as_str()), ("line 2\n", "error 2\n"));
        until("it follows", || following.said() == (expected("line", 2), expected("error", 2)));
        assert!(!recorded(&place, name).contains(" 2\n"), "the host is stopped");
    }
    place.run(["pause", "web"]).ok();
    assert!(whole("web", 2), "it is paused, and the guest answers");
    place.run(["unpause", "web"]).ok();

    signal(host, Signal::SIGCONT);
    go_on(3);
    for (name, following) in names.iter().zip(&followers) {
        until("it is recorded", || recorded(&place, name).contains("error 3"));
        assert!(whole(name, 3), "{:?}", place.run(["logs", name]));
        until("it follows", || following.said().1.contains("error 3"));
    }

    let vm = kill::qemu(&place);
    signal(vm, Signal::SIGSTOP);
    let said = place.run(["logs", "web"]);
    assert_eq!(said.ok(), expected("line", 3));
    assert!(said.stderr.contains("the newest output may be missing"), "{said:?}");
    signal(vm, Signal::SIGCONT);

    place.run(["stop", "-t", "0", "web"]).ok();
    for following in followers {
        assert_eq!(following.finish(), (expected("line", 3), expected("error", 3)));
    }
    assert!(names.iter().all(|name| whole(name, 3)), "they have ended");
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// A `logs -f` whose output is looked at while it runs.
struct Following {
    child: Child,
    files: [PathBuf; 2],
}

impl Following {
    fn start(place: &Place, name: &str) -> Self {
        let files =
            ["out", "err"].map(|kind| place.path(&name.replace('/', "-")).with_extension(kind));
        let [out, err] = files.clone().map(|path| File::create(path).unwrap());
        let child = place.command(["logs", "-f", name]).stdout(out).stderr(err).spawn().unwrap();
        Self { child, files }
    }

    fn said(&self) -> (String, String) {
        let [out, err] = &self.files;
        (fs::read_to_string(out).unwrap(), fs::read_to_string(err).unwrap())
    }

    fn finish(mut self) -> (String, String) {
        assert!(command::wait(&mut self.child).success());
        self.said()
    }
}

/// What the pod's host has recorded of a container: with headers between.
fn recorded(place: &Place, name: &str) -> String {
    let pod = fs::read_dir(place.state().join("pods")).unwrap().next().unwrap().unwrap().path();
    let dir = match name.contains('/') {
        true => fs::read_dir(pod.join("containers")).unwrap().next().unwrap().unwrap().path(),
        false => pod,
    };
    let log = fs::read(dir.join("output.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}
