//! Looks into a guest from a container that may see all of it: the guest's own `/proc` and its kernel's log.
//!
//! The container is of the tests' making and has every capability; nothing in the guest knows it.
use oci_spec::runtime::{
    Capability, LinuxDeviceCgroupBuilder, LinuxResourcesBuilder, MountBuilder, Spec,
};

use crate::capabilities::add_capabilities;
use crate::container::{Finished, Run};
use crate::facts::Facts;
use crate::vm::Vm;

/// How the kernel begins what no healthy guest says.
const KERNEL_COMPLAINTS: &[&str] =
    &["WARNING:", "BUG:", "Oops", "blocked for more than", "rcu_sched", "general protection"];
/// The container that looks.
const INSPECTOR: &str = "inspector";
const CAPABILITIES: [Capability; 5] = [
    Capability::SysPtrace, // /proc/1/smaps_rollup, /proc/1/fd
    Capability::Syslog,    // /dev/kmsg
    Capability::SysAdmin,
    Capability::DacOverride,
    Capability::DacReadSearch,
];

impl Vm {
    /// Runs a process that sees the guest's `/proc` at `/guest/proc`, and its kernel's log at `/guest/kmsg`.
    pub fn inspect(&self, run: &Run) -> Finished {
        self.finish_with(INSPECTOR, run, privileged)
    }

    /// What PID 1 costs: names as in `smaps_rollup`, in KiB, and `threads`, `descriptors`.
    pub fn init_memory(&self) -> Facts {
        self.inspect(&Run::probe(["init-memory", "/guest/proc"])).facts()
    }

    /// The guest as its PID 1 sees it.
    pub fn guest_view(&self) -> Facts {
        self.inspect(&Run::probe(["guest", "/guest/proc", "/guest/kmsg"])).facts()
    }

    /// All that the guest holds, one fact a line, in order: the same lines are the same guest.
    pub fn guest_state(&self) -> Vec<String> {
        let said = self.inspect(&Run::probe(["guest-state", "/guest/proc"]));
        assert_eq!((said.code, said.stderr()), (0, ""));
        said.stdout().lines().map(str::to_owned).collect()
    }

    /// Fails if the guest holds anything that an idle one does not.
    pub fn assert_clean(&self) {
        let view = self.guest_view();
        assert_eq!(view.all("zombie"), Vec::<&str>::new(), "zombies in the guest");
        let mine = |process: &&str| process.ends_with(" init") || process.ends_with(" probe");
        let processes = view.all("process");
        let inits = 1 + usize::from(self.shares_pids()); // process 1 of the shared namespace
        assert!(
            processes.len() == 1 + inits && processes.iter().all(mine),
            "processes left: {processes:?}"
        );
        let left: Vec<&str> =
            view.all("guest_mount").into_iter().filter(|target| is_left(target)).collect();
        assert!(left.is_empty(), "mounts left: {left:?}");
        let log = view.all("kernel");
        assert!(!log.is_empty(), "the guest's kernel has no log");
        let complaints: Vec<&&str> = log
            .iter()
            .filter(|line| KERNEL_COMPLAINTS.iter().any(|text| line.contains(text)))
            .collect();
        assert_eq!(complaints, Vec::<&&str>::new(), "the guest's kernel complains");
    }
}

/// Whether a mount is a container's, but not the inspector's.
fn is_left(target: &str) -> bool {
    let of_containers =
        ["/run/kata-containers/", "/run/hyperstart/"].iter().any(|dir| target.starts_with(dir));
    of_containers && !target.contains(INSPECTOR) && target != "/run/hyperstart/images/probe"
}

/// Gives a container the guest's `/proc`, its kernel's log, and the rights to use both.
pub fn privileged(spec: &mut Spec) {
    let bind = |source: &str, destination: &str| {
        let options = vec!["bind".to_owned()];
        MountBuilder::default()
            .destination(destination)
            .source(source)
            .typ("bind")
            .options(options)
            .build()
    };
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts
        .extend([bind("/proc", "/guest/proc").unwrap(), bind("/dev/kmsg", "/guest/kmsg").unwrap()]);
    spec.set_mounts(Some(mounts));
    let every_device =
        LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build().unwrap();
    let resources = LinuxResourcesBuilder::default().devices(vec![every_device]).build().unwrap();
    let mut linux = spec.linux().clone().expect("a Linux section");
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    add_capabilities(spec, &CAPABILITIES);
}
