//! Addresses with the length of their prefix, and hardware addresses, as text has them.

use std::fmt;
use std::net::IpAddr;

use crate::error::{Code, Error, Result};

/// An interface's address, or a destination: `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    /// In bits.
    pub prefix: u8,
}

impl Cidr {
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        if prefix > bits(address) {
            return Err(bad(format!("{address}/{prefix}: prefix is longer than the address")));
        }
        Ok(Self { address, prefix })
    }

    /// An address without a prefix is a destination of one.
    pub fn parse(text: &str) -> Result<Self> {
        let no_cidr = || bad(format!("{text:?}: not an address such as \"10.0.0.0/8\""));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_err| no_cidr())?;
        let prefix =
            prefix.map_or(Ok(bits(address)), |prefix| parse_prefix(prefix).ok_or_else(no_cidr))?;
        Self::new(address, prefix)
    }

    /// An address that an interface can have.
    pub fn of_interface(address: IpAddr, prefix: u8) -> Result<Self> {
        if address.is_unspecified() || address.is_multicast() {
            return Err(bad(format!("{address}/{prefix}: no interface can have it")));
        }
        Self::new(address, prefix)
    }

    /// Whether the bits after the prefix are 0.
    pub fn is_destination(&self) -> bool {
        let prefix = u32::from(self.prefix);
        match self.address {
            IpAddr::V4(v4) => v4.to_bits().checked_shl(prefix).unwrap_or_default() == 0,
            IpAddr::V6(v6) => v6.to_bits().checked_shl(prefix).unwrap_or_default() == 0,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Digits alone: `parse` would take a sign.
pub fn parse_prefix(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An Ethernet address: `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub fn parse(text: &str) -> Result<Self> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2 && is_hexadecimal(part));
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| not_a_mac(text))?;
        }
        if parts.next().is_some() || mac == [0; 6] || mac.first().is_some_and(|byte| byte & 1 == 1)
        {
            return Err(not_a_mac(text));
        }
        Ok(Self(mac))
    }
}

fn is_hexadecimal(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One that stands for nobody or for many is none.
fn not_a_mac(text: &str) -> Error {
    bad(format!("{text:?}: not a hardware address such as \"02:00:00:00:00:01\""))
}

fn bad(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

/// Any hardware address, of whatever length: none has an empty text.
pub fn hardware_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let colon = if text.is_empty() { "" } else { ":" };
        text.push_str(&format!("{colon}{byte:02x}"));
    }
    text
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hardware_text(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_nothing_after_its_prefix() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "10.0.0.1", "2001:db8::/32", "::1/128"] {
            assert!(Cidr::parse(good).unwrap().is_destination(), "{good}");
        }
        for bad in ["10.0.0.1/8", "1.0.0.0/0", "2001:db8::1/64", "::1/127"] {
            assert!(!Cidr::parse(bad).unwrap().is_destination(), "{bad}");
        }
        assert_eq!(Cidr::parse("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "x/8",
            "::/8/8",
        ] {
            assert_eq!(Cidr::parse(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
        for bad in ["0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert!(Cidr::of_interface(bad.parse().unwrap(), 8).is_err(), "{bad}");
        }
    }

    #[test]
    fn hardware_addresses_are_six_pairs_of_one_station() {
        assert_eq!(Mac::parse("02:00:00:0A:bc:01").unwrap().to_string(), "02:00:00:0a:bc:01");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:0g",
            "2:0:0:0:0:1",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "02-00-00-00-00-01",
            "02:00:00:00:00:+1",
        ] {
            assert!(Mac::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(hardware_text(&[]), "");
    }
}
