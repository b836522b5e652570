//! Hooks that run in the guest: when, where, what they are told, and what comes of one that fails.

use harness::command::{Place, until};
use harness::edit::put;
use harness::{Facts, Run, Vm, VmConfig};
use hyperstart::Code;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Busybox as the guest has it, and as the container has it.
const GUEST_BUSYBOX: &str = "/run/hyperstart/images/busybox/bin/busybox";
const BUSYBOX: &str = "/bin/busybox";
/// The container's root as the guest has it.
const ROOT: &str = "/run/kata-containers/web/rootfs";

/// A hook that runs a script.
fn hook(busybox: &str, script: &str) -> Value {
    json!({ "path": busybox, "args": ["sh", "-c", script], "env": [format!("BB={busybox}")] })
}

/// A hook that appends its name and a line about itself to a file.
fn teller(busybox: &str, name: &str, log: &str) -> Value {
    let script = format!(
        "{{ printf '{name}='; $BB cat; printf ' %s %s %s\\n' $($BB readlink /proc/self/ns/mnt) \
         $($BB id -u) $($BB env | $BB sort | $BB tr '\\n' ,); }} >> {log}"
    );
    hook(busybox, &script)
}

/// createContainer before startContainer, each in the order of its list, in the container's namespaces, with the state
/// on stdin, and exactly its own environment; the program comes last.
#[test]
fn hooks_run_in_order_and_know_the_state() {
    let vm = Vm::boot(&VmConfig::default());
    let outer = format!("{ROOT}/tmp/log");
    let run = Run::shell(
        "printf 'program= %s\\n' $(readlink /proc/self/ns/mnt) >> /tmp/log; cat /tmp/log",
    )
    .user("7:7");
    let said = vm.finish_with("web", &run, |spec| {
        put(spec, "/hooks", json!({
            "createContainer": [
                hook(GUEST_BUSYBOX, &format!("$BB mkdir -p {ROOT}/tmp && $BB chmod 1777 {ROOT}/tmp && > {outer} && $BB chmod 666 {outer}")),
                teller(GUEST_BUSYBOX, "create-1", &outer), teller(GUEST_BUSYBOX, "create-2", &outer),
            ],
            "startContainer": [teller(BUSYBOX, "start-1", "/tmp/log"), teller(BUSYBOX, "start-2", "/tmp/log")],
        }));
        put(spec, "/annotations", json!({ "com.example.key": "a \"quoted\"\nvalue" }));
    });
    let log = Facts::parse(said.stdout());
    let names: Vec<&str> =
        said.stdout().lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, ["create-1", "create-2", "start-1", "start-2", "program"], "{said:?}");
    let program = log.get("program").trim();
    for (name, status, uid, busybox) in [
        ("create-1", "creating", "0", GUEST_BUSYBOX),
        ("create-2", "creating", "0", GUEST_BUSYBOX),
        ("start-1", "created", "7", BUSYBOX),
        ("start-2", "created", "7", BUSYBOX),
    ] {
        let (state, rest) = log.get(name).rsplit_once('}').unwrap();
        let state: Value = serde_json::from_str(&format!("{state}}}")).unwrap();
        assert_eq!((&state["id"], &state["status"]), (&json!("web"), &json!(status)), "{state}");
        assert_eq!(state["bundle"], "/run/kata-containers/web");
        assert_eq!(state["annotations"]["com.example.key"], "a \"quoted\"\nvalue");
        assert!(state["pid"].as_u64().unwrap() > 1 && state["ociVersion"].is_string(), "{state}");
        let words: Vec<&str> = rest.split_whitespace().collect();
        assert_eq!(words[..2], [program, uid], "{name}: the container's mount namespace");
        // The shell's own after BB, as it is started with no other; HOME would be the guest's.
        let env = format!("BB={busybox},PATH=/sbin:/usr/sbin:/bin:/usr/bin,PWD=/,SHLVL=1,");
        assert_eq!(words[2..], [env], "{name}: its environment, and nothing else");
    }
    vm.shutdown();
}

/// The error of a create with this createContainer list.
fn refusal(vm: &Vm, hooks: Value) -> hyperstart::Error {
    let created = vm.try_create("web", &Run::shell("true"), |spec| {
        put(spec, "/hooks", json!({ "createContainer": hooks }));
    });
    created.expect_err("a hook that fails")
}

/// A createContainer hook that fails, that dies, that is not there, or that takes too long fails the create, by index
/// and path, with the end of what it said; nothing of it stays, and no later hook runs.
#[test]
fn create_container_hook_that_fails_fails_create() {
    let vm = Vm::boot(&VmConfig::default());
    let good = hook(GUEST_BUSYBOX, "exit 0");
    let witness = hook(GUEST_BUSYBOX, "> /run/witness");
    let fails = hook(GUEST_BUSYBOX, "$BB seq 1 5000 >&2; echo reason >&2; exit 3");
    let err = refusal(&vm, json!([good, fails, witness.clone()]));
    assert_eq!(err.code(), Code::FailedPrecondition, "{err}");
    let words = format!("hooks.createContainer[1] {GUEST_BUSYBOX:?}: exited with 3: ");
    assert!(err.to_string().contains(&words), "{err}");
    assert!(err.message().ends_with("4999\\n5000\\nreason") && err.message().len() < 1500, "{err}");
    let killed = refusal(&vm, json!([hook(GUEST_BUSYBOX, "$BB kill -9 $$"), witness.clone()]));
    assert!(killed.to_string().contains("hooks.createContainer[0]"), "{killed}");
    assert!(killed.message().ends_with("killed by signal 9"), "{killed}");
    let missing = refusal(&vm, json!([{ "path": "/no/such/hook" }, witness.clone()]));
    assert!(
        missing.message().contains("exited with 127: exec \"/no/such/hook\": ENOENT"),
        "{missing}"
    );
    let mut slow = hook(GUEST_BUSYBOX, "$BB sleep 100000 & $BB sleep 100000");
    slow["timeout"] = json!(1);
    let late = refusal(&vm, json!([slow, witness]));
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(
        late.message().contains("hooks.createContainer[0]")
            && late.message().contains("not done after 1 s"),
        "{late}"
    );
    let seen = vm.inspect(&Run::probe(["read", "/guest/proc/1/root/run/witness"]));
    assert!(seen.stdout().contains("error:2"), "no later hook ran: {seen:?}");
    assert_eq!(vm.finish("web", &Run::shell("exit 4")).code, 4, "the id is free");
    vm.shutdown(); // finds processes that are left
}

/// A startContainer hook that fails fails the start: the program never runs, the container has stopped.
#[test]
fn start_container_hook_that_fails_fails_start() {
    let vm = Vm::boot(&VmConfig::default());
    let start = |script: &str, timeout: u64| {
        let mut hook = hook(BUSYBOX, script);
        hook["timeout"] = json!(timeout);
        let web = vm.create_with("web", &Run::shell("echo ran"), |spec| {
            put(spec, "/hooks", json!({ "startContainer": [hook] }));
        });
        let err = vm.run("start", web.container().start()).expect_err("a hook that fails");
        assert_eq!(web.finish().stdout(), "", "the program did not run");
        web.remove();
        err
    };
    let err = start("echo reason >&2; exit 5", 10);
    let words = "hooks.startContainer[0] \"/bin/busybox\": exited with 5: reason";
    assert!(err.message().ends_with(words), "{err}");
    let late = start("$BB sleep 1000", 1);
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let noisy = start("$BB yes >&2", 1);
    assert_eq!(noisy.code(), Code::DeadlineExceeded, "{noisy}");
    vm.shutdown();
}

/// Through a link to /proc/self/exe a hook's path would be PID 1's own program (CVE-2019-5736); it is not run.
#[test]
fn hook_does_not_reach_the_guests_init() {
    let vm = Vm::boot(&VmConfig::default());
    let link = hook(GUEST_BUSYBOX, &format!("$BB ln -s /proc/self/exe {ROOT}/hook"));
    let web = vm.create_with("web", &Run::shell("true"), |spec| {
        put(
            spec,
            "/hooks",
            json!({ "createContainer": [link], "startContainer": [{ "path": "/hook" }] }),
        );
    });
    let err = vm.run("start", web.container().start()).expect_err("PID 1's program");
    assert!(
        err.message()
            .contains("hooks.startContainer[0] \"/hook\": exited with 127: exec \"/hook\": EACCES"),
        "{err}"
    );
    web.remove();
    vm.shutdown();
}

/// PID 1 answers others while a hook takes its time.
#[test]
fn guest_goes_on_while_a_hook_runs() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.create_with("web", &Run::shell("true"), |spec| {
        put(spec, "/hooks", json!({ "startContainer": [hook(BUSYBOX, "$BB sleep 3")] }));
    });
    let begun = Instant::now();
    let (started, answered) = vm.run("a start and a check", async {
        let check = async { vm.sandbox().check().await.map(|()| begun.elapsed()) };
        let start = async { web.container().start().await.map(|()| begun.elapsed()) };
        tokio::join!(start, check)
    });
    let (started, answered) = (started.unwrap(), answered.unwrap());
    assert!(started >= Duration::from_secs(3) && answered < started, "{started:?} {answered:?}");
    assert_eq!(web.finish().code, 0);
    web.remove();
    vm.shutdown();
}

/// A bundle whose hooks on the host append to a log that the container sees too, and its place.
fn bundle_with_hooks(place: &Place, words: &[&str], hooks: &[(&str, &str)]) -> PathBuf {
    let bundle = crate::hyperctl::busybox_bundle(place, words);
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (kind, script) in hooks {
        let list = &mut config["hooks"][kind];
        if list.is_null() {
            *list = json!([]);
        }
        let (path, env) = match *kind {
            "startContainer" => ("/bin/busybox", "PATH=/bin"),
            _ => ("/bin/sh", "PATH=/usr/bin:/bin"),
        };
        let hook = json!({ "path": path, "args": ["sh", "-c", script], "env": [env, "A=b"], "timeout": 20 });
        list.as_array_mut().unwrap().push(hook);
    }
    config["annotations"] = json!({ "com.example.key": "value" });
    fs::write(path, config.to_string()).unwrap();
    bundle
}

/// Appends `name` to the log and the state to a file of its own; the working directory is the bundle.
fn on_host(name: &str) -> String {
    format!("echo {name} >> rootfs/tmp/log; cat > {name}.json; echo \"$A\" $(pwd) > {name}.env")
}

/// The whole order of a bundle's life, host and guest, and what the host's hooks are told.
#[test]
fn hooks_of_host_and_guest_run_in_order() {
    let place = Place::new();
    let program =
        "until grep -q poststart /tmp/log; do sleep 0.1; done; echo program >> /tmp/log; exit 6";
    let program = program.replace("grep", "busybox grep").replace("sleep", "busybox sleep");
    let [prestart, runtime_1, runtime_2, poststart, poststop] =
        ["prestart", "createRuntime-1", "createRuntime-2", "poststart", "poststop"].map(on_host);
    let bundle = bundle_with_hooks(
        &place,
        &["sh", "-c", &program],
        &[
            ("poststop", &poststop),
            ("prestart", &prestart),
            ("createRuntime", &runtime_1),
            ("createRuntime", &runtime_2),
            ("startContainer", "echo startContainer >> /tmp/log"),
            ("poststart", &poststart),
        ],
    );
    let said = place.run(["run", "--rm", "--bundle", bundle.to_str().unwrap()]);
    assert_eq!((said.code, said.stderr.as_str()), (6, ""), "{said:?}");
    assert_eq!(
        fs::read_to_string(bundle.join("rootfs/tmp/log")).unwrap(),
        "prestart\ncreateRuntime-1\ncreateRuntime-2\nstartContainer\npoststart\nprogram\npoststop\n"
    );
    for (name, status) in [
        ("prestart", "creating"),
        ("createRuntime-2", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state = fs::read_to_string(bundle.join(format!("{name}.json"))).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["status"], status, "{state}");
        assert_eq!(state["bundle"], bundle.to_str().unwrap());
        assert_eq!(state["annotations"]["com.example.key"], "value");
        assert_eq!(state["pid"].is_u64(), status != "stopped", "{state}");
        assert!(state["ociVersion"].is_string() && state["id"].is_string(), "{state}");
        let env = fs::read_to_string(bundle.join(format!("{name}.env"))).unwrap();
        assert_eq!(env, format!("b {}\n", bundle.display()), "its environment and its directory");
    }
    place.assert_nothing_left();
}

/// createRuntime that fails, or takes too long, fails the run before the container is there; poststop runs all the
/// same. poststart and poststop that fail are warnings.
#[test]
fn hosts_hooks_fail_as_the_specification_says() {
    let place = Place::new();
    let log = |bundle: &Path| {
        let path = bundle.join("rootfs/tmp/log");
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, "").unwrap();
        text
    };
    let last = on_host("poststop");
    let program = ["sh", "-c", "echo program >> /tmp/log"];
    let bundle = bundle_with_hooks(
        &place,
        &program,
        &[
            ("createRuntime", "echo first >> rootfs/tmp/log; echo reason >&2; exit 3"),
            ("createRuntime", "echo second >> rootfs/tmp/log"),
            ("poststop", &last),
        ],
    );
    let config = bundle.join("config.json");
    let run = || place.run(["run", "--rm", "--bundle", bundle.to_str().unwrap()]);
    let said = run();
    assert_eq!(said.code, 125, "{said:?}");
    for words in ["hooks.createRuntime[0] \"/bin/sh\"", "exit status: 3: reason"] {
        assert!(said.stderr.contains(words), "{said:?}");
    }
    assert_eq!(log(&bundle), "first\npoststop\n");
    let change = |hooks: Value| {
        let mut json: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        json["hooks"] = hooks;
        fs::write(&config, json.to_string()).unwrap();
    };
    let shell = |script: &str, timeout: u64| json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": timeout });
    change(json!({ "prestart": [shell("/bin/sleep 1000 & echo $! > child; /bin/sleep 1000", 1)] }));
    let said = run();
    assert!(said.code == 125 && said.stderr.contains("hooks.prestart[0]"), "{said:?}");
    assert!(said.stderr.contains("not done after 1 s"), "{said:?}");
    assert_eq!(log(&bundle), "", "the container was never there");
    let child = fs::read_to_string(bundle.join("child")).unwrap();
    let child = PathBuf::from(format!("/proc/{}/exe", child.trim()));
    until("the hook's own child is killed", || fs::read_link(&child).is_err());
    change(json!({
        "poststart": [shell("exit 4", 5), shell("echo poststart >> rootfs/tmp/log", 5)],
        "poststop": [shell("exit 5", 5), shell("echo poststop >> rootfs/tmp/log", 5)],
    }));
    let said = run();
    assert_eq!(said.code, 0, "{said:?}");
    for words in [
        "hooks.poststart[0] \"/bin/sh\": exit status: 4",
        "hooks.poststop[0] \"/bin/sh\": exit status: 5",
    ] {
        assert!(said.stderr.contains(words), "{said:?}");
    }
    let mut lines: Vec<String> = log(&bundle).lines().map(str::to_owned).collect();
    assert_eq!(lines.pop().as_deref(), Some("poststop"));
    lines.sort();
    assert_eq!(lines, ["poststart", "program"], "in either order");
    change(json!({ "createContainer": [{ "path": "/no/such/hook" }] }));
    let said = run();
    assert!(said.code == 125 && said.stderr.contains("hooks.createContainer[0]"), "{said:?}");
    place.assert_nothing_left();
}
