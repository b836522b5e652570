//! A volume that containers of a test share: a tmpfs of the guest's, and the means to fill it and to mount of it.

use hyperstart::Storage;
use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::container::{Finished, Run, Running};
use crate::edit::edit;
use crate::mountinfo::Mounts;
use crate::vm::Vm;

/// Where it is in the guest.
pub const VOLUME: &str = "/run/kata-containers/sandbox/volume";

/// A tmpfs of the guest's; the same mount point is the same one for all who name it.
pub fn tmpfs(mount_point: &str, options: &[&str]) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        mount_point: mount_point.into(),
        ..Storage::default()
    }
}

/// Adds OCI mounts, as JSON, to a spec.
pub fn add_mounts(spec: &mut Spec, more: Value) {
    edit(spec, |config| {
        let mounts = config.pointer_mut("/mounts").and_then(Value::as_array_mut);
        let more = more.as_array().expect("a list of mounts").clone();
        mounts.expect("a spec has mounts").extend(more);
    });
}

impl Vm {
    /// Makes the volume, and keeps it until the container that comes back is removed.
    pub fn hold_volume(&self) -> Running<'_> {
        self.create("holder", &Run::probe(["exit", "0"]).storage(tmpfs(VOLUME, &[])))
    }

    /// Runs a script of busybox's that sees the volume at /volume; it must succeed.
    pub fn in_volume(&self, script: &str) -> String {
        let run = Run::shell(script).storage(tmpfs(VOLUME, &[]));
        let said = self.finish_with("in-volume", &run, |spec| {
            add_mounts(
                spec,
                serde_json::json!([{
                    "destination": "/volume", "type": "bind", "source": VOLUME, "options": ["rbind"],
                }]),
            );
        });
        assert_eq!((said.code, said.stderr()), (0, ""), "{script}");
        said.stdout().to_owned()
    }

    /// The mounts that a container sees after `change` of its spec.
    pub fn mounts_with(&self, name: &str, change: impl FnOnce(&mut Spec)) -> Mounts {
        let run = Run::busybox(["cat", "/proc/self/mountinfo"]).storage(tmpfs(VOLUME, &[]));
        Mounts::parse(self.finish_well(name, &run, change).stdout())
    }

    /// Runs a container that must end well and say nothing on stderr.
    pub fn finish_well(&self, name: &str, run: &Run, change: impl FnOnce(&mut Spec)) -> Finished {
        let said = self.finish_with(name, run, change);
        assert_eq!((said.code, said.stderr()), (0, ""), "{name} said {:?}", said.stdout());
        said
    }
}
