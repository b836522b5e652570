use super::*;
use crate::error::Code;

fn wire(policy: &str, change: impl FnOnce(&mut extensions::Scheduler)) -> extensions::Scheduler {
    let mut wire = extensions::Scheduler::new();
    wire.Policy = policy.to_owned();
    change(&mut wire);
    wire
}

#[test]
fn each_policy_takes_what_it_uses() {
    let batch = scheduler(wire("SCHED_BATCH", |s| s.Nice = -5)).unwrap();
    assert_eq!((batch.policy, batch.nice), (3, -5));
    let fifo = scheduler(wire("SCHED_FIFO", |s| {
        s.Priority = 10;
        s.Flags = vec!["SCHED_FLAG_RESET_ON_FORK".to_owned()];
    }));
    let fifo = fifo.unwrap();
    assert_eq!((fifo.policy, fifo.priority, fifo.flags), (1, 10, 1));
    let deadline = scheduler(wire("SCHED_DEADLINE", |s| {
        (s.Runtime, s.Deadline, s.Period) = (1024, 2048, 4096);
    }));
    let deadline = deadline.unwrap();
    assert_eq!((deadline.runtime_ns, deadline.deadline_ns, deadline.period_ns), (1024, 2048, 4096));
}

#[test]
fn what_the_kernel_would_refuse_or_pass_over_is_refused_by_name() {
    type Change = fn(&mut extensions::Scheduler);
    let wrong: [(&str, Change, &str); 13] = [
        ("SCHED_NONE", |_| {}, ".policy: \"SCHED_NONE\" is none"),
        ("", |_| {}, ".policy: \"\" is none"),
        ("SCHED_OTHER", |s| s.Nice = 20, ".nice: not in -20 to 19"),
        ("SCHED_OTHER", |s| s.Priority = 1, ".priority: SCHED_OTHER has none"),
        ("SCHED_OTHER", |s| s.Flags = vec!["X".to_owned()], ".flags: \"X\" is none"),
        ("SCHED_IDLE", |s| s.Period = 1, ".runtime, deadline and period: SCHED_IDLE has none"),
        ("SCHED_FIFO", |_| {}, ".priority: not in 1 to 99"),
        ("SCHED_RR", |s| s.Priority = 100, ".priority: not in 1 to 99"),
        ("SCHED_RR", |s| (s.Priority, s.Nice) = (1, 1), ".nice: SCHED_RR has none"),
        ("SCHED_RR", |s| s.Priority = -1, ".priority: not in 1 to 99"),
        ("SCHED_DEADLINE", |s| s.Runtime = 1023, ".runtime: less than 1024 ns"),
        (
            "SCHED_DEADLINE",
            |s| (s.Runtime, s.Deadline) = (4096, 2048),
            ".deadline: shorter than the runtime",
        ),
        (
            "SCHED_DEADLINE",
            |s| (s.Runtime, s.Deadline, s.Period) = (1024, 2048, 2047),
            ".period: shorter than the deadline",
        ),
    ];
    for (policy, change, message) in wrong {
        let err = scheduler(wire(policy, change)).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
        assert_eq!(err.message(), format!("process.scheduler{message}"));
    }
    let iso = scheduler(wire("SCHED_ISO", |_| {})).unwrap_err();
    assert_eq!(iso.code(), Code::Unimplemented);
}

#[test]
fn an_io_priority_is_a_class_and_a_level() {
    let wire = |class: &str, level| {
        let mut wire = extensions::LinuxIOPriority::new();
        (wire.Class, wire.Priority) = (class.to_owned(), level);
        io_priority(wire)
    };
    assert_eq!(wire("IOPRIO_CLASS_BE", 7).unwrap(), IoPriority { class: 2, level: 7 });
    for (class, level) in [("IOPRIO_CLASS_BE", 8), ("IOPRIO_CLASS_RT", -1), ("BE", 1), ("", 0)] {
        assert_eq!(
            wire(class, level).unwrap_err().code(),
            Code::InvalidArgument,
            "{class} {level}"
        );
    }
}

#[test]
fn a_list_of_numbers_is_bounded_and_exact() {
    let set = |list| numbers(list, CPUS_MAX, "f").map(|set| set.0);
    assert_eq!(set("0-3,7").unwrap(), [0b1000_1111]);
    assert_eq!(set("63-64").unwrap(), [1 << 63, 1]);
    assert_eq!(set("64-191").unwrap(), [0, u64::MAX, u64::MAX]);
    assert_eq!(set("8191").unwrap().len(), 128);
    for wrong in
        ["8192", "0-8192", "99999999999999999999", "3-1", "a", "", "1,", "-1", "1-", "0-3 ", "0x1"]
    {
        assert_eq!(set(wrong).unwrap_err().code(), Code::InvalidArgument, "{wrong:?}");
    }
    assert!(set(&"1,".repeat(4000)).is_err());
}

#[test]
fn a_personality_has_a_domain_and_no_flags() {
    let wire = |domain: &str, flags: &[&str]| {
        let mut wire = extensions::LinuxPersonality::new();
        wire.Domain = domain.to_owned();
        wire.Flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        personality(wire)
    };
    assert_eq!(wire("LINUX", &[]).unwrap(), Personality::Linux);
    assert_eq!(wire("LINUX32", &[]).unwrap(), Personality::Linux32);
    assert_eq!(wire("SVR4", &[]).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(wire("LINUX", &["ADDR_NO_RANDOMIZE"]).unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn a_memory_policy_is_a_mode_and_its_nodes() {
    let wire = |mode: &str, nodes: &str, flags: &[&str]| {
        let mut wire = extensions::LinuxMemoryPolicy::new();
        (wire.Mode, wire.Nodes) = (mode.to_owned(), nodes.to_owned());
        wire.Flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        memory_policy(wire)
    };
    let bind = wire("MPOL_BIND", "0-1,3", &["MPOL_F_STATIC_NODES"]).unwrap();
    assert_eq!((bind.mode, bind.nodes.0), (2 | 1 << 15, vec![0b1011]));
    assert_eq!(wire("MPOL_LOCAL", "", &[]).unwrap().mode, 4);
    assert_eq!(wire("MPOL_WEIGHTED_INTERLEAVE", "0", &[]).unwrap().mode, 6);
    for (mode, nodes, flags) in [
        ("MPOL_NONE", "0", &[][..]),
        ("MPOL_DEFAULT", "0", &[]),
        ("MPOL_LOCAL", "0", &[]),
        ("MPOL_BIND", "", &[]),
        ("MPOL_BIND", "1024", &[]),
        ("MPOL_BIND", "0", &["MPOL_F_NONE"]),
        ("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]),
    ] {
        let err = wire(mode, nodes, flags).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{mode} {nodes} {flags:?}");
    }
}
