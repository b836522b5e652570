//! What a container may do beyond an ordinary process: capabilities, and all of it at once (`--privileged`).
//!
//! The order of --cap-add and --cap-drop does not matter, as with docker: what is added wins over what is dropped, and
//! with ALL either is the start and the other the exceptions.

use std::collections::HashSet;

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxDeviceCgroup, LinuxDeviceType, Process, Spec,
};
use serde::{Deserialize, Serialize};

use super::devices::DeviceFlag;

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct PrivilegeFlags {
    /// Add a capability, such as SYS_TIME, or ALL
    #[arg(long, value_name = "CAP", value_parser = choice)]
    pub cap_add: Vec<Choice>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP", value_parser = choice)]
    pub cap_drop: Vec<Choice>,
    /// Everything that its VM can give: all capabilities and devices of the guest, no seccomp, nothing hidden or
    /// read-only. The host stays out of reach
    #[arg(long)]
    pub privileged: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Choice {
    All,
    One(Capability),
}

/// capabilities(7), in the order of their numbers.
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Mounts that docker makes writable for a privileged container.
const WRITABLE: [&str; 2] = ["sysfs", "cgroup"];

impl PrivilegeFlags {
    pub fn edit_process(&self, process: &mut Process) {
        if self.cap_add.is_empty() && self.cap_drop.is_empty() && !self.privileged {
            return;
        }
        let old = process.capabilities().clone().unwrap_or_default();
        let set = |old: &Option<HashSet<Capability>>| Some(self.choose(old.iter().flatten()));
        let mut new = LinuxCapabilities::default();
        new.set_bounding(set(old.bounding()))
            .set_effective(set(old.effective()))
            .set_permitted(set(old.permitted()));
        // These two can hold no more than the others: what is dropped goes, nothing is added.
        let rest = |old: &Option<HashSet<Capability>>| {
            let all = self.choose(old.iter().flatten());
            old.as_ref().map(|old| old.intersection(&all).copied().collect())
        };
        new.set_inheritable(rest(old.inheritable())).set_ambient(rest(old.ambient()));
        process.set_capabilities(Some(new));
    }

    fn choose<'a>(&self, old: impl Iterator<Item = &'a Capability>) -> HashSet<Capability> {
        let named = |choices: &[Choice]| -> HashSet<Capability> {
            choices.iter().filter_map(Choice::one).collect()
        };
        let (added, dropped) = (named(&self.cap_add), named(&self.cap_drop));
        if self.privileged {
            return ALL.into();
        }
        if self.cap_add.contains(&Choice::All) {
            return ALL.into_iter().filter(|one| !dropped.contains(one)).collect();
        }
        if self.cap_drop.contains(&Choice::All) {
            return added;
        }
        old.copied().filter(|one| !dropped.contains(one)).chain(added.iter().copied()).collect()
    }

    pub fn edit_spec(&self, spec: &mut Spec) {
        if !self.privileged {
            return;
        }
        let mut linux = spec.linux().clone().unwrap_or_default();
        linux.set_seccomp(None).set_masked_paths(None).set_readonly_paths(None);
        let mut resources = linux.resources().clone().unwrap_or_default();
        let mut any = LinuxDeviceCgroup::default();
        any.set_allow(true).set_typ(Some(LinuxDeviceType::A)).set_access(Some("rwm".into()));
        resources.set_devices(Some(vec![any]));
        linux.set_resources(Some(resources));
        spec.set_linux(Some(linux));
        for mount in spec.mounts_mut().iter_mut().flatten() {
            if WRITABLE.contains(&mount.typ().as_deref().unwrap_or_default()) {
                let options = mount.options().iter().flatten();
                mount.set_options(Some(options.filter(|word| *word != "ro").cloned().collect()));
            }
        }
    }

    /// All devices of the guest, for a privileged container.
    pub fn devices(&self) -> Option<DeviceFlag> {
        self.privileged.then(DeviceFlag::all)
    }
}

impl Choice {
    fn one(&self) -> Option<Capability> {
        match self {
            Choice::All => None,
            Choice::One(capability) => Some(*capability),
        }
    }
}

/// With or without CAP_, in any case.
fn choice(text: &str) -> Result<Choice, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        return Ok(Choice::All);
    }
    name.parse().map(Choice::One).map_err(|_| {
        format!("there is no capability {text:?}; capabilities(7) lists them, ALL is every one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(add: &[&str], drop: &[&str]) -> PrivilegeFlags {
        let choices = |names: &[&str]| names.iter().map(|name| choice(name).unwrap()).collect();
        PrivilegeFlags { cap_add: choices(add), cap_drop: choices(drop), privileged: false }
    }

    fn chosen(add: &[&str], drop: &[&str]) -> HashSet<Capability> {
        flags(add, drop).choose([Capability::Chown, Capability::Kill].iter())
    }

    #[test]
    fn names_are_taken_with_and_without_their_prefix() {
        for text in ["SYS_TIME", "CAP_SYS_TIME", "sys_time", "cap_sys_time"] {
            assert_eq!(choice(text), Ok(Choice::One(Capability::SysTime)), "{text}");
        }
        assert_eq!((choice("ALL"), choice("cap_all")), (Ok(Choice::All), Ok(Choice::All)));
        for bad in ["", "CAP_", "SYSTIME", "CAP_CAP_KILL", "KILL,CHOWN"] {
            assert!(choice(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dockers_rules_hold_for_adding_and_dropping() {
        use Capability::{Chown, Kill, SysTime};
        assert_eq!(chosen(&["SYS_TIME"], &["KILL"]), [Chown, SysTime].into());
        assert_eq!(chosen(&["KILL"], &["KILL"]), [Chown, Kill].into(), "added wins");
        assert_eq!(chosen(&["KILL"], &["ALL"]), [Kill].into());
        assert_eq!(chosen(&[], &["ALL"]), HashSet::new());
        let but_kill = chosen(&["ALL"], &["KILL"]);
        assert!(but_kill.len() == 40 && !but_kill.contains(&Kill));
        assert_eq!(ALL.iter().collect::<HashSet<_>>().len(), 41);
    }

    #[test]
    fn what_is_dropped_is_in_no_set() {
        let mut process = Process::default();
        let mut capabilities = LinuxCapabilities::default();
        let both = Some(HashSet::from([Capability::Chown, Capability::Kill]));
        capabilities.set_ambient(both.clone()).set_inheritable(both.clone()).set_bounding(both);
        process.set_capabilities(Some(capabilities));
        flags(&["SYS_TIME"], &["KILL"]).edit_process(&mut process);
        let capabilities = process.capabilities().clone().unwrap();
        assert_eq!(capabilities.ambient(), &Some([Capability::Chown].into()));
        assert_eq!(capabilities.inheritable(), &Some([Capability::Chown].into()));
        let bounding = capabilities.bounding().clone().unwrap();
        assert_eq!(bounding, [Capability::Chown, Capability::SysTime].into());
    }

    #[test]
    fn privileged_hides_and_confines_nothing() {
        let id = hyperstart::ContainerId::new("c").unwrap();
        let mut spec = hyperstart::spec::default_spec(&id, Process::default());
        PrivilegeFlags::default().edit_spec(&mut spec);
        assert!(!spec.linux().as_ref().unwrap().masked_paths().as_ref().unwrap().is_empty());
        PrivilegeFlags { privileged: true, ..Default::default() }.edit_spec(&mut spec);
        let linux = spec.linux().clone().unwrap();
        assert_eq!((linux.masked_paths(), linux.readonly_paths()), (&None, &None));
        let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
        assert!(rules[0].allow() && rules[0].typ() == Some(LinuxDeviceType::A));
        let read_only = |kind: &str| {
            let mounts = spec.mounts().iter().flatten();
            let mut mounts = mounts.filter(|mount| mount.typ().as_deref() == Some(kind));
            mounts.any(|mount| mount.options().iter().flatten().any(|option| option == "ro"))
        };
        assert!(!read_only("sysfs") && !read_only("cgroup"));
    }
}
