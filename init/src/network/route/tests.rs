//! What is read of the kernel's routes, and which of them are the same.

use super::*;

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), hardware: Vec::new(), mtu: 1500, flags: 0 }
}

fn route(destination: &str, gateway: Option<&str>) -> Route {
    Route {
        destination: Cidr::parse(destination).unwrap(),
        gateway: gateway.map(|text| text.parse().unwrap()),
        device: "eth0".into(),
        source: None,
        scope: 0,
        onlink: false,
        mtu: 0,
    }
}

fn header(family: u8, prefix: u8, table: u8, scope: u8, flags: u32) -> Vec<u8> {
    let mut body = vec![family, prefix, 0, 0, table, PROTOCOL_KERNEL, scope, UNICAST];
    body.extend(flags.to_ne_bytes());
    body
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(message::align(bytes.len()), 0);
    bytes
}

fn read(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    parse(body, &[link(2, "eth0"), link(3, "eth1")], &mut found);
    found.iter().map(|entry| entry.route.to_string()).collect()
}

#[test]
fn a_route_is_read_with_all_that_it_has() {
    let mut body = header(2, 8, 254, 0, 4);
    body.extend(attribute(RTA_TABLE, &254_u32.to_ne_bytes()));
    body.extend(attribute(RTA_DST, &[10, 0, 0, 0]));
    body.extend(attribute(RTA_METRICS, &attribute(RTAX_MTU, &1400_u32.to_ne_bytes())));
    body.extend(attribute(RTA_PREFSRC, &[192, 168, 0, 2]));
    body.extend(attribute(RTA_GATEWAY, &[192, 168, 0, 1]));
    body.extend(attribute(RTA_OIF, &2_u32.to_ne_bytes()));
    let mut found = Vec::new();
    parse(&body, &[link(2, "eth0")], &mut found).unwrap();
    let Entry { route, index, protocol } = found.first().unwrap();
    assert_eq!(route.to_string(), "10.0.0.0/8 via 192.168.0.1 dev eth0");
    assert_eq!((route.mtu, route.onlink, *index, *protocol), (1400, true, 2, PROTOCOL_KERNEL));
    assert_eq!(route.source, Some("192.168.0.2".parse().unwrap()));
}

#[test]
fn only_the_main_table_is_read() {
    let oif = attribute(RTA_OIF, &2_u32.to_ne_bytes());
    let of = |header: Vec<u8>| read(&[header, oif.clone()].concat());
    assert_eq!(of(header(10, 0, 254, 0, 0)), ["::/0 dev eth0"]);
    assert!(of(header(2, 0, 255, 0, 0)).is_empty(), "the local table");
    assert!(of(header(2, 0, 254, 0, RTM_F_CLONED)).is_empty(), "learned");
    assert!(of(header(7, 0, 254, 0, 0)).is_empty(), "another family");
    let mut unreachable = header(2, 0, 254, 0, 0);
    unreachable[7] = 7;
    assert!(of(unreachable).is_empty());
}

#[test]
fn several_hops_are_several_routes() {
    let hop = |index: u32, gateway: [u8; 4]| {
        let mut bytes = vec![16, 0, 0, 0];
        bytes.extend(index.to_ne_bytes());
        bytes.extend(attribute(RTA_GATEWAY, &gateway));
        bytes
    };
    let hops = [hop(2, [10, 0, 0, 1]), hop(3, [10, 1, 0, 1])].concat();
    let body = [header(2, 0, 254, 0, 0), attribute(RTA_MULTIPATH, &hops)].concat();
    assert_eq!(read(&body), ["0.0.0.0/0 via 10.0.0.1 dev eth0", "0.0.0.0/0 via 10.1.0.1 dev eth1"]);
    let lies = [header(2, 0, 254, 0, 0), attribute(RTA_MULTIPATH, &[0; 16])].concat();
    assert!(read(&lies).is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    route("10.0.0.0/8", Some("192.168.0.1")).check().unwrap();
    let refused = |route: Route| {
        let err = route.check().unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument);
        err.message().to_owned()
    };
    let text = refused(route("10.0.0.1/8", None));
    assert_eq!(text, "route 10.0.0.1/8 dev eth0: the destination has bits after its prefix");
    assert!(refused(route("10.0.0.0/8", Some("fe80::1"))).contains("gateway"));
    let source = Some("::1".parse().unwrap());
    assert!(refused(Route { source, ..route("10.0.0.0/8", None) }).contains("source"));
    assert!(refused(Route { device: String::new(), ..route("::/0", None) }).contains("device"));
}

#[test]
fn the_kernels_own_route_does_what_a_plain_one_would() {
    let of = |route: Route, protocol| Entry { protocol, ..entry(route, &link(2, "eth0")) };
    let source = |route: Route, text: &str| Route { source: Some(text.parse().unwrap()), ..route };
    let plain = || route("10.0.0.0/8", None);
    let kernel = of(source(plain(), "10.0.0.5"), PROTOCOL_KERNEL);
    assert!(kernel.does(&of(plain(), PROTOCOL_STATIC)));
    assert!(kernel.does(&of(source(plain(), "10.0.0.5"), PROTOCOL_STATIC)));
    assert!(!kernel.does(&of(source(plain(), "10.0.0.6"), PROTOCOL_STATIC)));
    assert!(!kernel.does(&of(Route { mtu: 1400, ..plain() }, PROTOCOL_STATIC)));
    assert!(!kernel.does(&of(route("10.0.0.0/8", Some("10.0.0.1")), PROTOCOL_STATIC)));
    assert!(!of(source(plain(), "10.0.0.5"), PROTOCOL_STATIC).does(&of(plain(), PROTOCOL_STATIC)));
}

#[test]
fn a_route_without_a_gateway_is_of_the_links_scope() {
    assert_eq!(route("10.0.0.0/8", None).normalized().scope, SCOPE_LINK);
    assert_eq!(route("10.0.0.0/8", Some("10.0.0.1")).normalized().scope, 0);
    assert_eq!(route("2001:db8::/32", None).normalized().scope, 0);
    let host = Route { scope: 254, ..route("10.0.0.0/8", None) };
    assert_eq!(host.normalized().scope, 254);
}
