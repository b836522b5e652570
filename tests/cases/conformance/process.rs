//! The process's words, its terminal and its limits.

use std::fs;

use harness::bundle::{Bundle, put, take};
use harness::command::Place;
use serde_json::{Value, json};

use super::{check, conforms, other, wrong};

/// Arguments, environment, directory, host name.
#[test]
fn words_are_given_as_they_are() {
    conforms(
        |config| {
            put(config, "/process/cwd", json!("/home/alice/made/for/it"));
            put(
                config,
                "/process/env",
                json!(["A=1", "B=two words", "EMPTY=", "A=2", "C=\u{e9}="]),
            );
            put(config, "/hostname", json!("a-name-of-its-own"));
        },
        &[
            other(&["process.args"], "/process/args/1", json!("other")),
            wrong(&["process.args"], |config| put(config, "/process/args/-", json!("more"))),
            other(&["process.env"], "/process/env/1", json!("B=two  words")),
            wrong(&["process.env"], |config| put(config, "/process/env/-", json!("MORE="))),
            other(&["process.env"], "/process/env", json!(["A=2", "B=two words", "EMPTY="])),
            other(&["process.env"], "/process/env/3", json!("A=1")),
            other(&["process.cwd"], "/process/cwd", json!("/home/alice/made/for")),
            other(&["hostname"], "/hostname", json!("a-name-of-its-ow")),
        ],
    );
}

/// All sixteen, soft and hard.
#[test]
fn rlimits_are_those_of_the_config() {
    conforms(
        |config| {
            let limits: Vec<Value> = RLIMITS
                .iter()
                .map(|(name, soft, hard)| json!({ "type": name, "soft": soft, "hard": hard }))
                .collect();
            put(config, "/process/rlimits", limits.into());
        },
        &[
            other(&["process.rlimits"], "/process/rlimits/0/soft", json!(1)),
            other(&["process.rlimits"], "/process/rlimits/9/soft", json!(98)),
            other(&["process.rlimits"], "/process/rlimits/9/hard", json!(u64::MAX)),
            other(&["process.rlimits"], "/process/rlimits/15/hard", json!(1 << 30)),
        ],
    );
}

const RLIMITS: [(&str, u64, u64); 16] = [
    ("RLIMIT_AS", 1 << 40, u64::MAX),
    ("RLIMIT_CORE", 0, 4096),
    ("RLIMIT_CPU", 1000, 2000),
    ("RLIMIT_DATA", 1 << 38, 1 << 39),
    ("RLIMIT_FSIZE", 1 << 30, 1 << 31),
    ("RLIMIT_LOCKS", 11, 12),
    ("RLIMIT_MEMLOCK", u64::MAX, u64::MAX),
    ("RLIMIT_MSGQUEUE", 4096, 8192),
    ("RLIMIT_NICE", 3, 5),
    ("RLIMIT_NOFILE", 99, 199),
    ("RLIMIT_NPROC", 500, 600),
    ("RLIMIT_RSS", 1 << 20, 1 << 21),
    ("RLIMIT_RTPRIO", 7, 9),
    ("RLIMIT_RTTIME", 1000, 2000),
    ("RLIMIT_SIGPENDING", 21, 22),
    ("RLIMIT_STACK", 1 << 20, 1 << 23),
];

/// no_new_privs and the OOM score.
#[test]
fn privileges_and_oom_score_are_those_of_the_config() {
    conforms(
        |config| {
            put(config, "/process/noNewPrivileges", json!(true));
            put(config, "/process/oomScoreAdj", json!(321));
        },
        &[
            other(&["process.noNewPrivileges"], "/process/noNewPrivileges", json!(false)),
            other(&["process.oomScoreAdj"], "/process/oomScoreAdj", json!(320)),
        ],
    );
}

/// A terminal of the size that the config has, and no terminal where it wants none.
#[test]
fn terminal_has_the_size_of_the_config() {
    conforms(
        |config| {
            put(config, "/process/terminal", json!(true));
            put(config, "/process/consoleSize", json!({ "height": 33, "width": 121 }));
        },
        &[
            other(&["mounts.no-other", "process.terminal"], "/process/terminal", json!(false)),
            other(&["process.consoleSize"], "/process/consoleSize/height", json!(34)),
            other(&["process.consoleSize"], "/process/consoleSize/width", json!(120)),
        ],
    );
    conforms(
        |config| put(config, "/process/terminal", json!(false)),
        &[other(&["process.terminal"], "/process/terminal", json!(true))],
    );
}

/// Scheduling, personality, umask and domain name: what a process keeps and no file of its own shows.
#[test]
fn scheduling_and_personality_are_those_of_the_config() {
    conforms(
        |config| {
            put(
                config,
                "/process/scheduler",
                json!({
                    "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_RESET_ON_FORK"],
                }),
            );
            put(
                config,
                "/process/ioPriority",
                json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }),
            );
            put(config, "/linux/personality", json!({ "domain": "LINUX32" }));
            put(config, "/process/user/umask", json!(0o027));
            put(config, "/domainname", json!("a.domain"));
        },
        &[
            other(&["process.scheduler"], "/process/scheduler/policy", json!("SCHED_OTHER")),
            other(&["process.scheduler"], "/process/scheduler/nice", json!(4)),
            other(&["process.scheduler"], "/process/scheduler/flags", json!([])),
            other(&["process.ioPriority"], "/process/ioPriority/class", json!("IOPRIO_CLASS_IDLE")),
            other(&["process.ioPriority"], "/process/ioPriority/priority", json!(5)),
            other(&["linux.personality"], "/linux/personality/domain", json!("LINUX")),
            other(&["process.user.umask"], "/process/user/umask", json!(0o022)),
            other(&["domainname"], "/domainname", json!("another.domain")),
        ],
    );
}

/// A policy with a priority of its own, and one with a deadline.
#[test]
fn real_time_scheduling_is_that_of_the_config() {
    conforms(
        |config| {
            put(config, "/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 3 }))
        },
        &[
            other(&["process.scheduler"], "/process/scheduler/priority", json!(4)),
            other(&["process.scheduler"], "/process/scheduler/policy", json!("SCHED_RR")),
        ],
    );
    conforms(
        |config| {
            put(
                config,
                "/process/scheduler",
                json!({
                    "policy": "SCHED_DEADLINE", "runtime": 20_000_000, "deadline": 50_000_000, "period": 100_000_000,
                }),
            );
        },
        &[
            other(&["process.scheduler"], "/process/scheduler/runtime", json!(20_000_001)),
            other(&["process.scheduler"], "/process/scheduler/deadline", json!(50_000_001)),
            other(&["process.scheduler"], "/process/scheduler/period", json!(100_000_001)),
        ],
    );
}

/// An exec has the affinity of the config; a container's first process has none of it.
#[test]
fn affinity_of_an_exec_is_that_of_the_config() {
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    put(&mut bundle.config, "/process/execCPUAffinity", json!({ "initial": "0", "final": "1" }));
    bundle.args(["/bin/sleep", "1000"]);
    bundle.write();
    let directory = bundle.directory.to_str().unwrap();
    place.run(["run", "-d", "--name", "b", "--vm-cpus", "2", "--bundle", directory]).ok();
    for (name, cpus, fails) in [("right", "1", false), ("wrong", "0", true)] {
        let path = format!("/expect/{name}.json");
        let mut config = bundle.config.clone();
        put(&mut config, "/process/args", json!(["/probe", "conform", path]));
        put(&mut config, "/process/execCPUAffinity/final", json!(cpus));
        bundle.expect(name, &config);
        let said = place.run(["exec", "b", "/probe", "conform", &path]);
        let failed: Vec<&str> =
            said.stdout.lines().filter(|line| line.starts_with("not ok")).collect();
        assert_eq!(said.code, i32::from(fails), "{failed:#?} {said:#?}");
        assert_eq!(failed.len(), usize::from(fails), "{failed:#?}");
        assert!(
            failed.iter().all(|line| line.contains("process.execCPUAffinity: ")),
            "{failed:#?}"
        );
    }
    place.run(["rm", "-f", "b"]).ok();
    place.assert_nothing_left();
}

/// What hooks have left is compared in the order of the lifecycle, whatever the order of the properties. The lines of
/// /etc/passwd stand for what hooks write.
#[test]
fn traces_of_hooks_are_compared_in_order() {
    const LINES: [&str; 2] =
        ["root:x:0:0:root:/root:/bin/sh", "alice:x:1000:1001::/home/alice:/bin/sh"];
    let with = |runtime: &'static str, container: &'static str| {
        move |config: &mut Value| {
            let hook = |line: &str| json!([{ "path": "/x", "args": ["x", line] }]);
            put(config, "/annotations", json!({ "hyperstart.test.hooks-file": "/etc/passwd" }));
            let hooks =
                json!({ "createContainer": hook(container), "createRuntime": hook(runtime) });
            put(config, "/hooks", hooks);
        }
    };
    conforms(
        |_| {},
        &[
            wrong(&[], with(LINES[0], LINES[1])),
            wrong(&["hooks"], with(LINES[1], LINES[0])),
            wrong(&["hooks"], with(LINES[0], "alice")),
        ],
    );
}

/// Hooks of host, guest and container, each of which writes its name: the order is the lifecycle's, and the list's.
#[test]
fn hooks_run_in_the_order_of_the_lifecycle() {
    const SHARE: &str = "/run/hyperstart/shares/bind0"; // where hyperctl has the guest mount the directory
    let place = Place::new();
    let mut bundle = Bundle::new(&place, "bundle");
    let tools = place.path("tools");
    fs::create_dir(&tools).unwrap();
    fs::copy("/bin/busybox", tools.join("busybox")).unwrap();
    let bind = json!({ "destination": "/tools", "type": "bind", "source": tools, "options": ["rbind", "rw"] });
    put(&mut bundle.config, "/mounts/-", bind);
    put(&mut bundle.config, "/annotations", json!({ "hyperstart.test.hooks-file": "/tools/log" }));
    let guests = format!("{SHARE}/busybox");
    for (kind, name, shell, directory) in [
        ("startContainer", "start-1", "/bin/busybox", "/tools"),
        ("startContainer", "start-2", "/bin/busybox", "/tools"),
        ("createContainer", "create-1", guests.as_str(), SHARE),
        ("createContainer", "create-2", guests.as_str(), SHARE),
        ("createRuntime", "runtime", "/bin/sh", "../tools"),
        ("prestart", "prestart", "/bin/sh", "../tools"),
    ] {
        // The last word is $0, and what the check expects in the log.
        let script = format!("echo $0 >> {directory}/log");
        let hook = json!({ "path": shell, "args": ["sh", "-c", script, name] });
        let list = format!("/hooks/{kind}");
        if bundle.config.pointer(&list).is_none() {
            put(&mut bundle.config, &list, json!([]));
        }
        put(&mut bundle.config, &format!("{list}/-"), hook);
    }
    let reverse = |config: &mut Value, kind: &str| {
        let list = config.pointer_mut(&format!("/hooks/{kind}")).unwrap();
        list.as_array_mut().unwrap().reverse();
    };
    let twins = [
        wrong(&["hooks"], move |config| reverse(config, "createContainer")),
        wrong(&["hooks"], move |config| reverse(config, "startContainer")),
        wrong(&["hooks"], |config| take(config, "/hooks/prestart")),
        wrong(&["hooks"], |config| take(config, "/hooks/createRuntime/0")),
    ];
    let said = check(&place, &mut bundle, &twins, "");
    assert!(said.stderr.is_empty(), "{said:#?}");
    place.assert_nothing_left();
}
