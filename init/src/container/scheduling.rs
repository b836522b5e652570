//! How a process is scheduled (OCI `process.scheduler`, `ioPriority`, `execCPUAffinity`) and executed
//! (`linux.personality`, `linux.memoryPolicy`): all of it is the thread's own and survives execve(2).

use nix::errno::Errno;
use nix::sys::personality::{self, Persona};

use super::spec::{Execution, IoPriority, NumberSet, Personality, ProcessSpec, Scheduler};
use crate::error::{Code, Context, Error, Result};
use crate::sys::scheduling::{
    SchedAttr, ioprio_set, sched_getaffinity, sched_setaffinity, sched_setattr, set_mempolicy,
};

/// linux/personality.h: what uname(2) says is a 32-bit machine.
const PER_LINUX32: i32 = 0x0008;

/// In the child, before its capabilities go: real-time scheduling takes CAP_SYS_NICE.
pub fn apply(process: &ProcessSpec, execution: &Execution) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        schedule(scheduler).context(|| "process.scheduler".to_owned())?;
    }
    if let Some(IoPriority { class, level }) = process.io_priority {
        ioprio_set(class, level).context(|| "process.ioPriority".to_owned())?;
    }
    if let Some(personality) = execution.personality {
        let persona = match personality {
            Personality::Linux => 0,
            Personality::Linux32 => PER_LINUX32,
        };
        personality::set(Persona::from_bits_retain(persona))
            .context(|| "linux.personality".to_owned())?;
    }
    if let Some(policy) = &execution.memory_policy {
        match set_mempolicy(policy.mode, &policy.nodes.0) {
            Err(err) if err.raw_os_error() == Some(Errno::ENOSYS as i32) => {
                let message = "linux.memoryPolicy: this kernel has no NUMA (CONFIG_NUMA)";
                return Err(Error::new(Code::Unimplemented, message));
            }
            set => set.context(|| "linux.memoryPolicy".to_owned())?,
        }
    }
    Ok(())
}

fn schedule(scheduler: &Scheduler) -> Result<()> {
    let Scheduler { policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns } =
        *scheduler;
    let attr = SchedAttr {
        policy,
        flags,
        nice,
        priority,
        runtime_ns,
        deadline_ns,
        period_ns,
        ..SchedAttr::default()
    };
    Ok(sched_setattr(attr)?)
}

/// Lets the caller run on these CPUs alone. The kernel would pass over those that it does not have or that the caller's
/// cgroup is not given; here they are an error.
pub fn run_on(cpus: &NumberSet) -> Result<()> {
    match sched_setaffinity(&cpus.0) {
        // None of them is there.
        Err(err) if err.raw_os_error() == Some(Errno::EINVAL as i32) => {}
        set => set?,
    }
    let mut granted = vec![0; AFFINITY_WORDS];
    sched_getaffinity(&mut granted)?;
    match missing(cpus, &granted) {
        Some(cpu) => Err(Error::new(
            Code::InvalidArgument,
            format!("CPU {cpu} is not there, or not the container's"),
        )),
        None => Ok(()),
    }
}

/// 8192 CPUs: the most that Linux is built for (CONFIG_NR_CPUS).
const AFFINITY_WORDS: usize = 128;

/// The first number that is asked for and not granted.
fn missing(asked: &NumberSet, granted: &[u64]) -> Option<usize> {
    asked.0.iter().enumerate().find_map(|(at, word)| {
        let missing = word & !granted.get(at).copied().unwrap_or_default();
        (missing != 0).then(|| at * 64 + usize::try_from(missing.trailing_zeros()).unwrap_or(0))
    })
}

/// While it lives, PID 1 runs on some CPUs alone, and so do the children that it makes. Its end gives all back: those
/// too that are plugged in later.
pub struct RunsOn;

impl RunsOn {
    pub fn new(cpus: &NumberSet) -> Result<Self> {
        let guard = Self;
        run_on(cpus)?;
        Ok(guard)
    }
}

impl Drop for RunsOn {
    fn drop(&mut self) {
        if let Err(err) = sched_setaffinity(&[u64::MAX; AFFINITY_WORDS]) {
            log::error!("give PID 1 its CPUs back: {err}"); // it goes on where it is
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_granted_is_found() {
        let asked = |words: &[u64]| NumberSet(words.to_vec());
        assert_eq!(missing(&asked(&[0b1011]), &[0b1111]), None);
        assert_eq!(missing(&asked(&[0b1011]), &[0b0011]), Some(3));
        assert_eq!(missing(&asked(&[0, 1]), &[u64::MAX]), Some(64));
        assert_eq!(missing(&asked(&[]), &[]), None);
    }

    #[test]
    fn an_affinity_without_any_cpu_of_this_machine_is_refused() {
        let err = run_on(&NumberSet([vec![0; 127], vec![1 << 63]].concat())).unwrap_err();
        assert_eq!(err.message(), "CPU 8191 is not there, or not the container's");
    }
}
