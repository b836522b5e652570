//! OCI `process.scheduler`, `ioPriority`, `execCPUAffinity`, `linux.personality` and `linux.memoryPolicy`: names made into
//! the kernel's numbers, and its rules told before it tells them with an errno.

use hyperstart_protocol::oci::extensions;
use nix::libc;

use super::{bounded, invalid, refuse_for};
use crate::container::spec::{
    CpuAffinity, IoPriority, MemoryPolicy, NumberSet, Personality, Scheduler,
};
use crate::error::Result;

/// linux/sched.h
const POLICIES: &[(&str, u32)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const FLAGS: &[(&str, u64)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_RESET_ON_FORK", 0x01), // as the OCI spec has it
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
const FLAGS_MAX: usize = 16;
/// What a SCHED_DEADLINE task must at least run: the kernel counts in steps of it (DL_SCALE).
const DEADLINE_RUNTIME_MIN_NS: u64 = 1024;

/// The kernel passes over what a policy does not use; here it is refused. See sched_setattr(2), sched(7).
pub fn scheduler(wire: extensions::Scheduler) -> Result<Scheduler> {
    const FIELD: &str = "process.scheduler";
    let name = wire.Policy.as_str();
    refuse_for(name == "SCHED_ISO", "process.scheduler.policy SCHED_ISO", "Linux has none")?;
    let Some(policy) = number_of(POLICIES, name) else {
        return invalid(&format!("{FIELD}.policy"), &format!("{name:?} is none"));
    };
    let flags = flags(&wire.Flags, FLAGS, &format!("{FIELD}.flags"))?;
    let is_deadline = name == "SCHED_DEADLINE";
    let is_realtime = matches!(name, "SCHED_FIFO" | "SCHED_RR");
    let check = |holds: bool, field: &str, why: &str| {
        if holds { Ok(()) } else { invalid(&format!("{FIELD}.{field}"), why) }
    };
    check((-20..=19).contains(&wire.Nice), "nice", "not in -20 to 19")?;
    let is_nice = !is_realtime && !is_deadline;
    check(is_nice || wire.Nice == 0, "nice", &format!("{name} has none"))?;
    let priority = u32::try_from(wire.Priority).unwrap_or(u32::MAX);
    match is_realtime {
        true => check((1..=99).contains(&priority), "priority", "not in 1 to 99")?,
        false => check(priority == 0, "priority", &format!("{name} has none"))?,
    }
    let (runtime_ns, deadline_ns, period_ns) = (wire.Runtime, wire.Deadline, wire.Period);
    if is_deadline {
        check(runtime_ns >= DEADLINE_RUNTIME_MIN_NS, "runtime", "less than 1024 ns")?;
        check(runtime_ns <= deadline_ns, "deadline", "shorter than the runtime")?;
        check(period_ns == 0 || deadline_ns <= period_ns, "period", "shorter than the deadline")?;
        check(deadline_ns.max(period_ns) <= i64::MAX.unsigned_abs(), "period", "too long")?;
    } else {
        let none = [runtime_ns, deadline_ns, period_ns] == [0; 3];
        check(none, "runtime, deadline and period", &format!("{name} has none"))?;
    }
    Ok(Scheduler { policy, flags, nice: wire.Nice, priority, runtime_ns, deadline_ns, period_ns })
}

/// linux/ioprio.h
const IO_CLASSES: &[(&str, u8)] =
    &[("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

pub fn io_priority(wire: extensions::LinuxIOPriority) -> Result<IoPriority> {
    let Some(class) = number_of(IO_CLASSES, &wire.Class) else {
        return invalid("process.ioPriority.class", &format!("{:?} is none", wire.Class));
    };
    match u8::try_from(wire.Priority) {
        Ok(level @ 0..=7) => Ok(IoPriority { class, level }),
        _ => invalid("process.ioPriority.priority", &format!("{} is not in 0 to 7", wire.Priority)),
    }
}

/// The most CPUs that Linux is built for.
const CPUS_MAX: usize = 8192;

pub fn cpu_affinity(wire: extensions::CPUAffinity) -> Result<CpuAffinity> {
    let set = |list: &str, field: &str| match list {
        "" => Ok(None),
        list => numbers(list, CPUS_MAX, field).map(Some),
    };
    Ok(CpuAffinity {
        initial: set(&wire.Initial, "process.execCPUAffinity.initial")?,
        last: set(&wire.Final, "process.execCPUAffinity.final")?,
    })
}

/// The OCI spec defines no flag for it.
pub fn personality(wire: extensions::LinuxPersonality) -> Result<Personality> {
    refuse_for(!wire.Flags.is_empty(), "linux.personality.flags", "the OCI spec defines none")?;
    match wire.Domain.as_str() {
        "LINUX" => Ok(Personality::Linux),
        "LINUX32" => Ok(Personality::Linux32),
        other => invalid("linux.personality.domain", &format!("{other:?} is not LINUX or LINUX32")),
    }
}

/// linux/mempolicy.h
const MODES: &[(&str, i32)] = &[
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
const MODE_FLAGS: &[(&str, u64)] = &[
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];
/// MAX_NUMNODES of the largest Linux.
const NODES_MAX: usize = 1024;

/// set_mempolicy(2)
pub fn memory_policy(wire: extensions::LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    const FIELD: &str = "linux.memoryPolicy";
    let Some(mode) = number_of(MODES, &wire.Mode) else {
        return invalid(&format!("{FIELD}.mode"), &format!("{:?} is none", wire.Mode));
    };
    let flags = flags(&wire.Flags, MODE_FLAGS, &format!("{FIELD}.flags"))?;
    let exclusive = flag("MPOL_F_RELATIVE_NODES") | flag("MPOL_F_STATIC_NODES");
    if flags & exclusive == exclusive {
        return invalid(&format!("{FIELD}.flags"), "relative and static nodes at once");
    }
    let nodes = match wire.Nodes.as_str() {
        "" => NumberSet::default(),
        list => numbers(list, NODES_MAX, &format!("{FIELD}.nodes"))?,
    };
    let has_nodes = !nodes.0.is_empty();
    match wire.Mode.as_str() {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if has_nodes => {
            return invalid(&format!("{FIELD}.nodes"), &format!("{} has none", wire.Mode));
        }
        "MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED" => {} // preferred without a node is local
        mode if !has_nodes => {
            return invalid(&format!("{FIELD}.nodes"), &format!("empty, with {mode}"));
        }
        _ => {}
    }
    // At most bit 15, so it fits.
    Ok(MemoryPolicy { mode: mode | libc::c_int::try_from(flags).unwrap_or_default(), nodes })
}

fn flag(name: &str) -> u64 {
    number_of(MODE_FLAGS, name).unwrap_or_default()
}

fn flags(names: &[String], known: &[(&str, u64)], field: &str) -> Result<u64> {
    bounded(names.len(), FLAGS_MAX, field)?;
    names.iter().try_fold(0, |flags, name| match number_of(known, name) {
        Some(flag) => Ok(flags | flag),
        None => invalid(field, &format!("{name:?} is none")),
    })
}

fn number_of<T: Copy>(known: &[(&str, T)], name: &str) -> Option<T> {
    known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

const LIST_MAX: usize = 4096;

/// A list as cpuset(7) has it, `0-3,7`, of numbers less than `max`.
fn numbers(list: &str, max: usize, field: &str) -> Result<NumberSet> {
    if list.len() > LIST_MAX {
        return invalid(field, &format!("longer than {LIST_MAX} bytes"));
    }
    let mut words: Vec<u64> = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return invalid(field, "not a list of numbers and ranges, such as 0-3,7");
        };
        if first > last {
            return invalid(field, &format!("{first}-{last} is no range"));
        }
        if last >= max {
            return invalid(field, &format!("{last} is not less than {max}"));
        }
        if words.len() <= last / 64 {
            words.resize(last / 64 + 1, 0);
        }
        for (at, word) in words.iter_mut().enumerate().skip(first / 64) {
            let lowest = if at == first / 64 { first % 64 } else { 0 };
            let highest = if at == last / 64 { last % 64 } else { 63 };
            *word |= (u64::MAX << lowest) & (u64::MAX >> (63 - highest));
            if at == last / 64 {
                break;
            }
        }
    }
    Ok(NumberSet(words))
}

/// Digits alone; what does not fit is as good as too much.
fn number(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
