//! The processor's own clock, on x86-64.

/// The time stamp counter; a VM's counts from its reset where the VMM says so.
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is part of every x86-64 processor, and only a process that asked for PR_TSC_SIGSEGV is refused it;
    // PID 1 never does.
    unsafe { core::arch::x86_64::_rdtsc() }
}
