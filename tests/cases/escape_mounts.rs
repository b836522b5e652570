//! Ways out of a container by its mounts, its root, its /proc and its working directory, each named after its CVE.
//!
//! Where somebody may change the tree while it is put together, a second container does: it shares a volume with the
//! first and swaps two names in it as fast as it can. What would show an escape is shown to be seen: by a run without
//! the attack, or by doing to the marker what the attack would do.

use std::time::{Duration, Instant};

use harness::edit::put;
use harness::mountinfo::Mounts;
use harness::volume::{VOLUME, add_mounts, tmpfs};
use harness::{PATIENCE, Run, Running, Vm, VmConfig, list_namespace};
use hyperstart::Code;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::{Value, json};

/// How long a race is run, and how many creates must have come of it.
const RACE: Duration = Duration::from_secs(12);
const RACE_CREATES: u32 = 20;

/// A root in the volume that busybox runs in; `more` is run in it.
fn make_root(vm: &Vm, more: &str) {
    let applets =
        "for a in sh cat ls stat id readlink wc sleep grep; do ln -s busybox bin/$a; done";
    vm.in_volume(&format!(
        "mkdir -p /volume/root/bin /volume/outside && cd /volume/root && mkdir dev etc proc sys tmp && \
         cp /bin/busybox bin/ && {applets} && {more}"
    ));
}

/// The root that [`make_root`] made.
fn rooted(spec: &mut Spec) {
    put(spec, "/root/path", json!(format!("{VOLUME}/root")));
}

fn shell(script: &str) -> Run {
    Run::shell(script).storage(tmpfs(VOLUME, &[]))
}

fn bind(source: &str, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind"] })
}

/// The message of a create that must fail.
fn refused(vm: &Vm, what: &str, change: impl FnOnce(&mut Spec)) -> String {
    let created = vm.try_create("bad", &shell("true"), |spec| {
        rooted(spec);
        change(spec);
    });
    created.err().unwrap_or_else(|| panic!("{what}: was made")).to_string()
}

/// What is outside of the root, in the guest; a marker that is put there is seen.
fn assert_nothing_outside(vm: &Vm) {
    assert_eq!(vm.in_volume("ls -A /volume/outside"), "");
    assert_eq!(
        vm.in_volume("mkdir /volume/outside/x; ls -A /volume/outside; rmdir /volume/outside/x"),
        "x\n"
    );
}

/// A second container that swaps two names of the volume until it is killed.
fn swapper<'vm>(vm: &'vm Vm, one: &str, two: &str) -> Running<'vm> {
    let run = Run::probe(["swap", &format!("/volume/{one}"), &format!("/volume/{two}")]);
    let swapper = vm.create_with("swapper", &run.storage(tmpfs(VOLUME, &[])), |spec| {
        add_mounts(spec, json!([bind(VOLUME, "/volume")]));
    });
    vm.run("start", swapper.container().start()).unwrap();
    swapper.says("swapping");
    swapper
}

/// Creates victims until the race is over, and has each that was made looked at.
fn race(vm: &Vm, run: &Run, change: impl Fn(&mut Spec), look: impl Fn(&str)) {
    let begun = Instant::now();
    let (mut made, mut failed) = (0, 0);
    while begun.elapsed() < RACE || made < RACE_CREATES {
        match vm.try_create("victim", run, |spec| change(spec)) {
            Err(_) => failed += 1,
            Ok(container) => {
                made += 1;
                vm.run("start", container.start()).unwrap();
                let (said, status) = vm.run("the end of a victim", async {
                    let mut said = String::new();
                    let mut stdout = container.process().stdout();
                    let read =
                        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said).await;
                    read.unwrap();
                    (said, container.wait().await.unwrap())
                });
                assert_eq!(status.code(), 0, "{said}");
                look(&said);
                vm.run("remove", container.remove(PATIENCE)).unwrap();
            }
        }
        assert!(failed < 1000, "no victim was ever made");
    }
}

/// Nothing but proc is mounted on /proc or below it, by whatever path; files that only tell may be covered.
#[test]
fn cve_2019_16884_nothing_covers_proc() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(&vm, "ln -s proc p; ln -s /proc/self s; echo covered > ../meminfo");
    let over = |destination: &str| {
        [
            json!([{ "destination": destination, "type": "tmpfs", "source": "tmpfs" }]),
            json!([bind(VOLUME, destination)]),
        ]
    };
    for destination in [
        "/proc",
        "//proc/.",
        "/proc/self",
        "/proc/../proc/sys",
        "/p",
        "/p/sys/kernel",
        "/s/task",
        "/sys/../p/1",
    ] {
        for mount in over(destination) {
            let err = refused(&vm, destination, |spec| add_mounts(spec, mount));
            assert!(err.contains("nothing but proc may cover /proc"), "{destination}: {err}");
        }
    }
    let meminfo = json!([bind(&format!("{VOLUME}/meminfo"), "/proc/meminfo")]);
    let said =
        vm.finish_well("good", &shell("cat /proc/meminfo"), |spec| add_mounts(spec, meminfo));
    assert_eq!(said.stdout(), "covered\n");
    let err = refused(&vm, "link", |spec| {
        add_mounts(spec, json!([bind(&format!("{VOLUME}/meminfo"), "/p/meminfo")]))
    });
    assert!(err.contains("nothing but proc"), "{err}");
    holder.remove();
    vm.shutdown();
}

/// Masks are on the proc that was mounted, even if another container has put a false one in its place meanwhile.
#[test]
fn cve_2019_19921_masks_stay_on_the_real_proc() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(
        &vm,
        "mkdir -p proc2 false/sys false/fs && cd false && touch interrupts keys kcore timer_list sysrq-trigger",
    );
    let change = |spec: &mut Spec| {
        rooted(spec);
        add_mounts(spec, json!([{ "destination": "/proc2", "type": "proc", "source": "proc" }]));
    };
    let covers = |mountinfo: &str| {
        let mounts = Mounts::parse(mountinfo);
        let is_real = |at: &str| !at.starts_with("/proc2");
        let real: Vec<_> = mounts
            .all()
            .iter()
            .filter(|mount| mount.fstype == "proc" && mount.root == "/" && is_real(&mount.target))
            .collect();
        assert_eq!(real.len(), 1, "{mountinfo}");
        mounts.all().iter().filter(|mount| mount.parent == real[0].id).count()
    };
    let run = shell("cat /proc2/self/mountinfo");
    let expected = covers(vm.finish_well("calm", &run, change).stdout());
    let unmasked = vm.finish_well("bare", &run, |spec| {
        change(spec);
        put(spec, "/linux/maskedPaths", json!([]));
    });
    assert!(covers(unmasked.stdout()) < expected, "a mask that is missing is seen");
    let attacker = swapper(&vm, "root/proc", "root/false");
    race(&vm, &run, change, |said| assert_eq!(covers(said), expected, "{said}"));
    attacker.kill();
    attacker.remove();
    for link in ["../../outside", "/etc", "sys"] {
        vm.in_volume(&format!("cd /volume/root && rm -rf proc && ln -s {link} proc"));
        let err = refused(&vm, link, |_| {});
        assert!(err.contains("symbolic link"), "{link}: {err}");
    }
    holder.remove();
    vm.shutdown();
}

/// A destination that another container swaps for a link to the guest's root is mounted on in the container or not at
/// all: each mount that was made is seen in it, none has gone elsewhere.
#[test]
fn cve_2021_30465_a_swapped_destination_does_not_lead_out() {
    const TRAPS: usize = 8;
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    vm.in_volume(&format!(
        "cd /volume && mkdir outside vol vol/dir && ln -s {VOLUME}/outside vol/link"
    ));
    let with_traps = |spec: &mut Spec, count: usize| {
        add_mounts(spec, json!([bind(&format!("{VOLUME}/vol"), "/vol")]));
        let trap = |at: usize| json!({ "destination": format!("/vol/dir/t{at}"), "type": "tmpfs", "source": format!("trap-{at}") });
        add_mounts(spec, (0..count).map(trap).collect());
    };
    let traps = |mountinfo: &str| {
        Mounts::parse(mountinfo)
            .all()
            .iter()
            .filter(|mount| mount.source.starts_with("trap-"))
            .count()
    };
    let run = shell("cat /proc/self/mountinfo");
    let fewer = vm.finish_well("fewer", &run, |spec| with_traps(spec, TRAPS - 1));
    assert_eq!(traps(fewer.stdout()), TRAPS - 1, "one that is not in the container is missed");
    let attacker = swapper(&vm, "vol/dir", "vol/link");
    race(
        &vm,
        &run,
        |spec| with_traps(spec, TRAPS),
        |said| assert_eq!(traps(said), TRAPS, "{said}"),
    );
    attacker.kill();
    attacker.remove();
    assert_nothing_outside(&vm);
    holder.remove();
    vm.shutdown();
}

/// What is made for a destination is made inside, though a part of its path is a link that leads out.
#[test]
fn cve_2024_45310_nothing_is_made_outside() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let out = format!("{VOLUME}/outside");
    make_root(
        &vm,
        &format!(
            "ln -s {out} absolute; ln -s ../outside relative; ln -s {out}/file dangling; echo x > ../data"
        ),
    );
    let data = format!("{VOLUME}/data");
    vm.finish_well("web", &shell("true"), |spec| {
        rooted(spec);
        let new = |destination: &str| json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
        let more = [
            new("/absolute/dir"),
            new("/relative/dir/deep"),
            bind(&data, "/absolute/file"),
            bind(&data, "/dangling"),
        ];
        add_mounts(spec, json!(more));
        put(spec, "/process/cwd", json!("/absolute/cwd"));
        let device = json!({ "path": "/relative/node", "type": "p" });
        put(spec, "/linux/devices", json!([device]));
    });
    assert_nothing_outside(&vm);
    assert_eq!(vm.in_volume(&format!("ls /volume/root{out}")), "cwd\ndir\nfile\n", "but inside");
    holder.remove();
    vm.shutdown();
}

/// A destination full of `..` is in the root.
#[test]
fn cve_2022_23648_dots_do_not_climb() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(&vm, "true");
    for up in ["/../../../..", "../../..", "/etc/../../../.."] {
        let inside = format!("{up}{VOLUME}/outside/x");
        let mounts = vm.finish_well("web", &shell("cat /proc/self/mountinfo"), |spec| {
            rooted(spec);
            add_mounts(spec, json!([{ "destination": inside, "type": "tmpfs", "source": "trap" }]));
        });
        let target = format!("{VOLUME}/outside/x");
        assert_eq!(Mounts::parse(mounts.stdout()).at(&target).source, "trap");
        assert_nothing_outside(&vm);
    }
    holder.remove();
    vm.shutdown();
}

/// A root whose /proc or /sys is a link is refused, wherever it leads.
fn assert_links_are_refused(name: &str, fstype: &str) {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(&vm, "mkdir elsewhere");
    let run = shell(&format!("test -d /{name}/self || test -d /{name}/kernel"));
    vm.finish_well("plain", &run, rooted);
    for link in ["elsewhere", "/elsewhere", "../outside", "/", "missing"] {
        vm.in_volume(&format!("cd /volume/root && rm -rf {name} && ln -s {link} {name}"));
        let err = refused(&vm, link, |_| {});
        assert!(
            err.contains("symbolic link") && err.contains(&format!("mount {fstype}")),
            "{link}: {err}"
        );
    }
    vm.in_volume(&format!(
        "cd /volume/root && rm {name} && ln -s elsewhere far && mkdir elsewhere/{name} {name}"
    ));
    let err = refused(&vm, "far", |spec| {
        let destination = format!("/far/{name}");
        add_mounts(spec, json!([{ "destination": destination, "type": fstype, "source": fstype }]));
    });
    assert!(err.contains("symbolic link"), "{err}");
    assert_nothing_outside(&vm);
    holder.remove();
    vm.shutdown();
}

/// /proc as a link: CVE-2023-27561 of runc, CVE-2025-54867 of youki.
#[test]
fn cve_2023_27561_cve_2025_54867_proc_is_no_link() {
    assert_links_are_refused("proc", "proc");
}

/// /sys as a link: CVE-2023-28642 of runc.
#[test]
fn cve_2023_28642_sys_is_no_link() {
    assert_links_are_refused("sys", "sysfs");
}

/// A read-only cgroup mount stays read-only, and a writable one reaches no further than the container's own cgroup,
/// whose limits are not its own to change.
#[test]
fn cve_2023_25809_cgroups_are_not_writable() {
    let vm = Vm::boot(&VmConfig::default());
    let script = "cd /sys/fs/cgroup && cat /proc/self/cgroup && ls -d ../cgroup/user* system* 2>/dev/null; \
                  mkdir child; echo max > memory.max; echo $?; mount -o remount,rw /sys/fs/cgroup; echo $?; \
                  cat /sys/fs/cgroup/release_agent 2>/dev/null; true";
    let read_only = vm.finish("ro", &Run::shell(script));
    assert_eq!(read_only.stdout(), "0::/\n1\n1\n", "{read_only:?}");
    assert_eq!(read_only.stderr().matches("Read-only file system").count(), 2, "{read_only:?}");
    let writable = vm.finish_with("rw", &Run::shell(script), |spec| {
        put(spec, "/mounts/4/options", json!(["nosuid", "noexec", "nodev"]));
        assert_eq!(serde_json::to_value(&*spec).unwrap()["mounts"][4]["type"], "cgroup");
    });
    assert!(!writable.stderr().contains("mkdir"), "the container's own: {writable:?}");
    assert!(writable.stderr().contains("write error: Operation not permitted"), "{writable:?}");
    vm.shutdown();
}

/// No descriptor of PID 1's is a way to a working directory, in a container's first process or in a later one; each has
/// the three streams and nothing else.
#[test]
fn cve_2024_21626_a_working_directory_is_in_the_root() {
    let vm = Vm::boot(&VmConfig::default());
    let web = vm.start("web", &Run::probe(["ignore-signals"]));
    web.says("ready");
    for number in 0..100 {
        for process in ["self", "thread-self"] {
            let run = Run::probe(["read", "init"]).cwd(&format!("/proc/{process}/fd/{number}"));
            let err = web.try_exec("exec", &run).err().expect("an exec outside of the root");
            assert!(err.message().contains("cwd"), "{err}");
        }
        let run = Run::probe(["read", "init"]).cwd(&format!("/proc/self/fd/{number}"));
        let err = vm.try_create("bad", &run, |_| {}).expect_err("a container outside of its root");
        assert!(err.message().contains("cwd"), "{err}");
    }
    let descriptors = |view: &harness::Facts| {
        view.below("fd.").iter().map(|(fd, _)| fd.to_string()).collect::<Vec<_>>()
    };
    let said = web.exec("view", &Run::probe(["view"])).finish().facts();
    assert_eq!(
        (descriptors(&said), descriptors(&vm.view("db"))),
        (vec!["0".into(), "1".into(), "2".into()], vec!["0".into(), "1".into(), "2".into()])
    );
    let more = Run::shell("exec 7</; ls /proc/$$/fd | grep 7");
    assert_eq!(vm.finish("more", &more).stdout(), "7\n", "one more is seen");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A masked path is covered by the guest's own null device: what an image has as /dev/null has no part in it
/// (CVE-2025-31133 of runc, CVE-2025-62161 of youki).
#[test]
fn cve_2025_31133_cve_2025_62161_a_mask_is_the_guests_null() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(
        &vm,
        "ln -s /proc/sys/kernel/core_pattern dev/null; echo word > secret; mkdir private; echo word > private/file",
    );
    let script = "wc -c < /secret; ls /private | wc -l; cat /proc/sys/kernel/core_pattern; stat -c '%F %t:%T' /secret; \
                  echo x > /proc/sys/kernel/core_pattern";
    let run = |masked: Value| {
        vm.finish_with("web", &shell(script), |spec| {
            rooted(spec);
            add_mounts(spec, json!([bind(&format!("{VOLUME}/root/dev"), "/dev")]));
            put(spec, "/linux/maskedPaths", masked);
        })
    };
    let said = run(json!(["/secret", "/private", "/not/there"]));
    assert_eq!(said.stdout(), "0\n0\ncore\ncharacter special file 1:3\n", "{said:?}");
    assert!(said.stderr().contains("Read-only file system"), "{said:?}");
    assert_eq!(
        run(json!([])).stdout(),
        "5\n1\ncore\nregular file 0:0\n",
        "without a mask it is read"
    );
    holder.remove();
    vm.shutdown();
}

/// /dev/console is bound on no link, and a terminal comes from no false multiplexer.
#[test]
fn cve_2025_52565_a_console_goes_where_it_belongs() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(
        &vm,
        "mkdir dev/pts bare bare/pts; touch bare/pts/ptmx; ln -s /proc/sys/kernel/core_pattern bare/pts/0",
    );
    let create = |dev: &str, devpts: bool| {
        vm.try_create("web", &shell("readlink /proc/self/fd/0").terminal(), |spec| {
            rooted(spec);
            add_mounts(spec, json!([bind(&format!("{VOLUME}/root/{dev}"), "/dev")]));
            if devpts {
                add_mounts(spec, json!([{ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] }]));
            } else {
                let config = serde_json::to_value(&*spec).unwrap();
                let rest = config["mounts"].as_array().unwrap().iter().filter(|mount| mount["type"] != "devpts");
                let rest: Value = rest.cloned().collect();
                put(spec, "/mounts", rest);
            }
        })
    };
    let real = create("dev", true).expect("a /dev of its own making");
    vm.run("remove", real.remove(PATIENCE)).unwrap();
    vm.in_volume(
        "cd /volume/root/dev && rm -f console && ln -s /proc/sys/kernel/core_pattern console",
    );
    let err = create("dev", true).expect_err("a console in /proc");
    assert!(err.message().contains("/dev/console") && err.message().contains("ELOOP"), "{err}");
    let err = create("bare", false).expect_err("a false multiplexer");
    assert!(err.message().contains("not the multiplexer of a devpts"), "{err}");
    holder.remove();
    vm.shutdown();
}

/// What is written to /proc for a container goes to the guest's own: with a false one in its root it is not made
/// (CVE-2025-52881 of runc, CVE-2025-62596 of youki).
#[test]
fn cve_2025_52881_cve_2025_62596_proc_is_written_by_the_guests() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(
        &vm,
        "mkdir -p false/self false/sys/kernel && touch false/self/oom_score_adj false/sys/kernel/shmmax",
    );
    let wanted = |spec: &mut Spec| {
        list_namespace(spec, LinuxNamespaceType::Ipc, None);
        put(spec, "/linux/sysctl", json!({ "kernel.shmmax": "4096" }));
        put(spec, "/process/oomScoreAdj", json!(321));
    };
    for mount in [
        json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" }),
        bind(&format!("{VOLUME}/root/false"), "/proc"),
    ] {
        let err = refused(&vm, "a false proc", |spec| {
            wanted(spec);
            add_mounts(spec, json!([mount]));
        });
        assert!(err.contains("nothing but proc may cover /proc"), "{err}");
    }
    vm.in_volume("cd /volume/root && mv proc real && ln -s false proc");
    assert!(refused(&vm, "a link", wanted).contains("symbolic link"));
    assert_eq!(
        vm.in_volume("cd /volume/root/false && cat self/oom_score_adj sys/kernel/shmmax"),
        ""
    );
    vm.in_volume("cd /volume/root && rm proc && mv real proc");
    let script = "cat /proc/self/oom_score_adj /proc/sys/kernel/shmmax";
    let said = vm.finish_well("web", &shell(script), |spec| {
        rooted(spec);
        wanted(spec);
    });
    assert_eq!(said.stdout(), "321\n4096\n");
    holder.remove();
    vm.shutdown();
}

/// Files of an image that the guest reads are read beneath the image's root, wherever their links point.
#[test]
fn cve_2025_24965_passwd_is_read_in_the_root() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    make_root(
        &vm,
        "echo 'evil:x:4242:4243::/:/bin/sh' > ../outside/passwd; echo 'evils:x:77:' > ../outside/group",
    );
    let id = |user: &str| {
        let container = vm.try_create("web", &shell("id -u; id -g").user(user), rooted)?;
        vm.run("start", container.start())?;
        let mut said = String::new();
        let mut stdout = container.process().stdout();
        vm.run("read", tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said)).unwrap();
        vm.run("remove", container.remove(PATIENCE))?;
        Ok::<_, hyperstart::Error>(said)
    };
    for out in ["../../outside".to_owned(), format!("{VOLUME}/outside")] {
        vm.in_volume(&format!(
            "cd /volume/root/etc && rm -f * && ln -s {out}/passwd . && ln -s {out}/group ."
        ));
        for user in ["evil", "0:evils"] {
            let err = id(user).expect_err("a name of the guest's");
            assert_eq!(err.code(), Code::NotFound, "{err}");
        }
    }
    vm.in_volume("cd /volume/root/etc && rm -f * && cp ../../outside/passwd ../../outside/group .");
    assert_eq!(id("evil").unwrap(), "4242\n4243\n");
    assert_eq!(id("0:evils").unwrap(), "0\n77\n");
    holder.remove();
    vm.shutdown();
}
