//! The kernel's command line.

use crate::machine::{Boot, Machine, MachineKind};
use crate::root;

use super::places::pmem_space_gib;
use super::wiring::{Channel, Clocks, ICOUNT_TSC_KHZ, Wiring};

/// The bus clock of QEMU's local APIC timer, under KVM as under TCG.
const LAPIC_TIMER_KHZ: u32 = 1_000_000;
/// `noreplace-smp`: patching LOCK prefixes out costs 4 M guest instructions, and saves less under TCG.
const KERNEL_WORDS: [&str; 4] = ["console=ttyS0", "quiet", "reboot=t", "noreplace-smp"];

/// The kernel's command line.
pub fn kernel_command_line(machine: &Machine, wiring: &Wiring) -> String {
    let mut words: Vec<String> = KERNEL_WORDS.map(str::to_owned).into();
    if !machine.has_acpi() {
        words.push("acpi=off".to_owned()); // the kernel need not look
    }
    if matches!(machine.boot, Boot::Rootfs(_)) {
        words.extend(root::words(wiring.verity.as_ref()));
    }
    if let (Some(gib), false) = (pmem_space_gib(machine, wiring), machine.has_acpi()) {
        // Without ACPI the kernel does not know that persistent memory is there, and puts PCI BARs over it.
        words.push(format!("memmap={gib}G$4G"));
        // The firmware's table of interrupts is wrong for some of q35's slots, and virtio-pmem, alone among our devices, has
        // no MSI: a guest that powers off would wait for ever for the answer to its last flush.
        words.push("irqfixup".to_owned());
    }
    words.extend(clock_words(machine, wiring));
    match &wiring.channel {
        Channel::VhostVsock { ready_port, .. } | Channel::VhostUserVsock { ready_port, .. } => {
            words.push(format!("hyperstart.ready={ready_port}"));
        }
        Channel::Serial { .. } => {}
    }
    words.extend(machine.cmdline.iter().cloned());
    words.join(" ")
}

/// What the kernel is told of its clocks. A counter that is compared with another clock, or between CPUs, must be called
/// reliable: QEMU's threads wait for the host, and the kernel takes that for drift.
fn clock_words(machine: &Machine, wiring: &Wiring) -> Vec<String> {
    let lapic = || format!("lapic_timer_khz={LAPIC_TIMER_KHZ}");
    let mut words = match wiring.clocks {
        Clocks::Measured => vec!["no_timer_check".to_owned()],
        Clocks::TimerTold => vec!["no_timer_check".to_owned(), lapic()],
        Clocks::Told { .. } => vec![lapic()],
    };
    let tsc_khz = match wiring.clocks {
        Clocks::Told { tsc_khz } => tsc_khz,
        Clocks::Measured | Clocks::TimerTold => machine.icount.then_some(ICOUNT_TSC_KHZ),
    };
    words.extend(tsc_khz.map(|khz| format!("tsc_early_khz={khz}")));
    let only_clock = machine.kind == MachineKind::Microvm && machine.cpus == 1;
    if !only_clock || tsc_khz.is_none() {
        words.push("tsc=reliable".to_owned());
    }
    words
}
