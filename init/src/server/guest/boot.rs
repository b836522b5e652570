//! How the boot went.

use std::rc::Rc;

use hyperstart_protocol::guest::{
    BootReceiptRequest, BootReceiptResponse, boot_receipt_response::Step as WireStep,
};

use crate::boot::{self, Step};
use crate::error::Result;
use crate::sandbox::Sandbox;

pub async fn receipt(sandbox: Rc<Sandbox>, _: BootReceiptRequest) -> Result<BootReceiptResponse> {
    let receipt = sandbox.receipt.borrow();
    let mut answer = BootReceiptResponse::new();
    answer.tsc_khz = tsc_khz(receipt.steps()).unwrap_or_default();
    answer.steps.extend(kernel_step(receipt.steps(), answer.tsc_khz));
    answer.steps.extend(receipt.steps().iter().copied().map(wire_step));
    answer.boot_mode = boot::mode()?.to_owned();
    answer.root_fstype = boot::root_fstype()?.to_owned();
    answer.root_dax = boot::root_is_dax()?;
    answer.root_verity = boot::root_is_verity()?;
    let memory = boot::Memory::read()?;
    answer.mem_total_bytes = memory.total_bytes;
    answer.mem_available_bytes = memory.available_bytes;
    Ok(answer)
}

fn wire_step(step: Step) -> WireStep {
    let mut wire = WireStep::new();
    wire.name = step.name.to_owned();
    wire.monotonic_ns = step.monotonic_ns;
    wire.tsc = step.tsc;
    wire
}

/// How fast the counter ran between the first step and the last: 0 (unknown) where no time passed.
fn tsc_khz(steps: &[Step]) -> Option<u64> {
    let (first, last) = (steps.first()?, steps.last()?);
    let elapsed_ns = last.monotonic_ns.checked_sub(first.monotonic_ns)?;
    let ticks = last.tsc.checked_sub(first.tsc)?;
    ticks.checked_mul(1_000_000)?.checked_div(elapsed_ns)
}

/// The kernel's clock starts with its timekeeping, so that moment is known; the counter's value then follows from it.
fn kernel_step(steps: &[Step], tsc_khz: u64) -> Option<WireStep> {
    let first = steps.first()?;
    let ticks = first.monotonic_ns.checked_mul(tsc_khz)?.checked_div(1_000_000)?;
    Some(wire_step(Step { name: "kernel", monotonic_ns: 0, tsc: first.tsc.checked_sub(ticks)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 2] = [
        Step { name: "init", monotonic_ns: 30_000_000, tsc: 70_000_000 },
        Step { name: "ready", monotonic_ns: 32_000_000, tsc: 74_000_000 },
    ];

    #[test]
    fn the_counters_speed_follows_from_two_steps() {
        assert_eq!(tsc_khz(&STEPS), Some(2_000_000));
        assert_eq!(tsc_khz(&STEPS[..1]), None);
        assert_eq!(tsc_khz(&[]), None);
    }

    #[test]
    fn the_kernels_start_is_reckoned_back() {
        let kernel = kernel_step(&STEPS, 2_000_000).unwrap();
        assert_eq!((kernel.monotonic_ns, kernel.tsc), (0, 10_000_000));
    }
}
