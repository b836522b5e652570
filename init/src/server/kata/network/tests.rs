//! What a host may write, and what it is told by which name when it may not.

use super::*;

fn wire_interface(mac: &str, addresses: &[(IPFamily, &str, &str)]) -> WireInterface {
    let mut wire = WireInterface::new();
    wire.hwAddr = mac.to_owned();
    wire.IPAddresses = addresses
        .iter()
        .map(|(family, address, mask)| {
            let mut wire = IPAddress::new();
            wire.family = (*family).into();
            wire.address = (*address).to_owned();
            wire.mask = (*mask).to_owned();
            wire
        })
        .collect();
    wire
}

fn wire_route(dest: &str, gateway: &str, family: IPFamily) -> WireRoute {
    let mut wire = WireRoute::new();
    wire.dest = dest.to_owned();
    wire.gateway = gateway.to_owned();
    wire.family = family.into();
    wire.device = "eth0".to_owned();
    wire
}

const MAC: &str = "02:00:00:00:00:01";

#[test]
fn an_interface_is_read_with_families_said_or_not() {
    let addresses = [
        (IPFamily::v4, "10.0.0.2", "24"),
        (IPFamily::v6, "2001:db8::2", "64"),
        (IPFamily::v4, "2001:db8::3", "64"), // 0 is also what was not said
    ];
    let spec = interface_spec(wire_interface(MAC, &addresses)).unwrap();
    let texts: Vec<_> = spec.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.2/24", "2001:db8::2/64", "2001:db8::3/64"]);
    assert_eq!((spec.mtu, spec.name.as_deref(), spec.pci_path), (None, None, None));
}

#[test]
fn a_bad_interface_is_refused_by_the_fields_name() {
    let refused = |wire| {
        let err = interface_spec(wire).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{err}");
        err.message().to_owned()
    };
    for (address, mask) in
        [("10.0.0", "24"), ("10.0.0.2", "33"), ("10.0.0.2", ""), ("10.0.0.2", "+8"), ("", "0")]
    {
        let text = refused(wire_interface(MAC, &[(IPFamily::v4, address, mask)]));
        assert!(text.starts_with("IPAddresses: "), "{text}");
    }
    assert!(
        refused(wire_interface(MAC, &[(IPFamily::v6, "10.0.0.2", "24")])).contains("family v6")
    );
    assert!(refused(wire_interface("02:00", &[])).starts_with("hwAddr: "));
    let mut large = wire_interface(MAC, &[]);
    large.mtu = 1 << 32;
    assert!(refused(large).starts_with("mtu 4294967296"));
    let mut path = wire_interface(MAC, &[]);
    path.devicePath = "../05".to_owned();
    assert!(refused(path).starts_with("devicePath: "));
}

#[test]
fn a_default_route_is_of_its_gateways_family() {
    let to = |wire| route(wire).unwrap().destination.to_string();
    assert_eq!(to(wire_route("", "10.0.0.1", IPFamily::v4)), "0.0.0.0/0");
    assert_eq!(to(wire_route("default", "", IPFamily::v6)), "::/0");
    assert_eq!(to(wire_route("", "fe80::1", IPFamily::v4)), "::/0");
    assert_eq!(to(wire_route("10.0.0.1", "", IPFamily::v4)), "10.0.0.1/32");
}

#[test]
fn a_bad_route_is_refused_by_the_fields_name() {
    let refused = |wire, code, name: &str| {
        let err = route(wire).unwrap_err();
        assert!(err.code() == code && err.message().contains(name), "{err}");
    };
    refused(wire_route("10.0.0.0/33", "", IPFamily::v4), Code::InvalidArgument, "dest");
    refused(wire_route("10.0.0.0/8", "", IPFamily::v6), Code::InvalidArgument, "family v6");
    refused(wire_route("10.0.0.0/8", "router", IPFamily::v4), Code::InvalidArgument, "gateway");
    let with = |change: fn(&mut WireRoute)| {
        let mut wire = wire_route("10.0.0.0/8", "", IPFamily::v4);
        change(&mut wire);
        wire
    };
    refused(with(|wire| wire.source = "x".into()), Code::InvalidArgument, "source");
    refused(with(|wire| wire.scope = 256), Code::InvalidArgument, "scope 256");
    refused(with(|wire| wire.flags = RTNH_F_PERVASIVE), Code::Unimplemented, "pervasive");
    assert!(route(with(|wire| wire.flags = 1 | RTNH_F_ONLINK)).unwrap().onlink);
}

#[test]
fn a_neighbour_is_permanent_and_has_a_hardware_address() {
    let wire = |state, flags, mac: &str| {
        let mut to = IPAddress::new();
        to.address = "10.0.0.9".to_owned();
        let mut wire = ARPNeighbor::new();
        wire.toIPAddress = Some(to).into();
        (wire.state, wire.flags, wire.lladdr) = (state, flags, mac.to_owned());
        wire
    };
    assert!(neighbour(wire(NUD_PERMANENT, NTF_ROUTER, MAC)).unwrap().router);
    assert!(!neighbour(wire(0, 0, MAC)).unwrap().router);
    let code = |wire| neighbour(wire).unwrap_err().code();
    assert_eq!(code(wire(2, 0, MAC)), Code::Unimplemented);
    assert_eq!(code(wire(0, 8, MAC)), Code::Unimplemented);
    assert_eq!(code(wire(0, 0, "")), Code::InvalidArgument);
    assert_eq!(code(ARPNeighbor::new()), Code::InvalidArgument);
}

#[test]
fn families_are_told_as_they_are() {
    let family = |text: &str| wire_address(Cidr::parse(text).unwrap()).family.enum_value();
    assert_eq!(family("10.0.0.2/24"), Ok(IPFamily::v4));
    assert_eq!(family("2001:db8::2/64"), Ok(IPFamily::v6));
    let mut told = route(wire_route("::/0", "fe80::1", IPFamily::v6)).unwrap();
    told.onlink = true;
    let wire = wire_routes(vec![told]).Routes;
    assert_eq!((wire[0].dest.as_str(), wire[0].flags), ("", RTNH_F_ONLINK));
    assert_eq!(wire[0].family.enum_value(), Ok(IPFamily::v6));
}
