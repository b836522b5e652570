//! OCI `linux.resources`. The spec's numbers are cgroup v1's; what version 2 has no word for is refused.

use std::collections::HashMap;

use hyperstart_protocol::oci::{self, extensions};

use super::{block_io, bounded, invalid, refuse_for};
use crate::container::spec::{Access, DeviceRule, Limit, RdmaLimit, Resources, RuleKind};
use crate::error::Result;

const RULES_MAX: usize = 1024;
const HUGEPAGE_SIZES_MAX: usize = 16;
const RDMA_DEVICES_MAX: usize = 64;
const UNIFIED_MAX: usize = 64;
/// One page: what a file of the cgroup filesystem takes at once.
const UNIFIED_VALUE_MAX: usize = 4096;
const UNIFIED_NAME_MAX: usize = 64;

const NOT_IN_V2: &str = "cgroup v2 has none";

pub fn resources(resources: oci::LinuxResources) -> Result<Resources> {
    let network = resources.Network.into_option().unwrap_or_default();
    refuse_for(network.ClassID != 0, "linux.resources.network.classID", NOT_IN_V2)?;
    let has_priorities = !network.Priorities.is_empty();
    refuse_for(has_priorities, "linux.resources.network.priorities", NOT_IN_V2)?;
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
    block_io::set(&mut converted, &resources.BlockIO.into_option().unwrap_or_default())?;
    converted.rdma_limits = rdma(resources.Rdma)?;
    converted.unified = unified(resources.Unified)?;
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
    let is_limit = |limit: i64| !matches!(limit, 0 | -1);
    refuse_for(is_limit(memory.Kernel), "linux.resources.memory.kernel", NOT_IN_V2)?;
    refuse_for(is_limit(memory.KernelTCP), "linux.resources.memory.kernelTCP", NOT_IN_V2)?;
    refuse_for(memory.Swappiness != 0, "linux.resources.memory.swappiness", NOT_IN_V2)?;
    let field = "linux.resources.memory.disableOOMKiller";
    refuse_for(memory.DisableOOMKiller, field, NOT_IN_V2)?;
    resources.check_before_update = memory.CheckBeforeUpdate; // in a new cgroup nothing is in use
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
    refuse_for(cpu.RealtimeRuntime != 0, "linux.resources.cpu.realtimeRuntime", NOT_IN_V2)?;
    refuse_for(cpu.RealtimePeriod != 0, "linux.resources.cpu.realtimePeriod", NOT_IN_V2)?;
    resources.cpu_burst_us = cpu.Burst;
    resources.cpu_idle = match cpu.Idle {
        None => None,
        Some(idle @ (0 | 1)) => Some(idle == 1),
        Some(idle) => return invalid("linux.resources.cpu.idle", &format!("{idle} is not 0 or 1")),
    };
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

/// A device's limits are one line: its name must be one word.
fn rdma(map: HashMap<String, extensions::LinuxRdma>) -> Result<Vec<RdmaLimit>> {
    const FIELD: &str = "linux.resources.rdma";
    bounded(map.len(), RDMA_DEVICES_MAX, FIELD)?;
    let mut list = Vec::with_capacity(map.len());
    for (device, limits) in map {
        let is_name = (1..=255).contains(&device.len())
            && device.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=');
        if !is_name {
            return invalid(&format!("{FIELD}[{device:?}]"), "not the name of a device");
        }
        list.push(RdmaLimit { device, handles: limits.HcaHandles, objects: limits.HcaObjects });
    }
    list.sort_by(|one, other| one.device.cmp(&other.device));
    Ok(list)
}

/// Files of controllers, and never the cgroup's own: `cgroup.procs` or `cgroup.type` would undo what a container is.
fn unified(map: HashMap<String, String>) -> Result<Vec<(String, String)>> {
    const FIELD: &str = "linux.resources.unified";
    bounded(map.len(), UNIFIED_MAX, FIELD)?;
    let mut list: Vec<(String, String)> = map.into_iter().collect();
    list.sort();
    for (file, value) in &list {
        let field = format!("{FIELD}[{file:?}]");
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        let is_name = file.len() <= UNIFIED_NAME_MAX
            && file.bytes().all(is_word)
            && file.contains('.')
            && file.split('.').all(|part| !part.is_empty());
        if !is_name {
            return invalid(&field, "not a file of a controller, such as memory.high");
        }
        if file.starts_with("cgroup.") {
            return invalid(&field, "not of a controller");
        }
        if value.len() > UNIFIED_VALUE_MAX || value.contains('\0') || value.trim().is_empty() {
            return invalid(&field, "not a value for a file of a cgroup");
        }
    }
    Ok(list)
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

#[cfg(test)]
mod tests;
