//! Which mounts are seen where: propagation of a bind and of the root (mount_namespaces(7)). The guest is the peer.

use harness::edit::put;
use harness::mountinfo::{Mount, Mounts};
use harness::volume::{VOLUME, add_mounts, tmpfs};
use harness::{PATIENCE, Run, Running, Vm, VmConfig};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

fn bind(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": VOLUME, "options": options })
}

/// A container that may mount, has run this script, and waits.
fn waiting<'vm>(
    vm: &'vm Vm,
    name: &str,
    script: &str,
    change: impl FnOnce(&mut Spec),
) -> Running<'vm> {
    let run = Run::shell(&format!("{script} && echo up; sleep 1000")).storage(tmpfs(VOLUME, &[]));
    let container = vm.create_with(name, &run, |spec| {
        let sets = ["bounding", "effective", "permitted"];
        for set in sets {
            let pointer = format!("/process/capabilities/{set}");
            put(spec, &pointer, json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]));
        }
        put(spec, "/linux/seccomp", json!(null)); // the default one knows nothing of the capability
        change(spec);
    });
    vm.run("start", container.container().start()).unwrap();
    container.says("up");
    container
}

fn mounts_of(container: &Running<'_>, exec: &str) -> Mounts {
    let said = container.exec(exec, &Run::busybox(["cat", "/proc/self/mountinfo"])).finish();
    Mounts::parse(said.stdout())
}

fn end(container: &Running<'_>) {
    container.kill();
    container.remove();
}

/// Mounts something in the guest, at a path of its own, for as long as a container that asks for it is there.
fn mount_in_guest<'vm>(vm: &'vm Vm, path: &str) -> Running<'vm> {
    vm.create("later", &Run::probe(["exit", "0"]).storage(tmpfs(path, &[])))
}

/// Each of the eight values is what mountinfo then says of the bind; without one it is private.
#[test]
fn a_bind_has_the_propagation_that_it_asks_for() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    let below = tmpfs(&format!("{VOLUME}/below"), &[]);
    let kinds = [
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
        "unbindable",
        "runbindable",
    ];
    let run =
        Run::busybox(["cat", "/proc/self/mountinfo"]).storage(tmpfs(VOLUME, &[])).storage(below);
    let said = vm.finish_well("web", &run, |spec| {
        let more: Vec<Value> = kinds.map(|kind| bind(&format!("/{kind}"), &["rbind", kind])).into();
        add_mounts(spec, json!(more));
        add_mounts(
            spec,
            json!([bind("/none", &["rbind"]), bind("/both", &["rbind", "slave", "shared"])]),
        );
    });
    let mounts = Mounts::parse(said.stdout());
    let is = |mount: &Mount, kind: &str| match kind {
        "slave" => mount.group("master").is_some() && mount.group("shared").is_none(),
        "shared" => mount.group("shared").is_some() && mount.group("master").is_none(),
        "unbindable" => mount.propagation == ["unbindable"],
        _ => mount.propagation.is_empty(),
    };
    for kind in ["private", "slave", "shared", "unbindable"] {
        assert!(is(mounts.at(&format!("/{kind}")), kind), "{kind}: {mounts:?}");
        for target in [format!("/r{kind}"), format!("/r{kind}/below")] {
            assert!(is(mounts.at(&target), kind), "{target}: {mounts:?}");
        }
    }
    assert!(mounts.at("/none").propagation.is_empty() && mounts.at("/").propagation.is_empty());
    let both = mounts.at("/both");
    assert!(both.group("master").is_some() && both.group("shared").is_some(), "{both:?}");
    assert_eq!(
        mounts.at("/shared").group("shared"),
        mounts.at("/slave").group("master"),
        "one group, the guest's"
    );
    holder.remove();
    vm.shutdown();
}

/// What the guest mounts in a volume later is seen through a slave and not through a private bind; what a container
/// mounts in a shared one is seen by the other containers that have it, and through a slave by nobody else.
#[test]
fn later_mounts_go_where_propagation_says() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    vm.in_volume("mkdir /volume/mine /volume/ours");
    let [private, slave, shared] = [
        ("rprivate", "true"),
        ("rslave", "mount -t tmpfs tmpfs /v/mine"),
        ("rshared", "mount -t tmpfs tmpfs /v/ours"),
    ]
    .map(|(kind, script)| {
        waiting(&vm, kind, script, |spec| add_mounts(spec, json!([bind("/v", &["rbind", kind])])))
    });
    let later = mount_in_guest(&vm, &format!("{VOLUME}/guests"));
    let sees = |container: &Running<'_>| {
        let mounts = mounts_of(container, "look");
        ["/v/guests", "/v/ours", "/v/mine"].map(|target| mounts.find(target).is_some())
    };
    assert_eq!(sees(&shared), [true, true, false]);
    assert_eq!(sees(&slave), [true, true, true]);
    assert_eq!(sees(&private), [false, false, false]);
    later.remove();
    assert!(mounts_of(&slave, "again").find("/v/guests").is_none(), "and it goes again");
    for container in [&private, &slave, &shared] {
        end(container);
    }
    holder.remove();
    vm.shutdown();
}

/// The root is private unless the spec says otherwise: shared is a new peer group, which the guest is not in; slave gets
/// what the guest mounts there later; unbindable cannot be bound.
#[test]
fn the_root_has_the_propagation_that_it_asks_for() {
    let vm = Vm::boot(&VmConfig::default());
    let holder = vm.hold_volume();
    for kind in ["private", "slave", "shared", "unbindable", "none"] {
        let bound = if kind == "unbindable" { "!" } else { "" };
        let script = format!("mkdir -p /mnt && {bound} mount --bind / /mnt 2>/dev/null");
        let web = waiting(&vm, kind, &script, |spec| {
            if kind != "none" {
                put(spec, "/linux/rootfsPropagation", json!(kind));
            }
        });
        let later = mount_in_guest(&vm, &format!("/run/kata-containers/{kind}/rootfs/home"));
        let mounts = mounts_of(&web, "look");
        let root = mounts.at("/");
        let tags = ["shared", "master"].map(|tag| root.group(tag).is_some());
        assert_eq!(tags, [kind == "shared", kind == "slave"], "{kind}: {root:?}");
        assert_eq!(root.propagation == ["unbindable"], kind == "unbindable", "{root:?}");
        assert_eq!(mounts.find("/home").is_some(), kind == "slave", "{kind}");
        later.remove();
        end(&web);
    }
    holder.remove();
    vm.shutdown();
}

/// A mount on a mount that is shared with the guest would show there, and is refused.
#[test]
fn nothing_is_mounted_on_what_the_guest_shares() {
    let vm = Vm::boot(&VmConfig::default());
    let on_it = json!({ "destination": "/v/x", "type": "tmpfs", "source": "tmpfs" });
    let run = Run::busybox(["true"]).storage(tmpfs(VOLUME, &[]));
    let create = |kind: &str| {
        vm.try_create("web", &run, |spec| {
            add_mounts(spec, json!([bind("/v", &["rbind", kind]), on_it]))
        })
    };
    let err = create("rshared").expect_err("shared");
    assert!(err.message().contains("\"/v\" is shared with the guest"), "{err}");
    let web = create("rslave").expect("a slave gives nothing back");
    vm.run("remove", web.remove(PATIENCE)).unwrap();
    vm.shutdown();
}
