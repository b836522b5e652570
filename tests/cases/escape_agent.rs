//! Ways to the guest's PID 1 itself: its vsock port, its sockets.

use crate::escape::weakest;
use harness::{Run, Vm, VmConfig};
use hyperstart_vmm::TransportKind;
use oci_spec::runtime::Capability;

/// A container without a seccomp profile and with every networking right is answered at no address that may mean this
/// guest: the kernel has no vsock loopback, and PID 1 hears the host alone.
#[test]
fn the_agent_does_not_answer_a_container() {
    let transport = Some(TransportKind::VhostUserVsock);
    let vm = Vm::boot(&VmConfig { transport, ..VmConfig::default() });
    let rights = [Capability::NetAdmin, Capability::SysAdmin, Capability::NetBroadcast];
    for (name, rights) in [("usual", &[][..]), ("strong", &rights)] {
        let said =
            vm.finish_with(name, &Run::probe(["vsock", "1024"]), |spec| weakest(spec, rights));
        let said = said.facts();
        let answers = said.below("cid.");
        assert_eq!(answers.len(), 5, "{said:?}");
        for (cid, answer) in answers {
            assert_ne!(answer, "answered", "{name}: by CID {cid}");
        }
    }
    // The same question is answered to the host: see Vm::boot, which asked it.
    vm.run("check", vm.sandbox().check()).unwrap();
    vm.shutdown();
}

/// In the network namespace that containers share with PID 1 it has no unix socket of any name.
#[test]
fn cve_2020_15257_pid_1_has_no_named_socket() {
    let vm = Vm::boot(&VmConfig::default());
    let named = || -> Vec<String> {
        let said = vm.finish("look", &Run::busybox(["cat", "/proc/net/unix"]));
        let with_name = |line: &&str| line.split_whitespace().count() > 7;
        said.stdout().lines().skip(1).filter(with_name).map(str::to_owned).collect()
    };
    assert_eq!(named(), Vec::<String>::new());
    let web = vm.start("web", &Run::probe(["listen-abstract", "planted"]));
    web.says("ready");
    assert!(named().iter().any(|line| line.ends_with("@planted")), "{:?}", named());
    web.kill();
    web.remove();
    vm.shutdown();
}
