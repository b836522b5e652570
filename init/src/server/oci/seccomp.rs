//! OCI `linux.seccomp`.
//!
//! What names mean is libseccomp's, how they are put together runc's: a rule that names one argument twice is a rule
//! for each of its conditions, a call that this machine does not have is passed over.

use std::collections::BTreeSet;

use hyperstart_protocol::oci;

use super::{bounded, invalid, unsupported};
use crate::container::{
    Action, Comparison, Condition, FilterFlags, Rule, Seccomp, SeccompFilter, syscall_named,
};
use crate::error::Result;
use crate::log;

/// Names of all rules together: more than twenty times what there are calls.
const NAMES_MAX: usize = 8192;
const ARGUMENTS_MAX: usize = 64;
const ARCHITECTURES_MAX: usize = 64;
/// Of a call.
const LAST_ARGUMENT: u8 = 5;
/// MAX_ERRNO of linux/err.h.
const ERRNO_MAX: u32 = 4095;
const EPERM: u32 = 1;

pub fn filter(profile: oci::LinuxSeccomp) -> Result<SeccompFilter> {
    SeccompFilter::compile(seccomp(profile)?)
}

fn seccomp(profile: oci::LinuxSeccomp) -> Result<Seccomp> {
    let field = "linux.seccomp.defaultAction";
    let default = action(field, &profile.DefaultAction, profile.DefaultErrnoRet)?;
    let names: usize = profile.Syscalls.iter().map(|syscall| syscall.Names.len()).sum();
    bounded(profile.Syscalls.len().max(names), NAMES_MAX, "linux.seccomp.syscalls[].names")?;
    let mut rules = Vec::with_capacity(names);
    for (at, syscall) in profile.Syscalls.iter().enumerate() {
        add_rules(&format!("linux.seccomp.syscalls[{at}]"), syscall, &mut rules)?;
    }
    Ok(Seccomp {
        default,
        flags: flags(&profile.Flags)?,
        x32: lists_x32(&profile.Architectures)?,
        rules,
    })
}

fn add_rules(field: &str, syscall: &oci::LinuxSyscall, rules: &mut Vec<Rule>) -> Result<()> {
    if syscall.Names.is_empty() {
        return invalid(&format!("{field}.names"), "empty");
    }
    let errno = syscall.has_errnoret().then(|| syscall.errnoret());
    let action = action(&format!("{field}.action"), &syscall.Action, errno)?;
    bounded(syscall.Args.len(), ARGUMENTS_MAX, &format!("{field}.args"))?;
    let conditions = syscall
        .Args
        .iter()
        .enumerate()
        .map(|(at, argument)| condition(&format!("{field}.args[{at}]"), argument))
        .collect::<Result<Vec<_>>>()?;
    let arguments: BTreeSet<u8> = conditions.iter().map(|condition| condition.argument).collect();
    let is_apart = arguments.len() < conditions.len();
    for name in &syscall.Names {
        let Some(number) = syscall_named(name) else {
            log::debug!("{field}: no system call {name:?} here, passed over");
            continue;
        };
        let mut add = |conditions| rules.push(Rule { syscall: number, action, conditions });
        if is_apart {
            conditions.iter().for_each(|condition| add(vec![*condition]));
        } else {
            add(conditions.clone());
        }
    }
    Ok(())
}

fn action(field: &str, name: &str, errno: Option<u32>) -> Result<Action> {
    let number = |max: u32| {
        let errno = errno.unwrap_or(EPERM);
        match u16::try_from(errno) {
            Ok(number) if errno <= max => Ok(number),
            _ => invalid(field, &format!("errno {errno} is more than {max}")),
        }
    };
    let action = match name {
        "SCMP_ACT_ERRNO" => return number(ERRNO_MAX).map(Action::Errno),
        "SCMP_ACT_TRACE" => return number(u16::MAX.into()).map(Action::Trace),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_NOTIFY" => return unsupported(&format!("{field}: SCMP_ACT_NOTIFY")),
        _ => return invalid(field, &format!("{name:?} is no action")),
    };
    // OCI: "When the action doesn't support an errno, the runtime MUST print and error and fail."
    if errno.is_some() { invalid(field, &format!("{name} takes no errno")) } else { Ok(action) }
}

fn condition(field: &str, argument: &oci::LinuxSeccompArg) -> Result<Condition> {
    let index = match u8::try_from(argument.Index) {
        Ok(index) if index <= LAST_ARGUMENT => index,
        _ => return invalid(field, &format!("index {} is more than 5", argument.Index)),
    };
    let value = argument.Value;
    let comparison = match argument.Op.as_str() {
        "SCMP_CMP_NE" => Comparison::NotEqual(value),
        "SCMP_CMP_LT" => Comparison::Less(value),
        "SCMP_CMP_LE" => Comparison::LessOrEqual(value),
        "SCMP_CMP_EQ" => Comparison::Equal(value),
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual(value),
        "SCMP_CMP_GT" => Comparison::Greater(value),
        "SCMP_CMP_MASKED_EQ" => Comparison::Masked { mask: value, value: argument.ValueTwo },
        other => return invalid(field, &format!("op {other:?} is none")),
    };
    Ok(Condition { argument: index, comparison })
}

fn flags(names: &[String]) -> Result<FilterFlags> {
    let mut flags = FilterFlags::default();
    for name in names {
        let field = format!("linux.seccomp.flags: {name:?}");
        match FilterFlags::from_name(name) {
            Some(flag) => flags = flags.union(flag),
            // Only a listener is waited for, and that comes with SCMP_ACT_NOTIFY.
            None if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => return unsupported(&field),
            None => return invalid(&field, "no such flag"),
        }
    }
    Ok(flags)
}

/// Whether x32 is among them. A process of this guest can be of no other architecture than the machine's, so what is
/// said for others never comes to bear; that it could be said at all is checked as libseccomp checks it.
fn lists_x32(names: &[String]) -> Result<bool> {
    bounded(names.len(), ARCHITECTURES_MAX, "linux.seccomp.architectures")?;
    for name in names {
        let field = format!("linux.seccomp.architectures: {name:?}");
        match name.as_str() {
            "SCMP_ARCH_NATIVE"
            | "SCMP_ARCH_X86"
            | "SCMP_ARCH_X86_64"
            | "SCMP_ARCH_X32"
            | "SCMP_ARCH_ARM"
            | "SCMP_ARCH_AARCH64"
            | "SCMP_ARCH_LOONGARCH64"
            | "SCMP_ARCH_MIPSEL"
            | "SCMP_ARCH_MIPSEL64"
            | "SCMP_ARCH_MIPSEL64N32"
            | "SCMP_ARCH_PPC64LE"
            | "SCMP_ARCH_RISCV64"
            | "SCMP_ARCH_SH" => {}
            "SCMP_ARCH_M68K"
            | "SCMP_ARCH_MIPS"
            | "SCMP_ARCH_MIPS64"
            | "SCMP_ARCH_MIPS64N32"
            | "SCMP_ARCH_PARISC"
            | "SCMP_ARCH_PARISC64"
            | "SCMP_ARCH_PPC"
            | "SCMP_ARCH_PPC64"
            | "SCMP_ARCH_S390"
            | "SCMP_ARCH_S390X"
            | "SCMP_ARCH_SHEB" => {
                return invalid(&field, "big-endian, and this machine is not");
            }
            _ => return invalid(&field, "no such architecture"),
        }
    }
    Ok(names.iter().any(|name| name == "SCMP_ARCH_X32"))
}

#[cfg(test)]
mod tests;
