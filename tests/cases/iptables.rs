//! The packet filter, as Kata's management calls read and set it.

use harness::raw::{bytes_field, number_field};
use harness::{Vm, VmConfig, guest};
use hyperstart::Code;
use hyperstart_vmm::Boot;
use image_builder::cpio::{self, Compression};
use image_builder::progress::Silent;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const AGENT: &str = "grpc.AgentService";

/// The guest's own image has no such tools: each call says which one is missing, and nothing is left of it.
#[test]
fn missing_tool_is_named() {
    let vm = Vm::boot(&VmConfig::default());
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

const TOOL: &str = "/usr/sbin/xtables-nft-multi";
const NAMES: [&str; 4] =
    ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];

/// A guest's image that carries Debian's own tool and the libraries that it asks for, as `image-builder initrd --overlay DIR`
/// makes one.
fn image_with_tools(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    let put = |path: &str| {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = fs::copy(path, &to);
        copied.unwrap_or_else(|err| panic!("{path}: {err}; `make setup` installs iptables"));
    };
    put(TOOL);
    let libraries = Command::new("/lib64/ld-linux-x86-64.so.2").args(["--list", TOOL]).output();
    let libraries = String::from_utf8(libraries.unwrap().stdout).unwrap();
    libraries.split_whitespace().filter(|word| word.starts_with('/')).for_each(put);
    // Each match and target that a rule names is one more.
    for name in ["libxt_standard.so", "libxt_tcp.so"] {
        let path = format!("/usr/lib/x86_64-linux-gnu/xtables/{name}");
        if Path::new(&path).exists() {
            put(&path);
        }
    }
    for name in NAMES {
        symlink("xtables-nft-multi", root.join("usr/sbin").join(name)).unwrap();
    }
    let init = guest::workspace().join("target/x86_64-unknown-linux-musl/tiny/init");
    let mut tree = image_builder::guest::tree(&init).unwrap();
    image_builder::additions::overlay(&mut tree, &root, &Silent).unwrap();
    let image = directory.join("initrd.img");
    cpio::write(&tree, Compression::None, &image).unwrap();
    image
}

/// An image that carries the tools has its packet filter set and read, of both families; rules that are none are an error
/// in the tool's own words.
#[test]
fn rules_are_set_and_read_by_the_tools_of_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let config = VmConfig { memory_mib: 192, ..VmConfig::default() };
    let mut machine = config.machine();
    machine.boot = Boot::Initrd(image_with_tools(directory.path()));
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let mut raw = vm.raw();
    let mut stream_id = 1;
    let mut call = |method: &str, v6: u64, rules: &str| {
        stream_id += 2;
        let payload = [number_field(1, v6), bytes_field(2, rules.as_bytes())].concat();
        raw.call(stream_id, AGENT, method, &payload)
    };
    for (v6, address) in [(0, "192.0.2.7/32"), (1, "2001:db8::7/128")] {
        let rules = format!(
            "*filter\n:INPUT ACCEPT [0:0]\n:OURS - [0:0]\n-A INPUT -s {address} -j OURS\n-A OURS -p tcp -j DROP\nCOMMIT\n"
        );
        let reply = call("SetIPTables", v6, &rules);
        assert_eq!(reply.code, 0, "{reply:?}");
        let reply = call("GetIPTables", v6, "");
        let said = String::from_utf8_lossy(&reply.payload);
        for line in [&format!("-A INPUT -s {address} -j OURS\n"), "-A OURS -p tcp -j DROP\n"] {
            assert!(reply.code == 0 && said.contains(line), "{said} {reply:?}");
        }
    }
    let reply = call("SetIPTables", 0, "*filter\n-A NOWHERE -j DROP\nCOMMIT\n");
    assert!(reply.is(Code::FailedPrecondition), "{reply:?}");
    assert!(reply.message.contains("iptables-restore: exited with"), "{reply:?}");
    vm.shutdown();
}
