//! What is declared again is made so again, whatever was before; and what cannot be changes nothing.

use std::collections::BTreeSet;

use harness::container::Run;
use harness::{Mode, Vm, VmConfig};
use hyperstart::{Code, Interface, Route};

use crate::network::{
    MAC, MAC_2, cidr, interface, route, says, update, update_routes, vm_with_nics,
};

fn interfaces(vm: &Vm) -> Vec<Interface> {
    vm.run("list interfaces", vm.sandbox().list_interfaces()).unwrap()
}

fn routes(vm: &Vm) -> Vec<Route> {
    vm.run("list routes", vm.sandbox().list_routes()).unwrap()
}

fn named<'a>(interfaces: &'a [Interface], name: &str) -> &'a Interface {
    interfaces.iter().find(|found| found.name == name).unwrap()
}

/// Addresses that the kernel gave are nobody's to count.
fn declared(interface: &Interface) -> BTreeSet<String> {
    let texts = interface.addresses.iter().map(ToString::to_string);
    texts.filter(|text| !text.starts_with("fe80:")).collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Interfaces take their names, also one that another has; their addresses are replaced, and those of no host stay.
#[test]
fn interfaces_become_what_the_host_declares() {
    let vm = vm_with_nics(&[MAC, MAC_2]);
    let loopback = named(&interfaces(&vm), "lo").clone();
    assert_eq!(declared(&loopback), set(&["127.0.0.1/8", "::1/128"]));
    let both = ["10.1.0.2/24", "10.1.0.3/24", "2001:db8::2/64", "2001:db8::3/64"];
    update(&vm, &interface(MAC, "eth0", &both)).unwrap();
    update(&vm, &interface(MAC_2, "eth1", &["10.2.0.2/24"])).unwrap();
    let seen = says(&vm, "ip -o address show dev eth0");
    assert!(both.iter().all(|address| seen.contains(address)), "{seen}");
    assert!(!seen.contains("tentative"), "usable at once: {seen}");

    the_two_swap_their_names(&vm);
    addresses_are_replaced(&vm);
    what_cannot_be_changes_nothing(&vm);
    many_addresses_come_in_one_call(&vm);
    assert_eq!(named(&interfaces(&vm), "lo"), &loopback);
    vm.shutdown();
}

fn the_two_swap_their_names(vm: &Vm) {
    update_routes(vm, &[route("10.7.0.0/16", "10.1.0.1", "eth0")]).unwrap();
    let swapped = interface(MAC_2, "eth0", &["10.2.0.2/24"]);
    assert_eq!(update(vm, &swapped).unwrap().mac, MAC_2);
    let listed = interfaces(vm);
    assert_eq!(named(&listed, "eth0").mac, MAC_2);
    assert_eq!(named(&listed, "eth1").mac, MAC);
    assert!(routes(vm).contains(&route("10.7.0.0/16", "10.1.0.1", "eth1")), "{:#?}", routes(vm));
    update(vm, &interface(MAC, "uplink", &["10.1.0.2/24", "10.1.0.3/24"])).unwrap();
    assert!(routes(vm).contains(&route("10.7.0.0/16", "10.1.0.1", "uplink")));
    update(vm, &interface(MAC_2, "eth1", &["10.2.0.2/24"])).unwrap();
    update(vm, &interface(MAC, "eth0", &["10.1.0.2/24", "10.1.0.3/24"])).unwrap();
}

fn addresses_are_replaced(vm: &Vm) {
    // One that a container added is not the host's.
    let run = Run::shell("ip address add 10.1.0.99/24 dev eth0");
    let added = vm.finish_with("adds", &run, |spec| {
        harness::add_capabilities(spec, &[oci_spec::runtime::Capability::NetAdmin]);
    });
    assert_eq!((added.code, added.stderr()), (0, ""));
    // The first of a subnet goes, and the others stay; a prefix changes.
    let after = ["10.1.0.3/16", "10.1.0.4/24", "2001:db8::2/64"];
    let eth0 = update(vm, &interface(MAC, "eth0", &after)).unwrap();
    let with = [&after[..], &["10.1.0.99/24"]].concat();
    assert_eq!(declared(&eth0), set(&with));
    assert!(eth0.addresses.iter().any(|found| found.to_string().starts_with("fe80:")), "{eth0:?}");
    let again = update(vm, &interface(MAC, "eth0", &after)).unwrap();
    assert_eq!(again, eth0);
    const NOARP: u32 = 0x80;
    let quiet = Interface { flags: NOARP, ..interface(MAC, "eth0", &after) };
    assert_ne!(update(vm, &quiet).unwrap().flags & NOARP, 0);
    assert_eq!(update(vm, &interface(MAC, "eth0", &after)).unwrap().flags & NOARP, 0);
    // What was told may be told back.
    let told = Interface { addresses: quiet.addresses, ..eth0.clone() };
    assert_eq!(update(vm, &told).unwrap(), eth0);
}

fn what_cannot_be_changes_nothing(vm: &Vm) {
    let before = (interfaces(vm), routes(vm));
    let named = |name: &str| interface(MAC, name, &["10.1.0.2/24"]);
    let with = |addresses: &[&str]| interface(MAC, "other", addresses);
    let mut wrong_prefix = with(&["10.1.0.2/24"]);
    wrong_prefix.addresses[0].prefix = 33;
    let flags = Interface { flags: 0x8, ..named("other") };
    for (bad, text) in [
        (with(&["10.1.0.2/24", "10.1.0.2/25"]), "named twice"),
        (with(&["224.0.0.1/24"]), "no interface can have it"),
        (wrong_prefix, "10.1.0.2/33"),
        (interface("01:00:00:00:00:01", "x", &[]), "hardware address"),
        (interface("", "x", &[]), "neither"),
        (named("a-name-of-16-let"), "name"),
        (named("eth/0"), "name"),
        (named("lo"), "loopback"),
        (flags, "flags 0x8"),
        (Interface { pci_path: "1".into(), ..named("x") }, "devicePath"),
    ] {
        let err = update(vm, &bad).unwrap_err();
        assert!(err.code() == Code::InvalidArgument && err.message().contains(text), "{err}");
    }
    // Refused by the kernel, and late: the name was changed by then, and changes back.
    let late = Interface { mtu: 70_000, ..named("eth1") };
    let err = update(vm, &late).unwrap_err();
    assert!(err.message().contains("set MTU 70000 of link eth1: EINVAL"), "{err}");
    let err = update(vm, &interface("02:00:00:00:0f:0f", "eth9", &[])).unwrap_err();
    assert!(err.code() == Code::NotFound && err.message().contains("Link not found"), "{err}");
    let many: Vec<String> = (0..257).map(|n| format!("10.6.{}.{}/32", n / 250, n % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let err = update(vm, &interface(MAC, "eth0", &many)).unwrap_err();
    assert_eq!(err.code(), Code::ResourceExhausted, "{err}");
    assert_eq!((interfaces(vm), routes(vm)), before);
}

fn many_addresses_come_in_one_call(vm: &Vm) {
    let half = |pattern: fn(usize) -> String| (1..26).map(pattern);
    let v4 = half(|n| format!("10.5.{n}.1/24"));
    let v6 = half(|n| format!("2001:db8:{n:x}::1/64"));
    let fifty: BTreeSet<String> = v4.chain(v6).collect();
    let texts: Vec<&str> = fifty.iter().map(String::as_str).collect();
    let eth1 = update(vm, &interface(MAC_2, "eth1", &texts)).unwrap();
    assert_eq!(declared(&eth1), fifty);
    assert_eq!(declared(&update(vm, &interface(MAC_2, "eth1", &[])).unwrap()), set(&[]));
}

/// Routes come in any order, and replace those that were declared before; the kernel's stay. What cannot be done leaves
/// all as it was, and says which route it was.
#[test]
fn routes_become_what_the_host_declares() {
    let vm = vm_with_nics(&[MAC, MAC_2]);
    update(&vm, &interface(MAC, "eth0", &["10.1.0.2/24", "10.1.0.3/24", "2001:db8::2/64"]))
        .unwrap();
    update(&vm, &interface(MAC_2, "eth1", &["10.2.0.2/24", "2001:db8:2::2/64"])).unwrap();
    let kernel = routes(&vm);
    assert!(kernel.iter().any(|route| route.destination == cidr("10.1.0.0/24")), "{kernel:#?}");
    let source = |text: &str, route| Route { source: Some(text.parse().unwrap()), ..route };
    let link = |route| Route { scope: 253, ..route };
    let backwards = [
        route("0.0.0.0/0", "10.8.0.1", "eth0"), // reached by the third
        route("::/0", "2001:db8:8::1", "eth0"), // by the fourth
        link(route("10.8.0.0/24", "", "eth0")),
        route("2001:db8:8::/64", "", "eth0"),
        source("10.1.0.3", route("10.20.0.0/16", "10.1.0.1", "eth0")),
        Route { mtu: 1300, ..route("10.21.0.0/16", "10.1.0.1", "eth0") },
        Route { onlink: true, ..route("10.22.0.0/16", "192.0.2.1", "eth1") },
        route("0.0.0.0/0", "10.2.0.1", "eth1"), // a second default route
        route("2001:db8:20::/48", "fe80::1", "eth1"),
    ];
    let full = update_routes(&vm, &backwards).unwrap();
    assert!(backwards.iter().all(|wanted| full.contains(wanted)), "{full:#?}");
    assert!(kernel.iter().all(|kept| full.contains(kept)), "{full:#?}");
    assert_eq!(full.len(), kernel.len() + backwards.len());
    assert_eq!(update_routes(&vm, &backwards).unwrap(), full, "once more");
    let seen = says(&vm, "ip route");
    assert!(seen.contains("default via 10.8.0.1 dev eth0"), "{seen}");
    assert!(
        seen.contains("10.20.0.0/16 via 10.1.0.1 dev eth0") && seen.contains("src 10.1.0.3"),
        "{seen}"
    );

    refused_routes_leave_the_others(&vm, &full);
    let one = [Route { mtu: 1400, ..route("10.21.0.0/16", "10.1.0.1", "eth0") }];
    let after = update_routes(&vm, &one).unwrap();
    assert_eq!(after.len(), kernel.len() + 1, "{after:#?}");
    assert!(after.contains(&one[0]));
    let subnet = [link(route("10.1.0.0/24", "", "eth0"))];
    assert_eq!(update_routes(&vm, &subnet).unwrap(), kernel, "the kernel has it already");
    many_routes_come_in_one_call(&vm, kernel.len());
    assert_eq!(update_routes(&vm, &[]).unwrap(), kernel);
    vm.shutdown();
}

fn refused_routes_leave_the_others(vm: &Vm, before: &[Route]) {
    let good = route("10.30.0.0/16", "", "eth0");
    for (bad, code, text) in [
        (
            route("10.0.0.0/8", "10.99.0.1", "eth0"),
            Code::FailedPrecondition,
            "add route 10.0.0.0/8 via 10.99.0.1 dev eth0: ENETUNREACH",
        ),
        (
            route("2001:db8:30::/48", "2001:db8:99::1", "eth0"),
            Code::FailedPrecondition,
            "add route 2001:db8:30::/48 via 2001:db8:99::1 dev eth0: EHOSTUNREACH",
        ),
        (route("10.0.0.1/8", "", "eth0"), Code::InvalidArgument, "bits after its prefix"),
        (route("10.0.0.0/8", "", "eth7"), Code::NotFound, "eth7"),
        (route("10.0.0.0/8", "", ""), Code::InvalidArgument, "no device"),
        (route("10.0.0.0/8", "2001:db8::1", "eth0"), Code::InvalidArgument, "another family"),
        (
            Route { source: Some("10.77.0.1".parse().unwrap()), ..route("10.0.0.0/8", "", "eth0") },
            Code::InvalidArgument,
            "add route 10.0.0.0/8 dev eth0: EINVAL",
        ),
    ] {
        let err = update_routes(vm, &[good.clone(), bad]).unwrap_err();
        assert!(err.code() == code && err.message().contains(text), "{err}");
        assert_same(&routes(vm), before, &err.to_string());
    }
    let many = vec![good; 1025];
    assert_eq!(update_routes(vm, &many).unwrap_err().code(), Code::ResourceExhausted);
}

/// The same routes, in whatever order.
fn assert_same(found: &[Route], wanted: &[Route], why: &str) {
    let more: Vec<_> = found.iter().filter(|route| !wanted.contains(route)).collect();
    let less: Vec<_> = wanted.iter().filter(|route| !found.contains(route)).collect();
    assert!(more.is_empty() && less.is_empty(), "{why}: too many: {more:#?}, too few: {less:#?}");
    assert_eq!(found.len(), wanted.len(), "{why}: {found:#?}");
}

fn many_routes_come_in_one_call(vm: &Vm, others: usize) {
    let many: Vec<Route> = (0..200)
        .map(|n| match n % 2 {
            0 => route(&format!("172.16.{n}.0/24"), "10.1.0.1", "eth0"),
            _ => route(&format!("2001:db8:{n:x}::/48"), "2001:db8::1", "eth0"),
        })
        .collect();
    let full = update_routes(vm, &many).unwrap();
    assert_eq!(full.len(), others + many.len());
    assert!(many.iter().all(|wanted| full.contains(wanted)));
}

/// A guest without a NIC has a loopback interface and no routes, in either boot mode.
#[test]
fn guest_without_a_nic_has_its_loopback() {
    let vm = Vm::boot(&VmConfig { mode: Mode::Dax, ..VmConfig::default() });
    let found = interfaces(&vm);
    let names: Vec<_> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(routes(&vm), []);
    vm.shutdown();
}
