//! Which system calls a container may make: OCI `linux.seccomp`, as a filter that the kernel runs (seccomp(2)).
//!
//! What a profile means is what libseccomp makes of it, which is what runc, crun and kata-agent load
//! (`seccomp/golden.txt` holds its answers):
//!
//! - a rule whose action is the default one says nothing;
//! - of several rules for one call the first without conditions decides, whatever those with conditions say;
//! - else the rules with conditions are ORed. Where two of different actions both match, libseccomp has an order of its
//!   own: see [`Rule::precedence`].
//!
//! One difference: where the default action is an errno, a call that this kernel does not have is ENOSYS, as without
//! a filter. Programs try new calls and fall back on that answer alone; runc does the same.
//!
//! It is one filter, however many actions it has. The kernel runs it for every call's number when it is loaded, to learn
//! which are allowed whatever their arguments (seccomp_cache_prepare), so a chain of comparisons costs its length times
//! the number of calls: [`program`] searches a tree.

mod program;
mod syscalls;
#[cfg_attr(target_arch = "x86_64", path = "seccomp/syscalls_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "seccomp/syscalls_aarch64.rs")]
mod table;

use std::cmp::Reverse;

use crate::error::{Code, Context, Error, Result};
use crate::sys::seccomp::{self, Instruction};
pub use syscalls::number as syscall_named;

/// A container's profile. Its rules are about calls that this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seccomp {
    pub default: Action,
    pub flags: FilterFlags,
    /// Calls of x32 are listed too: without, they kill, as libseccomp has it; with, they are ENOSYS as this kernel has it.
    pub x32: bool,
    pub rules: Vec<Rule>,
}

/// What the kernel does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    KillProcess,
    KillThread,
    Trap,
    Errno(u16),
    /// The message that a tracer gets.
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    /// `SECCOMP_RET_*` of linux/seccomp.h.
    fn value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

/// `SECCOMP_FILTER_FLAG_*`, as seccomp(2) takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterFlags(u32);

impl FilterFlags {
    /// None: this guest does not know it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(Self(match name {
            "SECCOMP_FILTER_FLAG_TSYNC" => 1,
            "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
            _ => return None,
        }))
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub syscall: u32,
    pub action: Action,
    /// All of them must hold; none: the rule is about every call. Each argument at most once.
    pub conditions: Vec<Condition>,
}

/// Of one argument, in all of its 64 bits, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub comparison: Comparison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Equal(u64),
    GreaterOrEqual(u64),
    Greater(u64),
    /// Those bits of the argument that are in the mask.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// Argument, kind of comparison, mask, value.
type Precedence = (Reverse<u8>, u8, Reverse<u64>, Reverse<u64>);

impl Rule {
    /// The rules of a call are tried in this order, of equals the first listed first. It is the one that libseccomp's
    /// tree comes to: by the lowest argument that a rule is about, the higher one first, and of one argument from the
    /// narrower comparison to the wider. (Of two SCMP_CMP_NE it takes one or the other by the word that differs.)
    fn precedence(&self) -> Vec<Precedence> {
        let of = |condition: &Condition| {
            let (group, mask, value) = match condition.comparison {
                Comparison::Equal(value) | Comparison::NotEqual(value) => (0, u64::MAX, value),
                Comparison::Masked { mask, value } => (0, mask, value & mask),
                Comparison::Less(value) | Comparison::LessOrEqual(value) => (1, 0, !value),
                Comparison::Greater(value) | Comparison::GreaterOrEqual(value) => (2, 0, value),
            };
            (Reverse(condition.argument), group, Reverse(mask), Reverse(value))
        };
        self.conditions.iter().map(of).collect()
    }
}

/// A profile as the kernel takes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    program: Vec<Instruction>,
    flags: u32,
}

impl Filter {
    pub fn compile(profile: Seccomp) -> Result<Self> {
        let flags = profile.flags.0;
        let program = program::compile(profile).context(|| "linux.seccomp".to_owned())?;
        Ok(Self { program, flags })
    }

    /// Puts the filter on this thread, for good. It takes CAP_SYS_ADMIN or no_new_privs, and the calls that come after
    /// are the filter's to decide.
    pub fn load(&self) -> Result<()> {
        seccomp::load(&self.program, self.flags).context(|| "load linux.seccomp".to_owned())
    }
}

/// What the rules come to, those that say nothing left out. Nearly all of a profile's hundreds are without conditions:
/// they have a place each, and only the others are sorted.
struct Calls {
    /// By number, as far as there are rules: what the first rule without conditions does.
    decided: Vec<Option<Action>>,
    /// The rules with conditions by number, in the order in which they are tried.
    asked: Vec<Rule>,
}

impl Calls {
    fn new(default: Action, rules: Vec<Rule>) -> Result<Self> {
        let mut calls =
            Self { decided: Vec::with_capacity(table::LAST as usize + 1), asked: Vec::new() };
        for rule in rules.into_iter().filter(|rule| rule.action != default) {
            let at = usize::try_from(rule.syscall).unwrap_or(usize::MAX);
            if calls.decided.len() <= at {
                calls.decided.resize(at + 1, None); // a number of the table, which is below 2^16
            }
            match calls.decided.get_mut(at) {
                Some(decided) if rule.conditions.is_empty() => {
                    decided.get_or_insert(rule.action);
                }
                _ => calls.asked.push(rule),
            }
        }
        for rule in &mut calls.asked {
            rule.conditions.sort_by_key(|condition| condition.argument);
        }
        // Keeps the order of equals.
        calls.asked.sort_by_cached_key(|rule| (rule.syscall, rule.precedence()));
        no_contradiction(&calls.asked)?;
        Ok(calls)
    }
}

fn no_contradiction(asked: &[Rule]) -> Result<()> {
    for (rule, next) in asked.iter().zip(asked.iter().skip(1)) {
        let same = rule.syscall == next.syscall && rule.conditions == next.conditions;
        if same && rule.action != next.action {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "syscalls: {:?} has two actions for the same arguments, {:?} and {:?}",
                    syscalls::name(rule.syscall),
                    rule.action,
                    next.action
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests;
