//! The processor's own clock, on 64-bit Arm.

/// The virtual counter, which a hypervisor starts with its VM.
pub fn tsc() -> u64 {
    let ticks: u64;
    // SAFETY: Linux lets user space read CNTVCT_EL0 (CNTKCTL_EL1.EL0VCTEN); the instruction touches no memory and no
    // flag.
    unsafe {
        core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
    };
    ticks
}
