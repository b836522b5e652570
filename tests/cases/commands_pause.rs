//! `hyperctl pause`, `unpause`, `update`, `stats` and `top`: a pod that runs, looked at and changed.

use harness::command::{Place, Said, until};
use harness::terminal::Session;
use serde_json::Value;

const COUNT: &str = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done";

fn refused(said: &Said, complaint: &str) {
    assert!(said.code == 125 && said.stderr.contains(complaint), "{complaint:?} not in {said:?}");
}

/// A paused pod does nothing, is listed as paused, refuses execs with the next step, and goes on as if nothing had been;
/// stop ends it all the same, and so does kill.
#[test]
fn paused_pod_stands_still_and_goes_on() {
    let place = Place::new();
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", COUNT]).ok();
    place.run(["run", "-d", "--pod", "web", "--name", "side", "busybox", "sh", "-c", COUNT]).ok();
    let count = |pod: &str| place.run(["exec", pod, "cat", "/tmp/count"]).stdout;
    until("it counts", || !count("web").is_empty());
    assert_eq!(place.run(["pause", "web"]).ok(), "web\n");
    let listed = place.run(["ps"]);
    let line =
        |name: &str| listed.ok().lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line(" web ").contains("(Paused)") && line(" web ").contains("Up "), "{listed:?}");
    assert!(!line("web/side").contains("Paused"), "{listed:?}");
    refused(&place.run(["exec", "web", "true"]), "paused");
    assert!(place.run(["exec", "web", "true"]).stderr.contains("hint: `hyperctl unpause`"));
    refused(&place.run(["pause", "web"]), "hint: `hyperctl unpause web`");
    let usage = place.run(["stats", "--no-stream", "--format", "json", "web"]);
    let usage: Value = serde_json::from_str(usage.ok()).unwrap();
    assert_eq!(usage["cpu_percent"], 0.0, "it stands still: {usage}");
    let before = count("web/side");
    until("the other goes on", || count("web/side") != before);

    assert_eq!(place.run(["unpause", "web"]).ok(), "web\n");
    refused(&place.run(["unpause", "web"]), "not paused");
    let before = count("web");
    until("it goes on", || count("web") != before);
    assert!(!place.run(["ps"]).ok().contains("Paused"));
    let both = place.run(["pause", "nobody", "web/side"]);
    assert_eq!((both.code, both.stdout.as_str()), (125, "web/side\n"), "{both:?}");
    assert!(both.stderr.contains("\"nobody\": no such pod"), "{both:?}");

    place.run(["pause", "web"]).ok();
    place.run(["stop", "-t", "60", "web"]).ok();
    let listed = place.run(["ps", "-a"]);
    assert!(
        listed.ok().contains("Exited (143)") || listed.ok().contains("Exited (137)"),
        "{listed:?}"
    );
    refused(&place.run(["pause", "web"]), "it has exited");
    refused(&place.run(["unpause", "web"]), "it has exited");
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// New limits are in force at once, what is not said stays, and what cannot be is refused; a limit that the VM is too small
/// for is told.
#[test]
fn limits_are_updated_while_a_pod_runs() {
    let place = Place::new();
    let flags = ["run", "-d", "--name", "web", "--memory", "32m", "--pids-limit", "50"];
    place.run_words(&[&flags[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let limits = || {
        let files = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max";
        place.run(["exec", "web", "sh", "-c", files]).ok().to_owned()
    };
    assert_eq!(limits(), "33554432\n50\nmax 100000\n");
    let said = place.run(["update", "--cpus", "0.5", "--memory", "48m", "web"]);
    assert_eq!((said.ok(), said.stderr.as_str()), ("web\n", ""));
    assert_eq!(limits(), "50331648\n50\n50000 100000\n");
    assert_eq!(place.run(["update", "--pids-limit", "-1", "web"]).ok(), "web\n");
    assert_eq!(limits(), "50331648\nmax\n50000 100000\n");
    let large = place.run(["update", "--memory", "1g", "web"]);
    assert!(large.ok() == "web\n" && large.stderr.contains("its VM has 96 MiB"), "{large:?}");
    refused(&place.run(["update", "web"]), "--memory, --cpus and --pids-limit");
    refused(&place.run(["update", "--memory", "1k", "web"]), "less than 6m");
    refused(&place.run(["update", "--ulimit", "nofile=1", "web"]), "--ulimit");
    refused(&place.run(["update", "--memory", "32m", "nobody"]), "no such pod");
    place.run(["stop", "-t", "0", "web"]).ok();
    refused(&place.run(["update", "--memory", "32m", "web"]), "it has exited");
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// What a pod uses is a row, an object, or a table that is drawn in place; its processes are listed by their own pids.
#[test]
fn usage_and_processes_are_shown() {
    let place = Place::new();
    let script = "sleep 1000 & while true; do :; done";
    place
        .run(["run", "-d", "--name", "web", "--memory", "32m", "busybox", "sh", "-c", script])
        .ok();
    let table = place.run(["stats", "--no-stream"]);
    let lines: Vec<&str> = table.ok().lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("POD ID        NAME"), "{table:?}");
    assert!(lines[1].contains(" / 32MiB  ") && !table.stdout.contains(['\x1b', '█']), "{table:?}");
    let json = place.run(["stats", "--no-stream", "--format", "json", "web"]);
    let usage: Value = serde_json::from_str(json.ok()).unwrap();
    assert!(usage["cpu_percent"].as_f64().unwrap() > 0.0, "it is busy: {usage}");
    assert!(usage["memory_bytes"].as_u64().unwrap() > 100_000, "{usage}");
    assert!(usage["pids"].as_u64().unwrap() >= 2, "{usage}");
    let mut session = Session::start(&place.command(["stats"]), 180, 24);
    session.shows("POD ID");
    session.shows("\x1b[2A"); // two lines up: drawn over
    session.shows("█");
    session.types("\x03");
    assert_eq!(session.wait(), 130);

    let sleep_row = || {
        let top = place.run(["top", "web"]);
        let words = |row: &str| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = top.ok().lines().map(words).collect();
        let header = ["UID", "PID", "PPID", "STAT", "RSS", "STARTED", "TIME", "CMD"];
        assert_eq!(rows[0], header, "{top:?}");
        assert_eq!(rows[1][..3], ["0", "1", "0"], "{top:?}");
        rows.into_iter().find(|row| row[7..] == ["sleep", "1000"])
    };
    until("it sleeps", || sleep_row().is_some());
    let sleep = sleep_row().unwrap();
    assert_eq!(sleep[2], "1", "a child of the first: {sleep:?}");
    place.run(["exec", "web", "kill", &sleep[1]]).ok();
    until("that pid was it", || sleep_row().is_none());
    for words in [["stats", "nobody"], ["top", "nobody"]] {
        refused(&place.run(words), "no such pod");
    }
    place.run(["stop", "-t", "0", "web"]).ok();
    refused(&place.run(["stats", "--no-stream", "web"]), "it has exited");
    refused(&place.run(["top", "web"]), "it has exited");
    assert_eq!(place.run(["stats", "--no-stream"]).ok().lines().count(), 1, "the header alone");
    refused(&place.run(["stats", "--format", "xml"]), "xml");
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}
