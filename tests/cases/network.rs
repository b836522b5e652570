//! The network that a pod is given, with real packets to a peer in a namespace of the test's.

use std::time::Duration;

use harness::container::Run;
use harness::network::echo;
use harness::{Vm, VmConfig};
use hyperstart::{Cidr, Code, Interface, Neighbour, Route};
use hyperstart_vmm::{MachineKind, Network, Nic};

pub const MAC: &str = "02:00:00:00:00:01";
pub const MAC_2: &str = "02:00:00:00:00:02";

pub fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub fn route(destination: &str, gateway: &str, device: &str) -> Route {
    let gateway = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
    Route::new(cidr(destination), gateway, device)
}

pub fn interface(mac: &str, name: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name.into(),
        mac: mac.into(),
        addresses: addresses.iter().map(|text| cidr(text)).collect(),
        ..Interface::default()
    }
}

/// A guest that has a NIC for each of these, with no way out of QEMU's own network.
pub fn vm_with_nics(macs: &[&str]) -> Vm {
    let nic = |mac: &&str| Nic {
        network: Network::User { restricted: true },
        mac: (*mac).to_owned(),
        mtu: None,
    };
    let nics = macs.iter().map(nic).collect();
    Vm::boot(&VmConfig { nics, ..VmConfig::default() })
}

pub fn update(vm: &Vm, interface: &Interface) -> hyperstart::Result<Interface> {
    vm.run("update an interface", vm.sandbox().update_interface(interface))
}

pub fn update_routes(vm: &Vm, routes: &[Route]) -> hyperstart::Result<Vec<Route>> {
    vm.run("update routes", vm.sandbox().update_routes(routes))
}

/// What a script in a container says.
pub fn says(vm: &Vm, script: &str) -> String {
    let finished = vm.finish("look", &Run::shell(script));
    assert_eq!((finished.code, finished.stderr()), (0, ""), "{script}: {}", finished.stdout());
    finished.stdout().to_owned()
}

/// A container has the addresses and routes that the host declares, and by them reaches its peer over IPv4 and IPv6, at
/// once when the calls have returned.
#[test]
fn pod_reaches_its_peer_over_both_families() {
    // Not restricted: 10.0.2.2 and fec0::2 are this machine's loopback. Nothing else is spoken to.
    let network = Network::User { restricted: false };
    let nics = vec![Nic { network, mac: MAC.into(), mtu: Some(1500) }];
    let vm = Vm::boot(&VmConfig { nics, ..VmConfig::default() });
    let mut wanted = interface(MAC, "eth0", &["10.0.2.15/24", "fec0::15/64"]);
    wanted.mtu = 1500;
    let eth0 = update(&vm, &wanted).unwrap();
    assert_eq!((eth0.name.as_str(), eth0.mac.as_str(), eth0.mtu), ("eth0", MAC, 1500));
    assert!(wanted.addresses.iter().all(|cidr| eth0.addresses.contains(cidr)), "{eth0:?}");
    let default = [route("0.0.0.0/0", "10.0.2.2", "eth0"), route("::/0", "fec0::2", "eth0")];
    let routes = update_routes(&vm, &default).unwrap();
    assert!(default.iter().all(|wanted| routes.contains(wanted)), "{routes:#?}");
    let ports = (echo("127.0.0.1"), echo("::1"));
    echoes(&vm, ports);
    says(&vm, "ping -c 1 -w 60 10.0.2.2 && ping6 -c 1 -w 60 fec0::2");

    smaller_packets_and_the_same_routes(&vm, &wanted, &routes);
    echoes(&vm, ports);
    a_neighbour_that_never_answers(&vm);
    vm.shutdown();
}

/// What goes to a peer comes back as it was, over either family.
fn echoes(vm: &Vm, (v4, v6): (u16, u16)) {
    for (address, port) in [("10.0.2.2", v4), ("fec0::2", v6)] {
        // Each hears the end of what the other says.
        let sums = says(
            vm,
            &format!(
                "head -c 200000 /bin/busybox > /tmp/sent; nc -w 60 {address} {port} < /tmp/sent > /tmp/got; \
                 sha256sum < /tmp/sent; sha256sum < /tmp/got"
            ),
        );
        let mut sums = sums.lines();
        assert_eq!(sums.next(), sums.next(), "{address}");
    }
}

/// An MTU that changes on a live link leaves its routes and addresses.
fn smaller_packets_and_the_same_routes(vm: &Vm, wanted: &Interface, routes: &[Route]) {
    let eth0 = update(vm, &Interface { mtu: 1400, ..wanted.clone() }).unwrap();
    assert_eq!(eth0.mtu, 1400);
    assert_eq!(vm.run("list routes", vm.sandbox().list_routes()).unwrap(), routes);
    let err = update(vm, &Interface { mtu: 9000, ..wanted.clone() }).unwrap_err();
    assert!(err.message().contains("set MTU 9000 of link eth0: EINVAL"), "{err}");
    assert_eq!(vm.run("list routes", vm.sandbox().list_routes()).unwrap(), routes);
}

/// A neighbour that is declared is not asked for, and stays; declared again it is replaced.
fn a_neighbour_that_never_answers(vm: &Vm) {
    let neighbour = |address: &str, mac: &str| Neighbour {
        address: address.parse().unwrap(),
        device: "eth0".into(),
        mac: mac.into(),
        router: false,
    };
    let add = |neighbours: &[Neighbour]| {
        vm.run("add neighbours", vm.sandbox().add_arp_neighbors(neighbours))
    };
    let silent = [neighbour("10.0.2.77", MAC_2), neighbour("fec0::77", MAC_2)];
    add(&silent).unwrap();
    add(&silent).unwrap();
    assert_permanent(vm, "10.0.2.77", MAC_2);
    assert_permanent(vm, "fec0::77", MAC_2);
    let other = "02:00:00:00:00:99";
    let err = add(&[neighbour("10.0.2.77", other), neighbour("10.0.2.78", "ff:ff:ff:ff:ff:ff")]);
    assert_eq!(err.unwrap_err().code(), Code::InvalidArgument);
    let nowhere = Neighbour { device: "eth7".into(), ..neighbour("10.0.2.79", other) };
    let err = add(&[neighbour("10.0.2.77", other), nowhere]).unwrap_err();
    assert!(err.code() == Code::NotFound && err.message().contains("eth7"), "{err}");
    assert_eq!(add(&[neighbour("224.0.0.1", other)]).unwrap_err().code(), Code::InvalidArgument);
    assert_permanent(vm, "10.0.2.77", MAC_2); // as it was before
    add(&[neighbour("10.0.2.77", other)]).unwrap();
    assert_permanent(vm, "10.0.2.77", other);
    let many: Vec<_> = (0..1025).map(|_| neighbour("10.0.2.77", other)).collect();
    assert_eq!(add(&many).unwrap_err().code(), Code::ResourceExhausted);
}

fn assert_permanent(vm: &Vm, address: &str, mac: &str) {
    let table = says(vm, "ip neigh show dev eth0");
    let begin = format!("{address} lladdr {mac} ");
    let is_it = |line: &str| line.starts_with(&begin) && line.trim_end().ends_with(" PERMANENT");
    assert!(table.lines().any(is_it), "{table}");
}

/// The guest waits for a NIC that is being plugged in, by its hardware address or PCI path, and says "Link not found", on
/// which Kata's runtime tries again, for one that does not come.
#[test]
fn nic_that_is_plugged_in_is_waited_for() {
    let config =
        VmConfig { cmdline: vec!["agent.hotplug_timeout=60".into()], ..VmConfig::default() };
    let mut machine = config.machine();
    machine.kind = MachineKind::Q35;
    machine.slots = 1;
    let vm = Vm::boot_machine(&machine);
    vm.create_sandbox();
    let plug = async {
        tokio::time::sleep(Duration::from_millis(300)).await; // the guest has begun to wait
        let qmp = vm.machine().qmp();
        let backend = serde_json::json!({"type": "user", "id": "late-net", "restrict": true});
        qmp.execute("netdev_add", backend).await.unwrap();
        let device = serde_json::json!({
            "driver": "virtio-net-pci", "id": "late", "netdev": "late-net", "mac": MAC,
            "romfile": "", "bus": "slot0", "addr": "0x0",
        });
        qmp.execute("device_add", device).await.unwrap();
    };
    let wanted = interface(MAC, "late0", &["10.0.2.15/24"]);
    let (updated, ()) = vm
        .run("plug a NIC in", async { tokio::join!(vm.sandbox().update_interface(&wanted), plug) });
    assert_eq!(updated.unwrap().name, "late0");
    let mut by_path = interface("", "late1", &["10.0.2.16/24"]);
    by_path.pci_path = "05/00".into();
    let found = update(&vm, &by_path).unwrap();
    assert_eq!((found.name.as_str(), found.mac.as_str()), ("late1", MAC));
    assert_eq!(found.pci_path, by_path.pci_path);
    assert!(!found.addresses.contains(&cidr("10.0.2.15/24")), "{found:?}");
    vm.shutdown();
}
