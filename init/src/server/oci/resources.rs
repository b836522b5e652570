//! OCI `linux.resources`. The spec's numbers are cgroup v1's; what version 2 has no word for is refused.

use hyperstart_protocol::oci;

use super::{bounded, invalid, refuse_if};
use crate::container::spec::{Access, DeviceRule, Limit, Resources, RuleKind};
use crate::error::Result;

const RULES_MAX: usize = 1024;
const HUGEPAGE_SIZES_MAX: usize = 16;

pub fn resources(resources: oci::LinuxResources) -> Result<Resources> {
    refuse_block_io(&resources.BlockIO.into_option().unwrap_or_default())?;
    refuse_if(!resources.Unified.is_empty(), "linux.resources.unified")?;
    refuse_if(!resources.Rdma.is_empty(), "linux.resources.rdma")?;
    let network = resources.Network.into_option().unwrap_or_default();
    refuse_if(network.ClassID != 0, "linux.resources.network.classID")?;
    refuse_if(!network.Priorities.is_empty(), "linux.resources.network.priorities")?;
    bounded(resources.Devices.len(), RULES_MAX, "linux.resources.devices")?;
    bounded(resources.HugepageLimits.len(), HUGEPAGE_SIZES_MAX, "linux.resources.hugepageLimits")?;
    let pids = resources.Pids.into_option().unwrap_or_default();
    let mut converted = Resources {
        device_rules: resources
            .Devices
            .iter()
            .enumerate()
            .map(device_rule)
            .collect::<Result<_>>()?,
        pids_limit: limit(pids.Limit, "linux.resources.pids.limit")?,
        hugepage_limits: resources
            .HugepageLimits
            .into_iter()
            .map(hugepage_limit)
            .collect::<Result<_>>()?,
        ..Resources::default()
    };
    set_memory(&mut converted, &resources.Memory.into_option().unwrap_or_default())?;
    set_cpu(&mut converted, resources.CPU.into_option().unwrap_or_default())?;
    Ok(converted)
}

/// 0 is not said, -1 is no limit.
fn limit(value: i64, field: &str) -> Result<Option<Limit>> {
    match (value, u64::try_from(value)) {
        (0, _) => Ok(None),
        (-1, _) => Ok(Some(Limit::Max)),
        (_, Ok(value)) => Ok(Some(Limit::Of(value))),
        (_, Err(_)) => invalid(field, &format!("{value} is negative")),
    }
}

fn set_memory(resources: &mut Resources, memory: &oci::LinuxMemory) -> Result<()> {
    // -1 is no limit of their own, which is all that version 2 gives.
    refuse_if(!matches!(memory.Kernel, 0 | -1), "linux.resources.memory.kernel")?;
    refuse_if(!matches!(memory.KernelTCP, 0 | -1), "linux.resources.memory.kernelTCP")?;
    refuse_if(memory.Swappiness != 0, "linux.resources.memory.swappiness")?;
    refuse_if(memory.DisableOOMKiller, "linux.resources.memory.disableOOMKiller")?;
    refuse_if(memory.CheckBeforeUpdate, "linux.resources.memory.checkBeforeUpdate")?;
    resources.memory_limit = limit(memory.Limit, "linux.resources.memory.limit")?;
    resources.memory_reservation = limit(memory.Reservation, "linux.resources.memory.reservation")?;
    resources.swap_limit =
        swap(resources.memory_limit, limit(memory.Swap, "linux.resources.memory.swap")?)?;
    Ok(())
}

/// OCI limits memory and swap together, version 2 swap alone.
fn swap(memory: Option<Limit>, together: Option<Limit>) -> Result<Option<Limit>> {
    const FIELD: &str = "linux.resources.memory.swap";
    match (memory, together) {
        (_, None) => Ok(None),
        (_, Some(Limit::Max)) => Ok(Some(Limit::Max)),
        (Some(Limit::Of(memory)), Some(Limit::Of(together))) => {
            match together.checked_sub(memory) {
                Some(swap) => Ok(Some(Limit::Of(swap))),
                None => invalid(FIELD, "less than linux.resources.memory.limit, which it includes"),
            }
        }
        (None | Some(Limit::Max), Some(Limit::Of(_))) => {
            invalid(FIELD, "without linux.resources.memory.limit")
        }
    }
}

fn set_cpu(resources: &mut Resources, cpu: oci::LinuxCPU) -> Result<()> {
    refuse_if(cpu.RealtimeRuntime != 0, "linux.resources.cpu.realtimeRuntime")?;
    refuse_if(cpu.RealtimePeriod != 0, "linux.resources.cpu.realtimePeriod")?;
    refuse_if(cpu.Burst.is_some(), "linux.resources.cpu.burst")?;
    refuse_if(cpu.Idle.is_some(), "linux.resources.cpu.idle")?;
    let said = |number: u64| (number != 0).then_some(number);
    resources.cpu_shares = said(cpu.Shares);
    resources.cpu_quota_us = limit(cpu.Quota, "linux.resources.cpu.quota")?;
    resources.cpu_period_us = said(cpu.Period);
    resources.cpus = cpu_list(cpu.Cpus, "linux.resources.cpu.cpus")?;
    resources.mems = cpu_list(cpu.Mems, "linux.resources.cpu.mems")?;
    Ok(())
}

/// cpuset(7) "List format".
fn cpu_list(list: String, field: &str) -> Result<Option<String>> {
    if !list.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-'))
        || list.len() > 1024
    {
        return invalid(
            field,
            &format!("{:?} is not a list of numbers", list.get(..64).unwrap_or(&list)),
        );
    }
    Ok((!list.is_empty()).then_some(list))
}

fn refuse_block_io(block_io: &oci::LinuxBlockIO) -> Result<()> {
    refuse_if(block_io.Weight != 0, "linux.resources.blockIO.weight")?;
    refuse_if(block_io.LeafWeight != 0, "linux.resources.blockIO.leafWeight")?;
    refuse_if(!block_io.WeightDevice.is_empty(), "linux.resources.blockIO.weightDevice")?;
    refuse_if(
        !block_io.ThrottleReadBpsDevice.is_empty(),
        "linux.resources.blockIO.throttleReadBpsDevice",
    )?;
    refuse_if(
        !block_io.ThrottleWriteBpsDevice.is_empty(),
        "linux.resources.blockIO.throttleWriteBpsDevice",
    )?;
    refuse_if(
        !block_io.ThrottleReadIOPSDevice.is_empty(),
        "linux.resources.blockIO.throttleReadIOPSDevice",
    )?;
    refuse_if(
        !block_io.ThrottleWriteIOPSDevice.is_empty(),
        "linux.resources.blockIO.throttleWriteIOPSDevice",
    )
}

fn hugepage_limit(limit: oci::LinuxHugepageLimit) -> Result<(String, u64)> {
    let digits = limit.Pagesize.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let unit = limit.Pagesize.get(digits.len()..).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || !matches!(unit, "KB" | "MB" | "GB") || digits.len() > 8 {
        return invalid(
            "linux.resources.hugepageLimits.pageSize",
            &format!("{:?} is none", limit.Pagesize),
        );
    }
    Ok((limit.Pagesize, limit.Limit))
}

fn device_rule((at, rule): (usize, &oci::LinuxDeviceCgroup)) -> Result<DeviceRule> {
    let field = format!("linux.resources.devices[{at}]");
    let kind = match rule.Type.as_str() {
        "" | "a" => RuleKind::All,
        "c" | "u" => RuleKind::Character,
        "b" => RuleKind::Block,
        other => return invalid(&format!("{field}.type"), &format!("{other:?} is not a, b or c")),
    };
    let number = |value: i64| match (value, u32::try_from(value)) {
        (-1, _) => Ok(None),
        (_, Ok(value)) => Ok(Some(value)),
        (_, Err(_)) => invalid(&field, &format!("{value} is not a device number")),
    };
    // "All" is every device: its numbers say nothing, and an absent one has come as 0.
    let (major, minor) = match kind {
        RuleKind::All => (None, None),
        RuleKind::Character | RuleKind::Block => (number(rule.Major)?, number(rule.Minor)?),
    };
    Ok(DeviceRule { allow: rule.Allow, kind, major, minor, access: access(&rule.Access, &field)? })
}

pub(super) fn access(text: &str, field: &str) -> Result<Access> {
    if text.is_empty() || !text.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        return invalid(&format!("{field}.access"), &format!("{text:?} is not of r, w and m"));
    }
    Ok(Access { mknod: text.contains('m'), read: text.contains('r'), write: text.contains('w') })
}
