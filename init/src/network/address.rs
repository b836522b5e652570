//! Addresses of links as the kernel has them, and the requests that add and delete one.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressHeader, AddressHeaderFlags};

use super::cidr::Cidr;
use super::message::{self, attributes, entries, octets, u8_at, u32_at};
use super::netlink::{Netlink, Request, attribute};
use crate::error::{Context, Result};

/// struct ifaddrmsg.
const HEADER_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

/// An address, and the index of the link that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    pub index: u32,
    pub cidr: Cidr,
}

/// Those of all links, in the kernel's order.
pub async fn addresses(netlink: &mut Netlink) -> Result<Vec<Assigned>> {
    let request = Request::dump(libc::RTM_GETADDR, &AddressHeader::default());
    let bytes = netlink.dump(&request).await.context(|| "list addresses".to_owned())?;
    Ok(entries(&bytes).filter_map(parse).collect())
}

/// IFA_ADDRESS is the other end's on a link of two; then IFA_LOCAL is ours.
fn parse(body: &[u8]) -> Option<Assigned> {
    let (prefix, index) = (u8_at(body, 1)?, u32_at(body, 4)?);
    let of_kind = |wanted| attributes(body, HEADER_BYTES).find(|(kind, _)| *kind == wanted);
    let (_, value) = of_kind(IFA_LOCAL).or_else(|| of_kind(IFA_ADDRESS))?;
    Some(Assigned { index, cidr: Cidr { address: message::address(value)?, prefix } })
}

pub fn add(index: u32, cidr: Cidr) -> Request {
    change(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, index, cidr)
}

pub fn delete(index: u32, cidr: Cidr) -> Request {
    change(libc::RTM_DELADDR, 0, index, cidr)
}

/// Without duplicate address detection, which lasts a second: the host knows whose address it is.
fn change(kind: u16, flags: i32, index: u32, cidr: Cidr) -> Request {
    let mut header = AddressHeader { prefix_len: cidr.prefix, index, ..AddressHeader::default() };
    header.family = family(cidr.address);
    let own = octets(cidr.address);
    let mut attributes = vec![attribute(IFA_LOCAL, &own), attribute(IFA_ADDRESS, &own)];
    match cidr.address {
        IpAddr::V4(v4) if cidr.prefix < 31 => {
            let host_bits = u32::MAX.checked_shr(cidr.prefix.into()).unwrap_or_default();
            let broadcast = (v4.to_bits() | host_bits).to_be_bytes();
            attributes.push(attribute(IFA_BROADCAST, &broadcast));
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => header.flags = AddressHeaderFlags::Nodad,
    }
    Request::change(kind, flags, &header, &attributes)
}

pub fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_ours_and_not_the_other_ends() {
        let mut body = vec![2, 24, 0, 0, 3, 0, 0, 0];
        body.extend([8, 0, 1, 0, 10, 0, 0, 2]);
        let found = parse(&body).unwrap();
        assert_eq!((found.index, found.cidr.to_string().as_str()), (3, "10.0.0.2/24"));
        body.extend([8, 0, 2, 0, 10, 0, 0, 1]);
        assert_eq!(parse(&body).unwrap().cidr.to_string(), "10.0.0.1/24");
        assert_eq!(parse(&body[..8]), None);
    }
}
