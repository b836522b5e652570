//! Routes of the main table as the kernel has them, and the requests that add and delete one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{RouteFlags, RouteHeader, RouteProtocol, RouteScope, RouteType};

use super::address::family;
use super::cidr::Cidr;
use super::link::Link;
use super::message::{self, attributes, entries, octets, u8_at, u16_at, u32_at};
use super::netlink::{Netlink, Request, attribute};
use crate::error::{Code, Context, Error, Result};

/// struct rtmsg.
const HEADER_BYTES: usize = 12;
/// struct rtnexthop.
const HOP_BYTES: usize = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTM_F_CLONED: u32 = 0x200;
const MAIN: u32 = 254;
const UNICAST: u8 = 1;
const PROTOCOL_KERNEL: u8 = 2;
/// What a host declares is static: so ip-route(8) has it too.
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;

/// A way out: ip-route(8).
#[derive(Debug, Clone)]
pub struct Route {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
    /// The name of its link, when this was read or declared.
    pub device: String,
    /// The address that packets are sent from.
    pub source: Option<IpAddr>,
    /// RT_SCOPE_*; IPv6 has none.
    pub scope: u8,
    /// The gateway is reached by the link even if no route says so.
    pub onlink: bool,
    /// In bytes; 0: that of the link.
    pub mtu: u32,
}

/// A route of a link that is there.
#[derive(Debug, Clone)]
pub struct Entry {
    pub route: Route,
    pub index: u32,
    pub protocol: u8,
}

impl Route {
    pub fn check(&self) -> Result<()> {
        let bad =
            |why: &str| Err(Error::new(Code::InvalidArgument, format!("route {self}: {why}")));
        let other_family = |address: Option<IpAddr>| {
            address.is_some_and(|address| address.is_ipv4() != self.destination.address.is_ipv4())
        };
        if !self.destination.is_destination() {
            return bad("the destination has bits after its prefix");
        }
        if other_family(self.gateway) {
            return bad("the gateway is of another family");
        }
        if other_family(self.source) {
            return bad("the source is of another family");
        }
        if self.device.is_empty() {
            return bad("no device");
        }
        Ok(())
    }

    /// As the kernel reports it: what is reached without a gateway is of the link's scope, as ip-route(8) has it.
    pub fn normalized(mut self) -> Self {
        match self.destination.address {
            IpAddr::V4(_) if self.gateway.is_none() && self.scope == 0 => self.scope = SCOPE_LINK,
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => self.scope = 0,
        }
        self
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.device)
    }
}

impl Entry {
    /// Whether both are the same route; names of links change, their indices do not.
    pub fn is(&self, other: &Self) -> bool {
        let (one, two) = (&self.route, &other.route);
        self.is_beside(other)
            && (one.source, one.scope, one.onlink) == (two.source, two.scope, two.onlink)
            && one.mtu == two.mtu
    }

    /// Whether both lead to the same place by the same way.
    fn is_beside(&self, other: &Self) -> bool {
        self.index == other.index
            && self.route.destination == other.route.destination
            && self.route.gateway == other.route.gateway
    }

    /// Whether this one, which is there, does what `wanted` asks for. The kernel's own route to a link's subnet does
    /// what a plain one to it would.
    pub fn does(&self, wanted: &Self) -> bool {
        let plain = wanted.route.gateway.is_none() && !wanted.route.onlink && wanted.route.mtu == 0;
        let source = wanted.route.source.is_none_or(|source| self.route.source == Some(source));
        self.is(wanted)
            || self.protocol == PROTOCOL_KERNEL && plain && source && self.is_beside(wanted)
    }

    pub fn is_static(&self) -> bool {
        self.protocol == PROTOCOL_STATIC
    }

    pub fn has_gateway(&self) -> bool {
        self.route.gateway.is_some()
    }
}

/// A declared route of the link that has its device's name.
pub fn entry(route: Route, link: &Link) -> Entry {
    Entry { route: route.normalized(), index: link.index, protocol: PROTOCOL_STATIC }
}

/// The main table's, IPv4's first. `links` has the names of their links.
pub async fn routes(netlink: &mut Netlink, links: &[Link]) -> Result<Vec<Entry>> {
    let request = Request::dump(libc::RTM_GETROUTE, &RouteHeader::default());
    let bytes = netlink.dump(&request).await.context(|| "list routes".to_owned())?;
    let mut found = Vec::new();
    for body in entries(&bytes) {
        parse(body, links, &mut found);
    }
    Ok(found)
}

/// One entry, or one for each hop of several.
fn parse(body: &[u8], links: &[Link], found: &mut Vec<Entry>) -> Option<()> {
    let (family, prefix) = (u8_at(body, 0)?, u8_at(body, 1)?);
    let (protocol, scope, kind) = (u8_at(body, 5)?, u8_at(body, 6)?, u8_at(body, 7)?);
    let flags = u32_at(body, 8)?;
    let any = match i32::from(family) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None, // a family that has no addresses of ours
    };
    let mut route = Route {
        destination: Cidr { address: any, prefix },
        gateway: None,
        device: String::new(),
        source: None,
        scope,
        onlink: is_onlink(flags),
        mtu: 0,
    };
    let (mut index, mut hops, mut table) = (0, None, u32::from(u8_at(body, 4)?));
    for (kind, value) in attributes(body, HEADER_BYTES) {
        match kind {
            RTA_DST => route.destination.address = message::address(value)?,
            RTA_OIF => index = u32_at(value, 0)?,
            RTA_GATEWAY | RTA_VIA => route.gateway = gateway(kind, value),
            RTA_PREFSRC => route.source = message::address(value),
            RTA_METRICS => route.mtu = mtu(value),
            RTA_MULTIPATH => hops = Some(value),
            RTA_TABLE => table = u32_at(value, 0)?,
            _ => {} // the kernel's, and more with each release
        }
    }
    if table != MAIN || kind != UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut push = |mut route: Route, index| {
        let link = links.iter().find(|link| link.index == index)?;
        route.device.clone_from(&link.name);
        found.push(Entry { route, index, protocol });
        Some(())
    };
    let Some(mut hops) = hops else { return push(route, index) };
    loop {
        let Some(length) = u16_at(hops, 0).map(usize::from) else { return Some(()) };
        let mut route = route.clone();
        route.onlink = is_onlink(u8_at(hops, 2)?.into());
        let of_hop = attributes(hops.get(..length)?, HOP_BYTES)
            .find(|(kind, _)| matches!(*kind, RTA_GATEWAY | RTA_VIA));
        route.gateway = of_hop.and_then(|(kind, value)| gateway(kind, value));
        push(route, u32_at(hops, 4)?);
        hops = hops.get(message::align(length.max(HOP_BYTES))..)?;
    }
}

fn is_onlink(flags: u32) -> bool {
    RouteFlags::from_bits_retain(flags).contains(RouteFlags::Onlink)
}

/// That of another family has its family before it.
fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    message::address(if kind == RTA_VIA { value.get(2..)? } else { value })
}

fn mtu(metrics: &[u8]) -> u32 {
    let mtu = attributes(metrics, 0).find(|(kind, _)| *kind == RTAX_MTU);
    mtu.and_then(|(_, value)| u32_at(value, 0)).unwrap_or_default()
}

/// Beside others to the same destination: the first one that was added is the first to be taken.
pub fn add(entry: &Entry) -> Request {
    change(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, entry)
}

pub fn delete(entry: &Entry) -> Request {
    change(libc::RTM_DELROUTE, 0, entry)
}

fn change(kind: u16, flags: i32, entry: &Entry) -> Request {
    let Entry { route, index, protocol } = entry;
    let onlink = if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() };
    let header = RouteHeader {
        address_family: family(route.destination.address),
        destination_prefix_length: route.destination.prefix,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(*protocol),
        scope: RouteScope::from(route.scope),
        kind: RouteType::Unicast,
        flags: onlink,
        ..RouteHeader::default()
    };
    let address = |kind, address| attribute(kind, &octets(address));
    let mut attributes = vec![attribute(RTA_OIF, &index.to_ne_bytes())];
    if route.destination.prefix > 0 {
        attributes.push(address(RTA_DST, route.destination.address));
    }
    attributes.extend(route.gateway.map(|gateway| address(RTA_GATEWAY, gateway)));
    attributes.extend(route.source.map(|source| address(RTA_PREFSRC, source)));
    if route.mtu > 0 {
        // One attribute that has attributes: struct rtattr again, with a length of 8.
        let [low, high] = RTAX_MTU.to_ne_bytes();
        let metric = [&[8, 0, low, high], &route.mtu.to_ne_bytes()[..]].concat();
        attributes.push(attribute(RTA_METRICS, &metric));
    }
    Request::change(kind, flags, &header, &attributes)
}

#[cfg(test)]
mod tests;
