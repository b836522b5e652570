//! Mounts that are made of something: an overlay of layers, a tmpfs that starts with what it covers, a bind that shows
//! other owners.

use harness::volume::{VOLUME, add_mounts, tmpfs};
use harness::{Run, Vm, VmConfig};
use hyperstart::Code;
use serde_json::{Value, json};

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn overlay(options: &[String]) -> Value {
    json!([{ "destination": "/merged", "type": "overlay", "source": "overlay", "options": options }])
}

fn copy_up(destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["tmpcopyup"].iter().chain(options).copied().collect();
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// Layers lie one above the other, what is written goes to the upper one, and without one nothing can be written.
#[test]
fn an_overlay_is_made_of_the_guests_directories() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    vm.in_volume(
        "cd /volume && mkdir top bottom upper work && echo top > top/both && echo bottom > bottom/both && echo b > bottom/one",
    );
    let lower = format!("lowerdir={VOLUME}/top:{VOLUME}/bottom");
    let upper = format!("upperdir={VOLUME}/upper");
    let work = format!("workdir={VOLUME}/work");
    let run = |script: &str| Run::shell(script).storage(tmpfs(VOLUME, &[]));
    let said =
        vm.finish_well("rw", &run("cd /merged && cat both one && echo new > both"), |spec| {
            add_mounts(
                spec,
                overlay(&[lower.clone(), upper.clone(), work.clone(), "nosuid".into()]),
            );
        });
    assert_eq!(said.stdout(), "top\nb\n");
    assert_eq!(vm.in_volume("cat /volume/upper/both /volume/top/both"), "new\ntop\n");
    let said = vm.finish_with("ro", &run("cat /merged/both; echo x > /merged/both"), |spec| {
        add_mounts(spec, overlay(std::slice::from_ref(&lower)));
    });
    assert_eq!(said.stdout(), "top\n");
    assert!(said.stderr().contains("Read-only file system"), "{said:?}");
    vm.in_volume("ln -s /volume/top /volume/link; ln -s / /volume/out");
    for (options, why) in [
        (vec![format!("lowerdir={VOLUME}/out")], "symbolic link"),
        (vec![format!("lowerdir={VOLUME}/link/x")], "symbolic link"),
        (vec![format!("lowerdir={VOLUME}/nothing")], "ENOENT"),
        (vec![lower.clone(), format!("upperdir={VOLUME}/out"), work], "symbolic link"),
        (vec![lower.clone(), upper], "upperdir and workdir go together"),
        (vec![lower, "no_such_option".into()], "no_such_option"),
    ] {
        let err = vm
            .try_create("bad", &run("true"), |spec| add_mounts(spec, overlay(&options)))
            .expect_err(why);
        assert!(err.message().contains(why), "{options:?}: {err}");
    }
    holder.remove();
    vm.shutdown();
}

/// With `tmpcopyup` a tmpfs starts with what it covers, as it is: content, modes, owners, links, extended attributes.
/// Without it is empty, and what was covered stays as it was.
#[test]
fn a_tmpfs_starts_with_what_it_covers() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    vm.in_volume(
        "cd /volume && chown 3:4 . && chmod 2751 . && mkdir -p d/e && echo data > d/e/file && chown 5:6 d/e/file && \
         chmod 4640 d/e/file && ln -s nowhere d/link && mkfifo d/pipe",
    );
    let set =
        Run::probe(["set-xattr", "/v/d/e/file", "user.key", "value"]).storage(tmpfs(VOLUME, &[]));
    vm.finish_well("set", &set, |spec| add_mounts(spec, json!([bind(VOLUME, "/v", &["bind"])])));
    let look = "stat -c '%n %a %u:%g %F' /v /v/d/e/file /v/d/pipe; cat /v/d/e/file; readlink /v/d/link; \
                echo changed > /v/d/e/file";
    let run = Run::shell(look).storage(tmpfs(VOLUME, &[]));
    let said = vm.finish_well("copy", &run, |spec| {
        add_mounts(spec, json!([bind(VOLUME, "/v", &["bind"]), copy_up("/v", &[])]));
    });
    let expected = [
        "/v 2751 3:4 directory",
        "/v/d/e/file 4640 5:6 regular file",
        "/v/d/pipe 644 0:4 fifo",
        "data",
        "nowhere",
    ];
    assert_eq!(said.stdout().lines().collect::<Vec<_>>(), expected);
    assert_eq!(vm.in_volume("cat /volume/d/e/file"), "data\n", "the copy was changed alone");
    let xattr = Run::probe(["xattr", "/v/d/e/file", "user.key"]).storage(tmpfs(VOLUME, &[]));
    let said = vm.finish_well("xattr", &xattr, |spec| {
        add_mounts(
            spec,
            json!([bind(VOLUME, "/v", &["bind"]), copy_up("/v", &["ro", "mode=700"])]),
        );
    });
    assert_eq!(said.stdout(), "user.key=value\n");
    let plain = Run::shell("ls -A /v; stat -c %a /v").storage(tmpfs(VOLUME, &[]));
    let said = vm.finish_well("plain", &plain, |spec| {
        let empty = json!({ "destination": "/v", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"] });
        add_mounts(spec, json!([bind(VOLUME, "/v", &["bind"]), empty]));
    });
    assert_eq!(said.stdout(), "700\n");
    holder.remove();
    vm.shutdown();
}

/// A directory that is too large to copy is an error, and the guest is none the worse for it.
#[test]
fn too_much_to_copy_is_an_error() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let refused = |options: &[&str]| {
        let run = Run::busybox(["true"]).storage(tmpfs(VOLUME, &[]));
        let created = vm.try_create("bad", &run, |spec| {
            add_mounts(spec, json!([bind(VOLUME, "/v", &["bind"]), copy_up("/v", options)]));
        });
        let err = created.expect_err("too much");
        assert_eq!(err.code(), Code::ResourceExhausted, "{err}");
        err.message().to_owned()
    };
    vm.in_volume("truncate -s 300M /volume/sparse");
    let said = refused(&[]);
    assert!(said.contains("\"sparse\"") && said.contains("too many bytes"), "{said}");
    vm.in_volume("rm /volume/sparse; for i in $(seq 40); do echo $i > /volume/$i; done");
    assert!(refused(&["nr_inodes=20"]).contains("ENOSPC"));
    vm.in_volume("cd /volume; rm *; for i in $(seq 70); do mkdir d; cd d; done");
    assert!(refused(&[]).contains("too many directories in directories"));
    holder.remove();
    vm.shutdown();
}

/// A bind with mappings shows other owners, and writes as them; `ridmap` does so for what is below too.
#[test]
fn an_idmapped_bind_shows_other_owners() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let below = format!("{VOLUME}/below");
    let maps = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let mapped = |destination: &str, options: &[&str]| {
        let mut mount = bind(VOLUME, destination, options);
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps.clone();
        mount
    };
    vm.in_volume(
        "touch /volume/0 /volume/7 /volume/99; chown 7:7 /volume/7; chown 99:99 /volume/99",
    );
    let look = "stat -c '%n %u:%g' /*/0 /*/7 /*/99 /*/below; touch /single/new 2>&1";
    let run = Run::shell(look).storage(tmpfs(VOLUME, &[])).storage(tmpfs(&below, &[]));
    let said = vm.finish_with("web", &run, |spec| {
        add_mounts(
            spec,
            json!([
                bind(VOLUME, "/plain", &["rbind"]),
                mapped("/single", &["rbind", "idmap"]),
                mapped("/tree", &["rbind", "ridmap"]),
                mapped("/silent", &["bind"]),
            ]),
        );
    });
    for expected in [
        "/plain/0 0:0",
        "/plain/7 7:7",
        "/plain/99 99:99",
        "/plain/below 0:0",
        "/single/0 1000:1000",
        "/single/7 1007:1007",
        "/single/99 65534:65534",
        "/single/below 0:0",
        "/tree/0 1000:1000",
        "/tree/below 1000:1000",
        "/silent/7 1007:1007",
    ] {
        assert!(said.stdout().lines().any(|line| line == expected), "{expected}: {said:?}");
    }
    assert!(said.stdout().contains("Value too large"), "root has no id there: EOVERFLOW {said:?}");
    let user = Run::shell("touch /single/made").storage(tmpfs(VOLUME, &[])).user("1003:1003");
    vm.in_volume("chmod 777 /volume");
    vm.finish_well("user", &user, |spec| {
        add_mounts(spec, json!([mapped("/single", &["bind", "idmap"])]))
    });
    assert_eq!(vm.in_volume("stat -c %u:%g /volume/made"), "3:3\n");
    let refused = |mount: Value| {
        let run = Run::busybox(["true"]).storage(tmpfs(VOLUME, &[]));
        let created = vm.try_create("bad", &run, |spec| add_mounts(spec, json!([mount])));
        created.expect_err("refused").to_string()
    };
    let err = refused(bind(VOLUME, "/m", &["bind", "idmap"]));
    assert!(err.contains("\"idmap\" without mappings"), "{err}");
    let mut half = mapped("/m", &["bind", "idmap"]);
    half.as_object_mut().unwrap().remove("gidMappings");
    assert!(refused(half).contains("mounts[7].gidMappings"));
    let mut proc = mapped("/m", &["bind", "idmap"]);
    proc["source"] = json!("/proc");
    let err = refused(proc);
    assert!(err.contains("idmap: not supported by the filesystem"), "{err}");
    holder.remove();
    vm.shutdown();
}
