//! How the kernel schedules and executes this process, as the kernel tells it.

use std::fs;
use std::io;

use rustix::system::uname;

use crate::Outcome;

/// struct sched_attr (sched_setattr(2)), as far as it is asked for.
#[derive(Default)]
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `sched=POLICY FLAGS NICE PRIORITY RUNTIME DEADLINE PERIOD`, `ioprio=CLASS:LEVEL`, `cpus=`, `machine=`,
/// `domainname=`, `umask=`.
#[allow(unsafe_code)] // neither call has a safe form in nix or rustix
pub fn print() -> Outcome {
    let mut attr = SchedAttr::default();
    // SAFETY: `attr` is a live struct sched_attr, and the size that is said is its own.
    let got = unsafe {
        libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size_of::<SchedAttr>(), 0)
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let SchedAttr { policy, flags, nice, priority, runtime, deadline, period, .. } = attr;
    let mut said =
        format!("sched={policy} {flags} {nice} {priority} {runtime} {deadline} {period}\n");
    // SAFETY: two plain numbers: IOPRIO_WHO_PROCESS, and the caller itself.
    let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    if priority < 0 {
        return Err(io::Error::last_os_error());
    }
    said += &format!("ioprio={}:{}\n", priority >> 13, priority & 7);
    let status = fs::read_to_string("/proc/self/status")?;
    for (name, field) in [("cpus", "Cpus_allowed_list:"), ("umask", "Umask:")] {
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        said += &format!("{name}={}\n", value.unwrap_or("absent").trim());
    }
    let name = uname();
    said += &format!("machine={}\n", name.machine().to_string_lossy());
    said += &format!("domainname={}\n", name.domainname().to_string_lossy());
    crate::act::print(&said)
}
