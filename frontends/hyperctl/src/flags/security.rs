//! `--security-opt`: a seccomp profile of the user's own or none, and no_new_privs.
//!
//! A profile is a file of OCI's `linux.seccomp`, or of docker's form of it, which says of a rule with which capabilities,
//! on which architectures and since which kernel it counts, and of an architecture which others go with it. What is
//! wrong about the file is said when the flag is read; which of its rules count is known when the container is.

use std::collections::HashSet;
use std::fs;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall, Process, Spec,
};
use serde::{Deserialize, Serialize};

/// Far more than any profile has.
const FILE_MAX: u64 = 1 << 20;
/// What docker calls the guests' architecture.
const ARCHITECTURE: &str = "amd64";
/// What the guests run, at least; see kernel/VERSION.
const KERNEL: (u32, u32) = (6, 12);

#[derive(Clone, Debug, Default, clap::Args, Deserialize, Serialize)]
pub struct SecurityFlags {
    /// seccomp=FILE (a profile of OCI's or docker's form) or seccomp=unconfined, no-new-privileges[=true|false]
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = option)]
    pub options: Vec<SecurityOption>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum SecurityOption {
    Seccomp(Option<Box<Profile>>), // none: unconfined
    NoNewPrivileges(bool),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<ArchitectureFamily>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchitectureFamily {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default, skip_serializing)]
    #[allow(dead_code)] // docker's, for people
    comment: Option<String>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<Capability>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<KernelVersion>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
struct KernelVersion(u32, u32);

impl TryFrom<String> for KernelVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = |text: &str| {
            let (major, minor) = text.split_once('.')?;
            Some(Self(major.parse().ok()?, minor.parse().ok()?))
        };
        parse(&text).ok_or_else(|| format!("minKernel {text:?}: not MAJOR.MINOR"))
    }
}

impl From<KernelVersion> for String {
    fn from(KernelVersion(major, minor): KernelVersion) -> Self {
        format!("{major}.{minor}")
    }
}

fn option(text: &str) -> Result<SecurityOption, String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("seccomp", "unconfined") => Ok(SecurityOption::Seccomp(None)),
        ("seccomp", file) if !file.is_empty() => {
            profile(file).map(|profile| SecurityOption::Seccomp(Some(Box::new(profile))))
        }
        ("no-new-privileges", "true") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
        ("no-new-privileges", "") if !text.contains('=') => {
            Ok(SecurityOption::NoNewPrivileges(true))
        }
        ("apparmor" | "label", _) => {
            Err("the guest's kernel has neither AppArmor nor SELinux".to_owned())
        }
        _ => {
            Err("not seccomp=FILE, seccomp=unconfined or no-new-privileges[=true|false]".to_owned())
        }
    }
}

fn profile(file: &str) -> Result<Profile, String> {
    let length = fs::metadata(file).map_err(|err| format!("read {file:?}: {err}"))?.len();
    if length > FILE_MAX {
        return Err(format!("read {file:?}: {length} bytes, more than {FILE_MAX}"));
    }
    let text = fs::read(file).map_err(|err| format!("read {file:?}: {err}"))?;
    let profile: Profile =
        serde_json::from_slice(&text).map_err(|err| format!("read {file:?}: {err}"))?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(format!("read {file:?}: architectures and archMap exclude each other"));
    }
    Ok(profile)
}

impl SecurityFlags {
    pub fn edit_process(&self, process: &mut Process) {
        for option in &self.options {
            if let SecurityOption::NoNewPrivileges(value) = option {
                process.set_no_new_privileges(Some(*value));
            }
        }
    }

    /// A profile that the user gives is for a privileged container too, as with docker.
    pub fn edit_spec(&self, spec: &mut Spec) {
        for option in &self.options {
            let SecurityOption::Seccomp(profile) = option else { continue };
            let sets = spec.process().as_ref().and_then(|process| process.capabilities().clone());
            let bounding = sets.and_then(|sets| sets.bounding().clone()).unwrap_or_default();
            let mut linux = spec.linux().clone().unwrap_or_default();
            linux.set_seccomp(profile.as_ref().map(|profile| profile.resolve(&bounding)));
            spec.set_linux(Some(linux));
        }
    }
}

impl Profile {
    /// OCI's form, for a process with these capabilities.
    fn resolve(&self, capabilities: &HashSet<Capability>) -> LinuxSeccomp {
        let family = |family: &ArchitectureFamily| {
            let others = family.sub_architectures.clone().unwrap_or_default();
            std::iter::once(family.architecture).chain(others).collect::<Vec<_>>()
        };
        let native = self.arch_map.iter().find(|one| one.architecture == Arch::ScmpArchX86_64);
        let architectures = native.map_or_else(|| self.architectures.clone(), family);
        let rules = self.syscalls.iter().filter(|rule| rule.counts(capabilities)).map(Rule::to_oci);
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures((!architectures.is_empty()).then_some(architectures))
            .set_flags((!self.flags.is_empty()).then(|| self.flags.clone()))
            .set_syscalls(Some(rules.collect()));
        profile
    }
}

impl Rule {
    /// All that it includes must be so, and nothing that it excludes.
    fn counts(&self, capabilities: &HashSet<Capability>) -> bool {
        let is_included = self.includes.as_ref().is_none_or(|includes| {
            let has = |capability| capabilities.contains(capability);
            includes.caps.iter().flatten().all(has)
                && includes.names_architecture().unwrap_or(true)
                && includes.min_kernel.is_none_or(KernelVersion::is_reached)
        });
        let is_excluded = self.excludes.as_ref().is_some_and(|excludes| {
            let has = |capability| capabilities.contains(capability);
            excludes.caps.iter().flatten().any(has)
                || excludes.names_architecture().unwrap_or(false)
                || excludes.min_kernel.is_some_and(KernelVersion::is_reached)
        });
        is_included && !is_excluded
    }

    fn to_oci(&self) -> LinuxSyscall {
        let mut rule = LinuxSyscall::default();
        rule.set_names(self.names.clone())
            .set_action(self.action)
            .set_errno_ret(self.errno_ret)
            .set_args(self.args.clone().filter(|args| !args.is_empty()));
        rule
    }
}

impl Conditions {
    /// None: it says nothing of architectures.
    fn names_architecture(&self) -> Option<bool> {
        let names = self.arches.as_ref().filter(|names| !names.is_empty())?;
        Some(names.iter().any(|name| name == ARCHITECTURE))
    }
}

impl KernelVersion {
    fn is_reached(self) -> bool {
        (self.0, self.1) <= KERNEL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docker's form with a rule for each of its conditions.
    const DOCKERS: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] },
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] }
        ],
        "syscalls": [
            { "names": ["plain"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "c", "includes": {}, "excludes": {} },
            { "names": ["with_admin"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["with_both"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN", "CAP_BPF"] } },
            { "names": ["without_admin"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390", "s390x"] } },
            { "names": ["ours"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["amd64", "x32"] } },
            { "names": ["not_ours"], "action": "SCMP_ACT_ALLOW", "excludes": { "arches": ["amd64"] } },
            { "names": ["old"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
            { "names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "6.13" } },
            { "names": ["not_old"], "action": "SCMP_ACT_ALLOW", "excludes": { "minKernel": "4.8" },
              "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }
        ]
    }"#;

    fn parse(text: &str) -> Result<SecurityOption, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        option(&format!("seccomp={}", file.path().display()))
    }

    fn resolve(text: &str, capabilities: &[Capability]) -> LinuxSeccomp {
        let Ok(SecurityOption::Seccomp(Some(profile))) = parse(text) else { panic!("{text}") };
        profile.resolve(&capabilities.iter().copied().collect())
    }

    fn names(profile: &LinuxSeccomp) -> Vec<&str> {
        profile
            .syscalls()
            .iter()
            .flatten()
            .flat_map(|rule| rule.names())
            .map(String::as_str)
            .collect()
    }

    #[test]
    fn a_rule_counts_where_its_conditions_hold() {
        let none = resolve(DOCKERS, &[]);
        assert_eq!(names(&none), ["plain", "without_admin", "ours", "old"]);
        let admin = resolve(DOCKERS, &[Capability::SysAdmin]);
        assert_eq!(names(&admin), ["plain", "with_admin", "ours", "old"]);
        let both = resolve(DOCKERS, &[Capability::SysAdmin, Capability::Bpf]);
        assert_eq!(names(&both), ["plain", "with_admin", "with_both", "ours", "old"]);
        let of_x86 = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
        assert_eq!(none.architectures().as_deref(), Some(&of_x86[..]));
        assert_eq!(
            (none.default_errno_ret(), none.syscalls().as_ref().unwrap()[1].errno_ret()),
            (Some(1), Some(38))
        );
        assert!(none.syscalls().as_ref().unwrap()[0].args().is_none());
    }

    /// hyperctl hands its words to the process that it leaves in the background as JSON.
    #[test]
    fn a_profile_outlives_being_handed_on() {
        let parsed = parse(DOCKERS).unwrap();
        let text = serde_json::to_string(&parsed).unwrap();
        let SecurityOption::Seccomp(Some(one)) = parsed else { panic!("{text}") };
        let Ok(SecurityOption::Seccomp(Some(other))) = serde_json::from_str(&text) else {
            panic!("{text}")
        };
        assert_eq!(one.resolve(&HashSet::new()), other.resolve(&HashSet::new()));
    }

    #[test]
    fn ocis_form_stays_as_it_is() {
        let text = r#"{ "defaultAction": "SCMP_ACT_KILL_PROCESS", "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_LOG",
            "args": [{ "index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ" }] }] }"#;
        let oci: LinuxSeccomp = serde_json::from_str(text).unwrap();
        assert_eq!(resolve(text, &[]), oci);
    }

    #[test]
    fn what_is_no_profile_is_said_with_the_file() {
        for (text, cause) in [
            ("{", "EOF"),
            (r#"{ "syscalls": [] }"#, "defaultAction"),
            (r#"{ "defaultAction": "SCMP_ACT_FLY" }"#, "SCMP_ACT_FLY"),
            (r#"{ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l" }"#, "listenerPath"),
            (
                r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["a"], "action": "SCMP_ACT_LOG",
                     "includes": { "minKernel": "four" } }] }"#,
                "minKernel \"four\": not MAJOR.MINOR",
            ),
            (
                r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["a"], "action": "SCMP_ACT_LOG",
                     "excludes": { "moon": "full" } }] }"#,
                "moon",
            ),
            (
                r#"{ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                     "archMap": [{ "architecture": "SCMP_ARCH_X86_64" }] }"#,
                "exclude each other",
            ),
        ] {
            let err = parse(text).unwrap_err();
            assert!(err.starts_with("read \"/") && err.contains(cause), "{err}");
        }
        assert!(option("seccomp=/nowhere").unwrap_err().contains("/nowhere"));
        for text in ["seccomp", "seccomp=", "no-new-privileges=", "no-new-privileges=maybe", "x=y"]
        {
            assert!(option(text).unwrap_err().starts_with("not seccomp=FILE"), "{text}");
        }
        assert!(option("apparmor=x").unwrap_err().contains("AppArmor"));
    }

    #[test]
    fn the_last_word_counts() {
        let flags = |words: &[&str]| SecurityFlags {
            options: words.iter().map(|word| option(word).unwrap()).collect(),
        };
        let mut process = Process::default();
        flags(&["no-new-privileges", "no-new-privileges=false"]).edit_process(&mut process);
        assert_eq!(process.no_new_privileges(), Some(false));
        flags(&["no-new-privileges"]).edit_process(&mut process);
        assert_eq!(process.no_new_privileges(), Some(true));
    }
}
