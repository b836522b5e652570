//! Neighbours that the host knows: their hardware addresses are not asked for, and do not change.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourHeader, NeighbourState};

use super::address::family;
use super::changes::{Change, Changes};
use super::cidr::Mac;
use super::link::{self, Link};
use super::message::{self, attributes, entries, octets, u8_at, u16_at, u32_at};
use super::netlink::{Request, attribute};
use crate::error::{Code, Context, Error, Result};

/// struct ndmsg.
const HEADER_BYTES: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const PERMANENT: u16 = 0x80; // NUD_PERMANENT
const ROUTER: u8 = 0x80; // NTF_ROUTER

/// An entry of the neighbour table: ip-neighbour(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub address: IpAddr,
    pub device: String,
    pub mac: Mac,
    /// It forwards packets: known of IPv6's neighbours.
    pub router: bool,
}

/// One of a link that is there.
struct Entry {
    address: IpAddr,
    index: u32,
    mac: Mac,
    router: bool,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lladdr {} dev {}", self.address, self.mac, self.device)
    }
}

impl Neighbour {
    pub fn check(&self) -> Result<()> {
        if self.address.is_unspecified() || self.address.is_multicast() {
            let message = format!("neighbour {self}: not the address of one machine");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(())
    }
}

/// Adds each, or puts it in the place of what is known of the same address.
pub async fn apply(
    changes: &mut Changes<'_>,
    neighbours: &[Neighbour],
    links: &[Link],
) -> Result<()> {
    let mut wanted = Vec::with_capacity(neighbours.len());
    for neighbour in neighbours {
        neighbour.check()?;
        let operation = move || format!("add neighbour {neighbour}");
        let index = link::by_name(links, &neighbour.device).context(operation)?.index;
        let Neighbour { address, mac, router, .. } = *neighbour;
        wanted.push((operation, Entry { address, index, mac, router }));
    }
    let request = Request::dump(libc::RTM_GETNEIGH, &NeighbourHeader::default());
    let bytes = changes.netlink().dump(&request).await.context(|| "list neighbours".to_owned())?;
    let permanent: Vec<Entry> = entries(&bytes).filter_map(parse).collect();
    for (operation, entry) in wanted {
        let old =
            permanent.iter().find(|old| (old.index, old.address) == (entry.index, entry.address));
        let inverse = old.map_or_else(|| delete(&entry), add);
        let (what, request) = (operation(), add(&entry));
        changes.make(Change { what, request, inverse, settled: None }).await?;
    }
    Ok(())
}

/// None: not permanent, so the kernel finds it again by itself.
fn parse(body: &[u8]) -> Option<Entry> {
    let (index, state, flags) = (u32_at(body, 4)?, u16_at(body, 8)?, u8_at(body, 10)?);
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(body, HEADER_BYTES) {
        match kind {
            NDA_DST => address = message::address(value),
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            _ => {} // the kernel's, and more with each release
        }
    }
    let router = flags & ROUTER != 0;
    let entry = Entry { address: address?, index, mac: mac?, router };
    (state & PERMANENT != 0).then_some(entry)
}

fn add(entry: &Entry) -> Request {
    change(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, entry)
}

fn delete(entry: &Entry) -> Request {
    change(libc::RTM_DELNEIGH, 0, entry)
}

fn change(kind: u16, flags: i32, entry: &Entry) -> Request {
    let router = if entry.router { NeighbourFlags::Router } else { NeighbourFlags::empty() };
    let header = NeighbourHeader {
        family: family(entry.address),
        ifindex: entry.index,
        state: NeighbourState::Permanent,
        flags: router,
        ..NeighbourHeader::default()
    };
    let attributes =
        [attribute(NDA_DST, &octets(entry.address)), attribute(NDA_LLADDR, &entry.mac.0)];
    Request::change(kind, flags, &header, &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permanent_ones_are_read() {
        let mut body = vec![2, 0, 0, 0, 4, 0, 0, 0, 0x80, 0, 0, 0];
        body.extend([8, 0, 1, 0, 10, 0, 0, 9, 10, 0, 2, 0, 2, 0, 0, 0, 0, 9, 0, 0]);
        let entry = parse(&body).unwrap();
        assert_eq!((entry.index, entry.mac, entry.router), (4, Mac([2, 0, 0, 0, 0, 9]), false));
        body[8] = 2;
        assert!(parse(&body).is_none());
    }

    #[test]
    fn many_are_no_neighbour() {
        let neighbour = |address: &str| Neighbour {
            address: address.parse().unwrap(),
            device: "eth0".into(),
            mac: Mac([2; 6]),
            router: false,
        };
        neighbour("10.0.0.9").check().unwrap();
        for bad in ["224.0.0.1", "::", "ff02::1"] {
            assert!(neighbour(bad).check().unwrap_err().message().contains(bad));
        }
    }
}
