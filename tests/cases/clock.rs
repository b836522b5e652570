//! What makes a guest that was cloned a guest of its own: its time, its random numbers.

use harness::raw::number_field;
use harness::{Run, Vm, VmConfig};
use hyperstart::Code;
use std::time::{Duration, SystemTime};

/// The clock is set for the whole guest, containers and events included; a time that cannot be is refused.
#[test]
fn the_clock_is_set_and_nonsense_is_refused() {
    const FUTURE: u64 = 2_000_000_000; // in the year 2033
    let vm = Vm::boot(&VmConfig::default());
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FUTURE);
    vm.run("set the clock", vm.sandbox().set_time(time)).unwrap();
    let date = vm.finish("date", &Run::busybox(["date", "+%s"]));
    let seconds: u64 = date.stdout().trim().parse().unwrap();
    assert!((FUTURE..FUTURE + 3600).contains(&seconds), "{seconds}");
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let err = vm.run("set the clock", vm.sandbox().set_time(far)).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument, "{err}");
    let mut raw = vm.raw();
    // Sec = 1, Usec = 2; a negative number is its two's complement.
    for (seconds, microseconds) in [(FUTURE, 1_000_000), (u64::MAX, 0), (FUTURE, u64::MAX), (0, 0)]
    {
        let time = [number_field(1, seconds), number_field(2, microseconds)].concat();
        let reply = raw.call(1, "grpc.AgentService", "SetGuestDateTime", &time);
        assert!(reply.is(Code::InvalidArgument), "{seconds} {microseconds}: {reply:?}");
    }
    drop(raw);
    let date = vm.finish("date", &Run::busybox(["date", "+%s"]));
    let seconds: u64 = date.stdout().trim().parse().unwrap();
    assert!(
        (FUTURE..FUTURE + 3600).contains(&seconds),
        "what was refused has changed it: {seconds}"
    );
    vm.shutdown();
}

/// A seed is taken by the kernel; none, and one that is too large, is refused.
#[test]
fn random_numbers_are_reseeded() {
    let vm = Vm::boot(&VmConfig::default());
    for size in [1, 32, 512, 4096] {
        vm.run("reseed", vm.sandbox().reseed(&vec![7; size])).unwrap();
    }
    for size in [0, 4097] {
        let err = vm.run("reseed", vm.sandbox().reseed(&vec![7; size])).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
        assert!(err.message().contains(&format!("{size} bytes")), "{err}");
    }
    let read = "head -c 16 /dev/urandom | od -An -tx1";
    let numbers = ["one", "two"].map(|name| vm.finish(name, &Run::shell(read)).stdout().to_owned());
    assert_ne!(numbers[0], numbers[1]);
    vm.shutdown();
}
