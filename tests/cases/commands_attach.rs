//! `hyperctl attach`: in front of what runs, whoever has started it, as often as one likes.

use std::io::{BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use harness::command::{self, Place, until};
use harness::terminal::Session;

/// Reads lines, and ends with the code that one of them says.
const ECHO: &str = "echo before; while read line; do echo got $line; \
                    case $line in end*) exit ${line#end};; esac; done";

/// A hyperctl whose output is looked at while it runs.
struct Watcher {
    child: Child,
    output: Receiver<u8>,
    seen: Vec<u8>,
}

impl Watcher {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, output) = channel();
        thread::spawn(move || {
            stdout.bytes().map_while(Result::ok).try_for_each(|byte| sender.send(byte))
        });
        Self { child, output, seen: Vec::new() }
    }

    fn has_seen_something(&mut self) -> bool {
        self.seen.extend(self.output.try_iter());
        !self.seen.is_empty()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit code, and all that it printed.
    fn finish(mut self) -> (i32, String) {
        let code = command::code(command::wait(&mut self.child));
        self.seen.extend(self.output.iter());
        (code, String::from_utf8(self.seen).unwrap())
    }
}

/// Input, output and exit code of a pod in the background are its attached hyperctl's; what was printed before is not
/// shown again; one that is killed leaves the pod as it is, and several see the same.
#[test]
fn attach_connects_to_a_pod_in_the_background() {
    let place = Place::new();
    place.run(["run", "-d", "-i", "--name", "web", "busybox", "sh", "-c", ECHO]).ok();
    until("it has spoken", || place.run(["logs", "web"]).ok() == "before\n");
    let watch = || Watcher::start(&mut place.command(["attach", "--no-stdin", "web"]));
    let (mut killed, mut watcher) = (watch(), watch());
    let mut attach = place.command(["attach", "-i", "web"]);
    let mut speaker = command::start(attach.stdin(Stdio::piped()));
    let mut input = speaker.stdin.take().unwrap();
    until("both watch", || {
        input.write_all(b"hello\n").unwrap();
        killed.has_seen_something() && watcher.has_seen_something()
    });
    killed.kill();
    input.write_all(b"one\nend7\n").unwrap();
    drop(input);
    let said = command::finish_started(speaker);
    assert_eq!(said.code, 7, "{said:?}");
    assert!(said.stdout.starts_with("got hello\n"), "{said:?}");
    assert!(said.stdout.ends_with("got hello\ngot one\ngot end7\n"), "{said:?}");
    let (code, watched) = watcher.finish();
    assert_eq!(code, 7);
    assert!(watched.starts_with("got hello\n") && said.stdout.ends_with(&watched), "{watched:?}");
    place.run(["wait", "web"]).ok();
    assert_eq!(place.run(["logs", "web"]).ok(), format!("before\n{}", said.stdout));
    for (words, complaint) in [
        (&["attach", "web"][..], "it has exited (7)"),
        (&["attach", "nobody"], "no such pod"),
        (&["attach", "-i", "--no-stdin", "web"], "--no-stdin"),
        (&["attach", "--detach-keys", "ctrl-1", "web"], "keys such as"),
    ] {
        let refused = place.run_words(words);
        assert!(refused.code == 125 && refused.stderr.contains(complaint), "{words:?} {refused:?}");
    }
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}

/// On a terminal the detach keys leave the pod to itself, with the terminal as it was; attached again it goes on, and its
/// end is hyperctl's.
#[test]
fn detach_keys_leave_a_pod_to_itself() {
    let place = Place::new();
    place.run(["run", "-d", "-it", "--name", "shell", "busybox", "sh"]).ok();
    let mut session = Session::start(&place.command(["attach", "shell"]), 90, 30);
    until("it is attached", || session.is_raw());
    session.types("stty size; echo he\"\"re\r");
    session.shows("30 90");
    session.shows("here");
    session.types("\x10\x11");
    session.shows("detached");
    assert_eq!(session.wait(), 0);
    assert!(!session.is_raw() && place.run(["ps"]).ok().contains("shell"));
    let piped = place.run_with_input(["attach", "-i", "shell"], b"exit\n");
    assert!(piped.code == 125 && piped.stderr.contains("not a terminal"), "{piped:?}");
    let mut session =
        Session::start(&place.command(["attach", "--detach-keys", "x", "shell"]), 90, 30);
    until("it is attached", || session.is_raw());
    session.types("\x10\x11x"); // the usual keys are the shell's
    session.shows("detached");
    assert_eq!(session.wait(), 0);
    let mut session = Session::start(&place.command(["attach", "shell"]), 90, 30);
    until("it is attached", || session.is_raw());
    session.types("\x03\rexit 5\r");
    assert_eq!(session.wait(), 5);
    place.run(["wait", "shell"]).ok();
    place.run(["rm", "shell"]).ok();
    place.assert_nothing_left();
}

/// A signal goes to the process that hyperctl is attached to; an exec is attached to by its id, with all that it has
/// written meanwhile; input that is closed is said to be.
#[test]
fn attach_passes_signals_on_and_finds_execs() {
    let place = Place::new();
    let script =
        "trap 'echo bye; exit 33' INT; echo ready; while true; do echo still; sleep 0.5; done";
    place.run(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    until("ready", || place.run(["logs", "web"]).ok().contains("ready"));
    let id = place.run(["exec", "-d", "web", "sh", "-c", "echo kept; sleep 1; echo on; exit 4"]);
    let said = place.run(["attach", "--exec", id.ok().trim(), "web"]);
    assert_eq!((said.code, said.stdout.as_str()), (4, "kept\non\n"), "{said:?}");
    for (words, complaint) in [
        (&["attach", "--exec", id.ok().trim(), "web"][..], "it has no exec"),
        (&["attach", "--exec", "a/b", "web"], "a/b"),
        (&["attach", "-i", "web"], "standard input is closed"),
    ] {
        let refused = place.run_words(words);
        assert!(refused.code == 125 && refused.stderr.contains(complaint), "{words:?} {refused:?}");
    }
    let mut session = Session::start(&place.command(["attach", "web"]), 80, 24);
    session.shows("still");
    session.types("\x03");
    session.shows("bye");
    assert_eq!(session.wait(), 33);
    place.run(["wait", "web"]).ok();
    place.run(["rm", "web"]).ok();
    place.assert_nothing_left();
}
