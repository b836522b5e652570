//! Profiles against libseccomp: `golden.txt`, written by `golden.py`, has its answers.

use super::*;
use crate::container::seccomp_answer;
use crate::error::Code;

const GOLDEN: &str = include_str!("golden.txt");
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;

/// A profile of the file, and what libseccomp answers: architecture, call, arguments, answer.
#[derive(Default)]
struct Case {
    name: String,
    profile: oci::LinuxSeccomp,
    answers: Vec<(u32, u32, [u64; 6], u32)>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let (kind, rest) = line.split_once(' ').unwrap();
        if kind == "profile" {
            cases.push(Case { name: rest.to_owned(), ..Case::default() });
            continue;
        }
        let Case { profile, answers, .. } = cases.last_mut().unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        match kind {
            "default" => {
                profile.DefaultAction = words[0].to_owned();
                profile.DefaultErrnoRet = words[1].parse().ok();
            }
            "architecture" => profile.Architectures.push(rest.to_owned()),
            "rule" => profile.Syscalls.push(rule(rest)),
            "calls" => {
                let (first, last): (u32, u32) =
                    (words[0].parse().unwrap(), words[1].parse().unwrap());
                let answer = hex32(words[2]);
                answers.extend((first..=last).map(|number| (NATIVE, number, [0; 6], answer)));
            }
            "foreign" => answers.push((hex32(words[0]), 1, [0; 6], hex32(words[1]))),
            "call" => {
                let arguments: Vec<u64> = words[1].split(',').map(hex64).collect();
                let arguments = arguments.try_into().unwrap();
                answers.push((NATIVE, words[0].parse().unwrap(), arguments, hex32(words[2])));
            }
            other => panic!("golden.txt: {other:?}"),
        }
    }
    cases
}

fn hex32(text: &str) -> u32 {
    u32::from_str_radix(text, 16).unwrap()
}

fn hex64(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

fn rule(text: &str) -> oci::LinuxSyscall {
    let mut parts = text.split(" | ");
    let (action, errno) = parts.next().unwrap().split_once(' ').unwrap();
    let mut rule = oci::LinuxSyscall::new();
    rule.Action = action.to_owned();
    if let Ok(errno) = errno.parse() {
        rule.set_errnoret(errno);
    }
    rule.Names = parts.next().unwrap().split(' ').map(str::to_owned).collect();
    rule.Args = parts.map(argument).collect();
    rule
}

fn argument(text: &str) -> oci::LinuxSeccompArg {
    let words: Vec<&str> = text.split(' ').collect();
    let mut argument = oci::LinuxSeccompArg::new();
    argument.Index = words[0].parse().unwrap();
    argument.Op = words[1].to_owned();
    argument.Value = hex64(words[2]);
    argument.ValueTwo = hex64(words[3]);
    argument
}

/// Those of a case's answers that its profile gives otherwise.
fn differences(case: &Case, profile: oci::LinuxSeccomp) -> Vec<String> {
    let filter = filter(profile).unwrap();
    let differs = |(architecture, number, arguments, expected): &(u32, u32, [u64; 6], u32)| {
        let ours = seccomp_answer(&filter, *architecture, *number, *arguments);
        let said = || format!("{}: {number} {arguments:x?}: {ours:x}, {expected:x}", case.name);
        (ours != *expected).then(said)
    };
    case.answers.iter().filter_map(differs).collect()
}

#[test]
fn every_answer_is_libseccomps() {
    let cases = cases();
    let differences: Vec<String> =
        cases.iter().flat_map(|case| differences(case, case.profile.clone())).collect();
    let rows: usize = cases.iter().map(|case| case.answers.len()).sum();
    assert!(cases.len() > 30 && rows > 20_000, "{} profiles, {rows} rows", cases.len());
    assert!(differences.is_empty(), "{} of {rows}: {:#?}", differences.len(), differences.get(..9));
}

/// Whatever is changed in a rule of the table, some row of its profile notices.
#[test]
fn a_changed_rule_is_noticed() {
    let mut changed = 0;
    for case in cases() {
        for at in 0..case.profile.Syscalls.len() {
            let differs = |change: fn(&mut oci::LinuxSyscall)| {
                let mut profile = case.profile.clone();
                change(&mut profile.Syscalls[at]);
                let Ok(filter) = filter(profile) else { return true };
                case.answers.iter().any(|(architecture, number, arguments, expected)| {
                    seccomp_answer(&filter, *architecture, *number, *arguments) != *expected
                })
            };
            // A rule that says nothing, or that others make needless, may change as it likes.
            let is_needed = differs(|rule| rule.Names = vec!["no_such_call".to_owned()]);
            if !is_needed || case.profile.Syscalls[at].Names.len() > 1 {
                continue;
            }
            changed += 1;
            assert!(
                differs(|rule| {
                    rule.Action = "SCMP_ACT_TRACE".to_owned();
                    rule.set_errnoret(4711);
                }),
                "{}: action of rule {at}",
                case.name
            );
            if !case.profile.Syscalls[at].Args.is_empty() {
                assert!(differs(turn_round), "{}: args of rule {at}", case.name);
            }
        }
    }
    assert!(changed > 300, "{changed}");
}

/// Makes the first condition another.
fn turn_round(rule: &mut oci::LinuxSyscall) {
    let argument = &mut rule.Args[0];
    argument.Op = match argument.Op.as_str() {
        "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ" => "SCMP_CMP_NE",
        "SCMP_CMP_NE" => "SCMP_CMP_EQ",
        "SCMP_CMP_LT" => "SCMP_CMP_GE",
        "SCMP_CMP_GE" => "SCMP_CMP_LT",
        "SCMP_CMP_LE" => "SCMP_CMP_GT",
        "SCMP_CMP_GT" => "SCMP_CMP_LE",
        other => panic!("golden.txt: {other:?}"),
    }
    .to_owned();
}

fn small() -> oci::LinuxSeccomp {
    let mut profile = oci::LinuxSeccomp::new();
    profile.DefaultAction = "SCMP_ACT_ERRNO".to_owned();
    profile.Syscalls = vec![rule("SCMP_ACT_ALLOW - | read write")];
    profile
}

fn refusal(change: impl FnOnce(&mut oci::LinuxSeccomp)) -> (Code, String) {
    let mut profile = small();
    change(&mut profile);
    let err = seccomp(profile).unwrap_err();
    (err.code(), err.message().to_owned())
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_name() {
    let killable = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
    let refusals = [
        (
            refusal(|p| p.DefaultAction = "SCMP_ACT_NOTIFY".to_owned()),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY".to_owned(),
        ),
        (
            refusal(|p| p.Syscalls[0].Action = "SCMP_ACT_NOTIFY".to_owned()),
            "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY".to_owned(),
        ),
        (
            refusal(|p| p.Flags = vec![killable.to_owned()]),
            format!("linux.seccomp.flags: {killable:?}"),
        ),
    ];
    for ((code, message), field) in refusals {
        assert_eq!(code, Code::Unimplemented, "{message}");
        assert_eq!(message, format!("{field}: not supported by this guest"));
    }
}

#[test]
fn what_is_wrong_is_refused_by_its_field() {
    let argument = |text| vec![argument(text)];
    let refusals = [
        (refusal(|p| p.DefaultAction.clear()), "linux.seccomp.defaultAction: \"\" is no action"),
        (
            refusal(|p| p.DefaultErrnoRet = Some(4096)),
            "linux.seccomp.defaultAction: errno 4096 is more than 4095",
        ),
        (
            refusal(|p| p.Syscalls[0].set_errnoret(1)),
            "linux.seccomp.syscalls[0].action: SCMP_ACT_ALLOW takes no errno",
        ),
        (
            refusal(|p| p.Syscalls[0] = rule("SCMP_ACT_TRACE 65536 | read")),
            "linux.seccomp.syscalls[0].action: errno 65536 is more than 65535",
        ),
        (refusal(|p| p.Syscalls[0].Names.clear()), "linux.seccomp.syscalls[0].names: empty"),
        (
            refusal(|p| p.Syscalls[0].Args = argument("6 SCMP_CMP_EQ 0 0")),
            "linux.seccomp.syscalls[0].args[0]: index 6 is more than 5",
        ),
        (
            refusal(|p| p.Syscalls[0].Args = argument("0 SCMP_CMP_XX 0 0")),
            "linux.seccomp.syscalls[0].args[0]: op \"SCMP_CMP_XX\" is none",
        ),
        (
            refusal(|p| p.Flags = vec!["SECCOMP_FILTER_FLAG_NEW_LISTENER".to_owned()]),
            "linux.seccomp.flags: \"SECCOMP_FILTER_FLAG_NEW_LISTENER\": no such flag",
        ),
        (
            refusal(|p| p.Architectures = vec!["SCMP_ARCH_PDP11".to_owned()]),
            "linux.seccomp.architectures: \"SCMP_ARCH_PDP11\": no such architecture",
        ),
        (
            refusal(|p| p.Architectures = vec!["SCMP_ARCH_S390X".to_owned()]),
            "linux.seccomp.architectures: \"SCMP_ARCH_S390X\": big-endian, and this machine is not",
        ),
        (
            refusal(|p| p.Syscalls[0].Names = vec!["read".to_owned(); NAMES_MAX + 1]),
            "linux.seccomp.syscalls[].names: 8193 entries, more than 8192",
        ),
    ];
    for ((code, message), expected) in refusals {
        assert_eq!((code, message.as_str()), (Code::InvalidArgument, expected));
    }
}

#[test]
fn a_call_that_is_unknown_is_passed_over() {
    let mut profile = small();
    profile.Syscalls[0].Names.push("no_such_call".to_owned());
    assert_eq!(seccomp(profile).unwrap().rules.len(), 2);
}
