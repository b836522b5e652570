//! `hyperctl wait`: exit codes of pods that run, that have ended, and that leave no record.

use std::thread;
use std::time::Duration;

use harness::command::{self, Place, until};

/// Exit codes come in the order in which the pods were named, of those that had ended before and of those that had not,
/// of further containers too; and a pod that was waited for can be removed at once.
#[test]
fn wait_prints_exit_codes_and_pods_can_then_be_removed() {
    let place = Place::new();
    let script = "until [ -e /tmp/code ]; do sleep 0.1; done; exit $(cat /tmp/code)";
    place.run(["run", "-d", "--name", "slow", "busybox", "sh", "-c", script]).ok();
    place.run(["run", "-d", "--pod", "slow", "--name", "side", "busybox", "sh", "-c", script]).ok();
    place.run(["run", "--name", "done", "busybox", "sh", "-c", "exit 7"]);
    let waiter = command::start(&mut place.command(["wait", "slow/side", "slow", "done"]));
    thread::sleep(Duration::from_millis(500));
    for (pod, code) in [("slow/side", "5"), ("slow", "3")] {
        let end = format!("echo {code} > /tmp/new && mv /tmp/new /tmp/code");
        place.run(["exec", pod, "sh", "-c", &end]); // it may be cut off by the end that it brings about
        until("it has ended", || {
            place.run(["ps", "-a"]).ok().contains(&format!("Exited ({code})"))
        });
    }
    let said = command::finish_started(waiter);
    assert_eq!(said.ok(), "5\n3\n7\n", "{said:?}");
    assert_eq!(place.run(["wait", "slow", "done"]).ok(), "3\n7\n", "they have ended already");
    place.run(["rm", "slow", "done"]).ok();
    place.assert_nothing_left();
}

/// A pod that runs with --rm leaves no record, and is waited for all the same; one that is killed with its record is an
/// error by its name, and one that is not there does not keep the others from being waited for.
#[test]
fn wait_knows_the_exit_code_of_a_pod_without_a_record() {
    let place = Place::new();
    place.run(["run", "-d", "--rm", "--name", "web", "busybox", "sleep", "1000"]).ok();
    let waiter = command::start(&mut place.command(["wait", "nobody", "web"]));
    thread::sleep(Duration::from_millis(500));
    place.run(["kill", "-s", "KILL", "web"]).ok();
    let said = command::finish_started(waiter);
    assert_eq!((said.code, said.stdout.as_str()), (125, "137\n"), "{said:?}");
    assert!(said.stderr.contains("\"nobody\": no such pod"), "{said:?}");
    let gone = place.run(["wait", "web"]);
    assert!(gone.code == 125 && gone.stderr.contains("find pod \"web\": no such pod"), "{gone:?}");
    let nothing = place.run(["wait"]);
    assert!(nothing.code == 125 && nothing.stderr.contains("<POD>"), "{nothing:?}");
    place.assert_nothing_left();
}
