//! `hyperctl events`: what happens in pods, as it happens and afterwards.

use harness::command::{self, Place, until};
use serde_json::Value;

/// Events are told in docker's words, once, in order, with numbers to go on from; a follower ends with its pod.
#[test]
fn events_are_told_and_gone_on_with() {
    let place = Place::new();
    place.run(["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).ok();
    let told = place.run(["events", "--no-follow", "web"]);
    let begun: Vec<&str> = told.ok().lines().collect();
    assert!(begun.iter().any(|line| line.contains(" container create web (")), "{told:?}");
    assert!(begun.last().unwrap().contains(" container start web ("), "{told:?}");

    let last = sequence(begun.last().unwrap()).to_string();
    let mut follow = place.command(["events", "--since"]);
    let follower = command::start(follow.args([&last, "--format", "json", "web"]));
    place.run(["exec", "web", "sh", "-c", "exit 4"]);
    place.run(["run", "--rm", "--pod", "web", "--name", "side", "busybox", "true"]).ok();
    let all = place.run(["events", "--no-follow", "--since", "1h"]);
    let names = ["exec_start web (", "exec_die web (", "exitCode=4", "create ", "destroy "];
    for name in names {
        assert!(all.ok().contains(name), "{name} {all:?}");
    }
    let one = place.run(["events", "--no-follow", "--since", &last, "web"]);
    let next = sequence(one.ok().lines().next().unwrap());
    assert!(next == sequence(begun.last().unwrap()) + 1, "{one:?}");
    place.run(["stop", "-t", "0", "web"]).ok();
    let said = command::finish_started(follower);
    let lines: Vec<Value> =
        said.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first: u64 = lines[0]["seq"].as_u64().unwrap();
    assert_eq!(first, last.parse::<u64>().unwrap() + 1, "{said:?}");
    let numbers = lines.iter().map(|line| line["seq"].as_u64().unwrap());
    assert!(numbers.eq(first..first + lines.len() as u64), "none is missing: {said:?}");
    let exec = lines.iter().find(|line| line["Action"] == "exec_die").unwrap();
    assert_eq!(exec["Actor"]["Attributes"]["exitCode"], "4", "{exec}");
    let die = lines
        .iter()
        .find(|line| line["Action"] == "die" && line["Actor"]["Attributes"]["name"] == "web");
    assert_eq!(die.unwrap()["Actor"]["Attributes"]["exitCode"], "137", "{said:?}");
    refuses(&place, &last);
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

fn refuses(place: &Place, last: &str) {
    for (words, complaint) in [
        (&["events", "nobody"][..], "no such pod"),
        (&["events", "web"], "it has exited (137)"),
        (&["events", "--since", last], "each pod has numbers of its own"),
        (&["events", "--since", "yesterday", "web"], "the number of an event"),
        (&["events", "-f", "--no-follow", "web"], "--no-follow"),
        (&["events", "--format", "xml", "web"], "xml"),
    ] {
        let refused = place.run_words(words);
        assert!(refused.code == 125 && refused.stderr.contains(complaint), "{words:?} {refused:?}");
    }
}

fn sequence(line: &str) -> u64 {
    line.rsplit_once("seq=").unwrap().1.trim_end_matches(')').parse().unwrap()
}

/// Without a pod's name all of them are followed, those too that begin later; what is to come has no number yet.
#[test]
fn events_of_all_pods_are_followed() {
    let place = Place::new();
    place.run(["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let ahead = place.run(["events", "--no-follow", "--since", "999999", "one"]);
    assert!(ahead.code == 125 && ahead.stderr.contains("no event 999999 yet"), "{ahead:?}");
    let mut session = harness::terminal::Session::start(&place.command(["events"]), 200, 24);
    // It is listening once it tells of this.
    until("it listens", || {
        place.run(["exec", "one", "true"]).ok();
        session.has_shown("exec_die one (")
    });
    place.run(["run", "--rm", "--name", "two", "busybox", "sh", "-c", "sleep 1; exit 9"]);
    session.shows("container start two (");
    session.shows("container die two (exitCode=9");
    session.types("\x03");
    assert_eq!(session.wait(), 130, "interrupted");
    place.run(["rm", "-f", "one"]).ok();
    place.assert_nothing_left();
}
