use super::*;
use crate::error::Code;

fn refusal(change: impl FnOnce(&mut oci::LinuxResources)) -> (Code, String) {
    let mut wire = oci::LinuxResources::new();
    change(&mut wire);
    let err = resources(wire).unwrap_err();
    (err.code(), err.message().to_owned())
}

fn with_unified(file: &str, value: &str) -> oci::LinuxResources {
    let mut wire = oci::LinuxResources::new();
    wire.Unified.insert(file.to_owned(), value.to_owned());
    wire
}

#[test]
fn unified_takes_files_of_controllers_alone() {
    for good in ["memory.high", "hugetlb.2MB.max", "cpu.max.burst", "io.max"] {
        assert_eq!(
            resources(with_unified(good, "1")).unwrap().unified,
            [(good.into(), "1".into())]
        );
    }
    for bad in [
        "cgroup.procs",
        "cgroup.subtree_control",
        "../memory.high",
        "memory/high",
        "memory",
        ".high",
        "memory.",
        "memory..high",
        "",
        "memory.high\n",
        &format!("memory.{}", "x".repeat(64)),
    ] {
        let err = resources(with_unified(bad, "1")).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{bad:?}");
        assert!(err.message().starts_with("linux.resources.unified["), "{err}");
    }
    for bad in ["", "\n", "1\0", &"1".repeat(4097)] {
        assert!(resources(with_unified("memory.high", bad)).is_err(), "{bad:?}");
    }
    let many = refusal(|wire| {
        wire.Unified = (0..65).map(|n| (format!("memory.x{n}"), "1".to_owned())).collect();
    });
    assert_eq!(many.1, "linux.resources.unified: 65 entries, more than 64");
}

#[test]
fn what_version_2_has_not_is_refused_with_the_reason() {
    let refusals = [
        refusal(|wire| wire.Memory.mut_or_insert_default().Swappiness = 1),
        refusal(|wire| wire.Memory.mut_or_insert_default().Kernel = 1),
        refusal(|wire| wire.Memory.mut_or_insert_default().KernelTCP = 1),
        refusal(|wire| wire.Memory.mut_or_insert_default().DisableOOMKiller = true),
        refusal(|wire| wire.CPU.mut_or_insert_default().RealtimeRuntime = 1),
        refusal(|wire| wire.CPU.mut_or_insert_default().RealtimePeriod = 1),
        refusal(|wire| wire.Network.mut_or_insert_default().ClassID = 1),
        refusal(|wire| wire.BlockIO.mut_or_insert_default().LeafWeight = 1),
    ];
    for (code, message) in refusals {
        assert_eq!(code, Code::Unimplemented, "{message}");
        assert!(message.contains(": not supported by this guest: cgroup v2 has n"), "{message}");
    }
}

#[test]
fn disks_have_numbers_weights_and_rates() {
    let mut wire = oci::LinuxResources::new();
    let io = wire.BlockIO.mut_or_insert_default();
    io.Weight = 100;
    let mut weight = oci::LinuxWeightDevice::new();
    (weight.Major, weight.Minor, weight.Weight) = (8, 1, 1000);
    io.WeightDevice = vec![weight];
    let throttle = |rate| {
        let mut throttle = oci::LinuxThrottleDevice::new();
        (throttle.Major, throttle.Rate) = (8, rate);
        vec![throttle]
    };
    (io.ThrottleReadBpsDevice, io.ThrottleWriteIOPSDevice) = (throttle(7), throttle(0));
    let taken = resources(wire).unwrap();
    assert_eq!((taken.io_weight, taken.io_device_weights), (Some(100), vec![((8, 1), 1000)]));
    let limits: Vec<_> = taken.io_limits.iter().map(|limit| (limit.what, limit.rate)).collect();
    assert_eq!(limits, [("rbps", Limit::Of(7)), ("wiops", Limit::Max)]);
    let wrong = [
        refusal(|wire| wire.BlockIO.mut_or_insert_default().Weight = 9),
        refusal(|wire| wire.BlockIO.mut_or_insert_default().Weight = 1001),
        refusal(|wire| {
            let mut weight = oci::LinuxWeightDevice::new();
            (weight.Major, weight.Weight) = (-1, 10);
            wire.BlockIO.mut_or_insert_default().WeightDevice = vec![weight];
        }),
    ];
    for (code, message) in wrong {
        assert_eq!(code, Code::InvalidArgument, "{message}");
    }
}

#[test]
fn an_rdma_device_is_one_word() {
    let mut wire = oci::LinuxResources::new();
    let mut limits = extensions::LinuxRdma::new();
    limits.HcaHandles = Some(2);
    wire.Rdma.insert("mlx5_1".to_owned(), limits.clone());
    let taken = resources(wire).unwrap().rdma_limits;
    assert_eq!(
        (taken[0].device.as_str(), taken[0].handles, taken[0].objects),
        ("mlx5_1", Some(2), None)
    );
    for bad in ["", "a b", "a\nb", "a=b"] {
        let (code, _) = refusal(|wire| {
            wire.Rdma.insert(bad.to_owned(), limits.clone());
        });
        assert_eq!(code, Code::InvalidArgument, "{bad:?}");
    }
}
