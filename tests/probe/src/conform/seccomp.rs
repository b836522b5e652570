//! System calls as a profile has them: made, in a child, with arguments that a rule takes and with others.

use std::io;

use libc::c_long;
use serde_json::Value;

use super::expected::{Expected, number, text, texts};
use super::syscall::{End, in_child, raw};
use super::{Findings, compare};

/// Calls that every kernel has and that change nothing with these arguments, whether they succeed or not. A rule's own arguments replace them.
const CALLS: [(&str, c_long, [u64; 6]); 17] = [
    ("getppid", libc::SYS_getppid, [0; 6]),
    ("gettid", libc::SYS_gettid, [0; 6]),
    ("getpgid", libc::SYS_getpgid, [0; 6]),
    ("getpriority", libc::SYS_getpriority, [0; 6]),
    ("sched_yield", libc::SYS_sched_yield, [0; 6]),
    ("alarm", libc::SYS_alarm, [0; 6]),
    ("umask", libc::SYS_umask, [0; 6]),
    ("personality", libc::SYS_personality, [ASK, 0, 0, 0, 0, 0]),
    ("mkdir", libc::SYS_mkdir, [0; 6]),
    ("chmod", libc::SYS_chmod, [0; 6]),
    ("unlink", libc::SYS_unlink, [0; 6]),
    ("mount", libc::SYS_mount, [0; 6]),
    ("socket", libc::SYS_socket, [ASK, 0, 0, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [0; 6]),
    ("setns", libc::SYS_setns, [ASK, 0, 0, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [ASK, 0, 0, 0, 0, 0]),
    ("syslog", libc::SYS_syslog, [ASK, 0, 0, 0, 0, 0]),
];
const ASK: u64 = 0xffff_ffff;

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It reached the kernel's own code.
    Made,
    Refused(i32),
    Killed,
}

/// Each call that a rule names, once as the rule has it and once for each of its arguments otherwise; and calls that no
/// rule names.
pub fn calls(expected: &Expected) -> Findings {
    let Some(profile) = expected.at("/linux/seccomp") else {
        return Ok(compare("mode", "0", super::status("Seccomp")?.as_str()));
    };
    let profile = Profile(profile);
    let mut findings = compare("mode", "2", super::status("Seccomp")?.as_str());
    for (name, call, usual) in CALLS {
        let mut tries = vec![usual];
        for rule in profile.rules(name) {
            tries.extend(variants(rule, usual));
        }
        for arguments in tries {
            let wanted = profile.verdict(name, arguments)?;
            let got = profile.seen(call, arguments)?;
            findings.extend(compare(&format!("{name}{arguments:x?}"), wanted, got));
        }
    }
    Ok(findings)
}

/// Arguments that every condition takes, and for each condition some that it does not.
fn variants(rule: &Value, usual: [u64; 6]) -> Vec<[u64; 6]> {
    let conditions: Vec<Condition<'_>> = conditions(rule).collect();
    let mut taken = usual;
    for condition in &conditions {
        condition.put(&mut taken, true);
    }
    let mut all = vec![taken];
    for condition in &conditions {
        let mut other = taken;
        condition.put(&mut other, false);
        all.push(other);
    }
    all
}

struct Condition<'a> {
    index: usize,
    value: u64,
    value_two: u64,
    op: &'a str,
}

fn conditions(rule: &Value) -> impl Iterator<Item = Condition<'_>> {
    let list = rule.get("args").and_then(Value::as_array).into_iter().flatten();
    list.map(|argument| Condition {
        index: number(argument, "index").and_then(|index| usize::try_from(index).ok()).unwrap_or(0),
        value: number(argument, "value").unwrap_or(0),
        value_two: number(argument, "valueTwo").unwrap_or(0),
        op: text(argument, "op"),
    })
}

impl Condition<'_> {
    fn takes(&self, arguments: [u64; 6]) -> bool {
        let argument = arguments.get(self.index).copied().unwrap_or(0);
        match self.op {
            "SCMP_CMP_NE" => argument != self.value,
            "SCMP_CMP_LT" => argument < self.value,
            "SCMP_CMP_LE" => argument <= self.value,
            "SCMP_CMP_EQ" => argument == self.value,
            "SCMP_CMP_GE" => argument >= self.value,
            "SCMP_CMP_GT" => argument > self.value,
            _ => argument & self.value == self.value_two, // SCMP_CMP_MASKED_EQ
        }
    }

    /// Puts a value that is taken, or one that is not, where there is one.
    fn put(&self, arguments: &mut [u64; 6], is_taken: bool) {
        let near = [
            self.value,
            self.value.wrapping_add(1),
            self.value.wrapping_sub(1),
            self.value_two,
            self.value_two.wrapping_add(1),
            self.value_two ^ self.value,
        ];
        for candidate in near {
            let mut tried = *arguments;
            if let Some(argument) = tried.get_mut(self.index) {
                *argument = candidate;
            }
            if self.takes(tried) == is_taken {
                *arguments = tried;
                return;
            }
        }
    }
}

struct Profile<'a>(&'a Value);

impl<'a> Profile<'a> {
    fn rules(&self, name: &str) -> impl Iterator<Item = &'a Value> {
        let rules = self.0.get("syscalls").and_then(Value::as_array).into_iter().flatten();
        rules.filter(move |rule| texts(rule, "names").contains(&name))
    }

    /// By the one rule that takes the arguments; profiles of the tests have no two that do and disagree.
    fn verdict(&self, name: &str, arguments: [u64; 6]) -> io::Result<Verdict> {
        let takes = |rule: &&Value| conditions(rule).all(|condition| condition.takes(arguments));
        let (action, errno) = match self.rules(name).find(takes) {
            Some(rule) => (text(rule, "action"), number(rule, "errnoRet")),
            None => (text(self.0, "defaultAction"), number(self.0, "defaultErrnoRet")),
        };
        let errno = errno.and_then(|errno| i32::try_from(errno).ok()).unwrap_or(libc::EPERM);
        Ok(match action {
            "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" => Verdict::Made,
            "SCMP_ACT_ERRNO" => Verdict::Refused(errno),
            "SCMP_ACT_TRACE" => Verdict::Refused(libc::ENOSYS), // nobody traces: seccomp(2)
            "SCMP_ACT_KILL"
            | "SCMP_ACT_KILL_THREAD"
            | "SCMP_ACT_KILL_PROCESS"
            | "SCMP_ACT_TRAP" => Verdict::Killed,
            other => return Err(io::Error::other(format!("{other:?}: no action of a test's"))),
        })
    }

    /// An errno is the profile's doing if the profile uses it: profiles of the tests use such as no call gives.
    fn seen(&self, call: c_long, arguments: [u64; 6]) -> io::Result<Verdict> {
        let end = in_child(|| match raw(call, arguments) {
            Ok(_) => 0,
            Err(err) => err.raw_os_error().unwrap_or_default(),
        })?;
        let rules = self.0.get("syscalls").and_then(Value::as_array).into_iter().flatten();
        let used = rules.filter_map(|rule| number(rule, "errnoRet"));
        let used = used.chain(number(self.0, "defaultErrnoRet"));
        Ok(match end {
            End::Killed(libc::SIGSYS) => Verdict::Killed,
            End::Exited(errno) if used.into_iter().any(|used| i32::try_from(used) == Ok(errno)) => {
                Verdict::Refused(errno)
            }
            End::Exited(libc::ENOSYS) => Verdict::Refused(libc::ENOSYS),
            End::Exited(_) => Verdict::Made,
            End::Killed(other) => return Err(io::Error::other(format!("killed by {other}"))),
        })
    }
}
