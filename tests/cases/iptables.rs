//! The packet filter, as Kata's management calls read and set it.

use harness::raw::{bytes_field, number_field};
use harness::{Vm, VmConfig};
use hyperstart::Code;
use std::time::Duration;

const AGENT: &str = "grpc.AgentService";

/// The guest's own image has no such tools: each call says which one is missing, and nothing is left of it.
#[test]
fn missing_tool_is_named() {
    let vm = Vm::boot(&VmConfig { deadline: Duration::from_secs(180), ..VmConfig::default() });
    let mut raw = vm.raw();
    for (index, (method, v6, tool)) in [
        ("GetIPTables", 0, "no iptables-save"),
        ("GetIPTables", 1, "no ip6tables-save"),
        ("SetIPTables", 0, "no iptables-restore"),
        ("SetIPTables", 1, "no ip6tables-restore"),
    ]
    .into_iter()
    .enumerate()
    {
        let rules =
            if method == "SetIPTables" { bytes_field(2, b"*filter\nCOMMIT\n") } else { Vec::new() };
        let payload = [number_field(1, v6), rules].concat();
        let reply = raw.call(u32::try_from(2 * index + 1).unwrap(), AGENT, method, &payload);
        assert!(
            reply.is(Code::Unimplemented) && reply.message.contains(tool),
            "{method}: {reply:?}"
        );
    }
    let too_many = bytes_field(2, &vec![b'#'; (1 << 20) + 1]);
    let reply = raw.call(99, AGENT, "SetIPTables", &too_many);
    assert!(reply.is(Code::InvalidArgument) && reply.message.contains("more than"), "{reply:?}");
    vm.shutdown();
}
