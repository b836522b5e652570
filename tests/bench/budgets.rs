//! What is measured, in the order of the table, and what it may cost.
//!
//! Budgets and goals are those of issues 2 and 5 ("Numbers"), where each has its reason; a row without one is there to be
//! watched. This is the only place that has them.

/// In which unit a row's figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Mib,
    Kib,
    /// 1,000,000 bytes, where a budget is given so.
    Mb,
    /// Millions of guest instructions.
    Minstr,
    /// Milliseconds of the guest's time under icount, where an instruction takes one nanosecond.
    VirtualMs,
    /// Milliseconds on the wall.
    Ms,
    Threads,
    /// 1,000,000 bytes a second.
    MbPerSecond,
    /// So many times.
    Times,
}

/// What a row may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    AtMost(f64),
    /// So much above the row's limit.
    OverLimit(f64),
    /// The least.
    AtLeast(f64),
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub budget: Option<Budget>,
    pub goal: Option<f64>,
}

const fn watched(id: &'static str, what: &'static str, unit: Unit) -> Spec {
    Spec { id, what, unit, budget: None, goal: None }
}

impl Spec {
    const fn at_most(self, budget: f64) -> Self {
        Self { budget: Some(Budget::AtMost(budget)), ..self }
    }

    const fn over_limit(self, budget: f64) -> Self {
        Self { budget: Some(Budget::OverLimit(budget)), ..self }
    }

    const fn at_least(self, budget: f64) -> Self {
        Self { budget: Some(Budget::AtLeast(budget)), ..self }
    }

    const fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

pub const ROWS: &[Spec] = &[
    watched("size.init", "init, static, stripped", Unit::Mib).at_most(1.3).goal(1.0),
    watched("size.vmlinux", "vmlinux", Unit::Mb),
    watched("size.bzimage", "bzImage", Unit::Mb).at_most(5.0),
    watched("size.initrd", "initrd", Unit::Mib),
    watched("size.rootfs", "rootfs, as a file", Unit::Mib).at_most(4.0),
    watched("size.rootfs_content", "rootfs, what is in it", Unit::Mib).at_most(2.0),
    watched("boot.init", "VM start to init", Unit::VirtualMs).at_most(45.0).goal(34.0),
    watched("boot.init_instructions", "  of them, instructions", Unit::Minstr),
    watched("boot.ready", "init to ready", Unit::Minstr).at_most(3.0).goal(0.87),
    watched("boot.dax_init", "VM start to init, dax", Unit::VirtualMs),
    watched("boot.dax_ready", "init to ready, dax", Unit::Minstr),
    watched("container.exit", "CreateSandbox to the first container's exit", Unit::Minstr)
        .at_most(12.0)
        .goal(6.0),
    watched("container.mapped", "  the same in a user namespace", Unit::Minstr),
    watched("container.pod", "  the same by StartPod, in one call", Unit::Minstr),
    watched("container.byte", "CreateSandbox to the first byte", Unit::Minstr),
    watched("container.sandbox", "  CreateSandbox", Unit::Minstr),
    watched("container.create", "  CreateContainer", Unit::Minstr),
    watched("container.start", "  StartContainer and its run", Unit::Minstr),
    watched("layers.three", "the same of an image of 3 layers", Unit::Minstr),
    watched("layers.flat", "  of the same image, flattened", Unit::Minstr),
    watched("layers.ratio", "  of 3 layers, times flattened", Unit::Times).at_most(1.5),
    watched("exec.exit", "exec `uname -r`, to its exit", Unit::Minstr).at_most(3.0).goal(1.4),
    watched("ping.instructions", "ping (Health.Check)", Unit::Minstr),
    watched("import.ratio", "import of 200 MB in 5 layers, against `tar x`", Unit::Times)
        .at_least(0.5),
    watched("import.speed", "  contents a second", Unit::MbPerSecond),
    watched("import.memory", "  hyperctl's peak", Unit::Mib).at_most(128.0),
    watched("wall.ready", "VM start to ready", Unit::Ms),
    watched("wall.byte", "VM start to the first byte", Unit::Ms),
    watched("wall.exec", "exec `uname -r`, to its exit", Unit::Ms),
    watched("wall.ping", "ping (Health.Check)", Unit::Ms),
    watched("stdout.stream", "stdout over a vsock stream, 1 GiB", Unit::MbPerSecond),
    watched("stdout.requests", "stdout by ReadStdout, same vsock", Unit::MbPerSecond),
    watched("stdout.ratio", "  the stream, times ReadStdout", Unit::Times).at_least(3.0),
    watched("stdout.stream_instructions", "a MiB over a vsock stream", Unit::Minstr),
    watched("stdout.requests_instructions", "a MiB by ReadStdout, same vsock", Unit::Minstr),
    watched("memory.initrd", "guest memory at ready, initrd", Unit::Mb).over_limit(2.0),
    watched("memory.dax", "guest memory at ready, dax", Unit::Mb).over_limit(1.0),
    watched("memory.saved", "  initrd less dax, times the image", Unit::Times).at_least(1.0),
    watched("guests.first", "host memory of a guest, alone (Pss)", Unit::Mib),
    watched("guests.second", "  of each further one, 2 side by side", Unit::Mib),
    watched("guests.fourth", "  of each further one, 4", Unit::Mib),
    watched("guests.eighth", "  of each further one, 8", Unit::Mib),
    watched("guests.image", "  the image in 8 guests, times in one", Unit::Times).at_most(1.1),
    watched("read.dax", "read 100 MB: EROFS, mapped (DAX)", Unit::MbPerSecond),
    watched("read.dax_cache", "  guest page cache for it", Unit::Mb).at_most(1.0),
    watched("read.blk", "read 100 MB: EROFS on virtio-blk", Unit::MbPerSecond),
    watched("read.blk_cache", "  guest page cache for it", Unit::Mb),
    watched("read.9p", "read 100 MB: 9p", Unit::MbPerSecond),
    watched("read.9p_cache", "  guest page cache for it", Unit::Mb),
    watched("init.pss", "init idle: Pss", Unit::Kib).at_most(1536.0),
    watched("init.anonymous", "init idle: anonymous", Unit::Kib).at_most(256.0),
    watched("init.threads", "init idle: threads", Unit::Threads).at_most(1.0),
    watched("init64.pss", "init, 64 connections: Pss", Unit::Kib),
    watched("init64.anonymous", "init, 64 connections: anonymous", Unit::Kib),
    watched("init64.threads", "init, 64 connections: threads", Unit::Threads).at_most(1.0),
    watched("smallest", "smallest -m that runs busybox", Unit::Mib).at_most(40.0).goal(24.0),
    watched("load.container_memory", "200 containers alive: guest memory each", Unit::Kib),
    watched("load.container_init", "  of it, init's anonymous", Unit::Kib),
    watched("load.cycle", "a container from create to removal", Unit::Minstr),
    watched("load.cycle_ratio", "  the last 100 of 400 to the first 100", Unit::Times).at_most(1.1),
    watched("load.cycle_init", "  init's anonymous, grown by 2,000", Unit::Kib).at_most(64.0),
    watched("load.exec", "500 execs at a time, each", Unit::Minstr),
    watched("load.exec_ratio", "  the second 500 to the first", Unit::Times).at_most(1.1),
    watched("load.orphan", "an orphan of 100,000, made and reaped", Unit::Minstr),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_an_id_of_its_own() {
        let ids: HashSet<&str> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
    }

    #[test]
    fn a_goal_is_beyond_the_budget() {
        for row in ROWS {
            if let (Some(Budget::AtMost(budget)), Some(goal)) = (row.budget, row.goal) {
                assert!(goal < budget, "{}", row.id);
            }
        }
    }
}
