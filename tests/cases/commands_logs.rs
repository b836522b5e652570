//! `hyperctl logs`: which lines, of which container, with which times, and until when.

use std::thread;
use std::time::Duration;

use harness::command::{self, Place, until};

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
