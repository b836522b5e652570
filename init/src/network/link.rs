//! Links as the kernel has them, and the requests that change one.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{LinkFlags, LinkHeader};

use super::message::{attributes, entries, u32_at};
use super::netlink::{Netlink, Request, attribute};
use crate::error::{Code, Context, Error, Result};

/// struct ifinfomsg.
const HEADER_BYTES: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
/// IFNAMSIZ, without the NUL.
const NAME_MAX: usize = 15;

/// What a host looks for in an error to try again: a device may be on its way.
pub const NOT_FOUND: &str = "Link not found";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Its hardware address, of whatever kind.
    pub hardware: Vec<u8>,
    pub mtu: u32,
    /// IFF_*, netdevice(7).
    pub flags: u32,
}

/// All of the sandbox's.
pub async fn links(netlink: &mut Netlink) -> Result<Vec<Link>> {
    let request = Request::dump(libc::RTM_GETLINK, &LinkHeader::default());
    let bytes = netlink.dump(&request).await.context(|| "list links".to_owned())?;
    Ok(entries(&bytes).filter_map(parse).collect())
}

pub fn by_name<'a>(links: &'a [Link], name: &str) -> Result<&'a Link> {
    let missing = || Error::new(Code::NotFound, format!("device {name:?}: {NOT_FOUND}"));
    links.iter().find(|link| link.name == name).ok_or_else(missing)
}

fn parse(body: &[u8]) -> Option<Link> {
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let mut link = Link { index, flags, name: String::new(), hardware: Vec::new(), mtu: 0 };
    for (kind, value) in attributes(body, HEADER_BYTES) {
        match kind {
            IFLA_ADDRESS => link.hardware = value.to_owned(),
            IFLA_IFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            _ => {} // the kernel's, and more with each release
        }
    }
    Some(link)
}

/// What the kernel takes for a name (dev_valid_name()), and no pattern such as `eth%d`.
pub fn check_name(name: &str) -> Result<()> {
    let fits = (1..=NAME_MAX).contains(&name.len()) && name != "." && name != "..";
    if fits && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte)) {
        return Ok(());
    }
    let message = format!("name {name:?}: not 1 to {NAME_MAX} letters, digits or signs");
    Err(Error::new(Code::InvalidArgument, message))
}

pub fn set_name(index: u32, name: &str) -> Request {
    change(header(index), &[attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat())])
}

pub fn set_mtu(index: u32, mtu: u32) -> Request {
    change(header(index), &[attribute(IFLA_MTU, &mtu.to_ne_bytes())])
}

/// Sets those flags that are in `mask`.
pub fn set_flags(index: u32, flags: u32, mask: u32) -> Request {
    let mut header = header(index);
    header.flags = LinkFlags::from_bits_retain(flags);
    header.change_mask = LinkFlags::from_bits_retain(mask);
    change(header, &[])
}

fn header(index: u32) -> LinkHeader {
    LinkHeader { index, ..LinkHeader::default() }
}

fn change(header: LinkHeader, attributes: &[DefaultNla]) -> Request {
    Request::change(libc::RTM_NEWLINK, 0, &header, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for good in ["eth0", "a", "fifteen-letters", "eth0.100", "wg_0"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "sixteen-letters-", "a/b", "a b", "a:1", "eth%d", "a\n", "ä"] {
            assert_eq!(check_name(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn a_link_is_read_from_what_is_known_of_it() {
        let mut body = vec![0; HEADER_BYTES];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        body[8..12].copy_from_slice(&0x1043_u32.to_ne_bytes());
        body.extend([9, 0, 3, 0]);
        body.extend(b"eth0\0\0\0\0");
        body.extend([8, 0, 4, 0, 0xdc, 5, 0, 0]);
        body.extend([10, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 0]);
        let link = parse(&body).unwrap();
        assert_eq!(
            (link.index, link.name.as_str(), link.mtu, link.flags),
            (7, "eth0", 1500, 0x1043)
        );
        assert_eq!(link.hardware, [2, 0, 0, 0, 0, 1]);
        assert_eq!(parse(&body[..10]), None);
    }
}
