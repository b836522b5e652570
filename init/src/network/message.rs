//! What the kernel answers, read in place: netlink(7), rtnetlink(7).
//!
//! The crate that writes our requests could read the answers too, as trees of hundreds of types: half a megabyte of PID
//! 1 for the ten attributes that are used. What does not read as the manual has it, is passed over.

use std::net::IpAddr;

use nix::errno::Errno;

/// struct nlmsghdr: length, kind, flags, sequence, port.
pub const HEADER_BYTES: usize = 16;
const DUMP_INTERRUPTED: u16 = 0x10; // NLM_F_DUMP_INTR
/// The kind's bits beside the flags for nested attributes and byte order.
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// One message of an answer.
pub struct Found<'a> {
    kind: u16,
    flags: u16,
    pub sequence: u32,
    /// After the header.
    pub body: &'a [u8],
}

pub enum Message {
    /// The end of a dump.
    Done,
    /// An acknowledgement is an error message whose errno is 0: none.
    Error(Option<Errno>),
    Entry,
}

impl Found<'_> {
    pub fn what(&self) -> Message {
        match i32::from(self.kind) {
            libc::NLMSG_DONE => match number(self.body) {
                Some(0) | None => Message::Done,
                Some(errno) => Message::Error(Some(Errno::from_raw(-errno))),
            },
            libc::NLMSG_ERROR => Message::Error(match number(self.body) {
                Some(0) => None,
                Some(errno) => Some(Errno::from_raw(-errno)),
                None => Some(Errno::EPROTO),
            }),
            _ => Message::Entry, // the kernel's kinds, not ours
        }
    }

    pub fn is_interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }
}

pub fn put_header(message: &mut [u8], kind: u16, flags: u16) {
    let length = u32::try_from(message.len()).unwrap_or_default();
    put(message, 0, &length.to_ne_bytes());
    put(message, 4, &kind.to_ne_bytes());
    put(message, 6, &flags.to_ne_bytes());
}

pub fn put_sequence(message: &mut [u8], sequence: u32) {
    put(message, 8, &sequence.to_ne_bytes());
}

fn put(message: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = message.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The messages of a datagram, or of several one after the other.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Found<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_BYTES)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        let (kind, flags) = (u16_at(message, 4)?, u16_at(message, 6)?);
        let sequence = u32_at(message, 8)?;
        Some(Found { kind, flags, sequence, body: message.get(HEADER_BYTES..)? })
    })
}

/// The bodies of a dump's entries.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    messages(bytes).filter(|found| matches!(found.what(), Message::Entry)).map(|found| found.body)
}

/// The attributes after the `from`th byte of a message's body: kind and value.
pub fn attributes(body: &[u8], from: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(from..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let (kind, value) = (u16_at(rest, 2)?, rest.get(4..length)?);
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind & ATTRIBUTE_KIND, value))
    })
}

/// Messages and attributes alike begin at a multiple of 4.
pub fn align(length: usize) -> usize {
    (length + 3) & !3
}

pub fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.first_chunk()?))
}

/// In the byte order of the network; its length says of which family.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// The reverse of it.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(body);
        put_header(&mut bytes, kind, 0);
        put_sequence(&mut bytes, sequence);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    #[test]
    fn messages_come_one_after_the_other() {
        let mut bytes = message(16, 7, &[1, 2, 3]);
        bytes.extend(message(3, 7, &0_i32.to_ne_bytes()));
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!((found[0].sequence, found[0].body), (7, &[1_u8, 2, 3][..]));
        assert!(matches!(found[0].what(), Message::Entry));
        assert!(matches!(found[1].what(), Message::Done));
        assert_eq!(entries(&bytes).count(), 1);
    }

    #[test]
    fn an_acknowledgement_is_no_error_and_half_of_one_is() {
        let what = |body: &[u8]| messages(&message(2, 1, body)).next().unwrap().what();
        assert!(matches!(what(&0_i32.to_ne_bytes()), Message::Error(None)));
        let refused = what(&(-101_i32).to_ne_bytes());
        assert!(matches!(refused, Message::Error(Some(Errno::ENETUNREACH))));
        assert!(matches!(what(&[0, 0]), Message::Error(Some(Errno::EPROTO))));
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        let whole = message(16, 1, &[0; 8]);
        for length in [0_u32, 15, 25, u32::MAX] {
            let mut bytes = whole.clone();
            put(&mut bytes, 0, &length.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{length}");
        }
        for cut in 0..whole.len() {
            assert_eq!(messages(&whole[..cut]).count(), 0, "{cut}");
        }
        for bad in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 0, 0, 0, 0], &[4, 0, 1]] {
            assert_eq!(attributes(bad, 0).count(), 0, "{bad:?}");
        }
        assert_eq!(attributes(&[0; 4], 9).count(), 0);
    }

    #[test]
    fn attributes_are_aligned_and_without_their_flags() {
        let bytes = [5, 0, 3, 0x80, b'a', 0, 0, 0, 8, 0, 4, 0, 220, 5, 0, 0];
        let found: Vec<_> = attributes(&bytes, 0).collect();
        assert_eq!(found[0], (3, &b"a"[..]));
        assert_eq!((found[1].0, u32_at(found[1].1, 0)), (4, Some(1500)));
    }

    #[test]
    fn an_address_says_its_family_by_its_length() {
        assert_eq!(address(&[127, 0, 0, 1]), Some("127.0.0.1".parse().unwrap()));
        let mut v6 = [0; 16];
        v6[15] = 1;
        assert_eq!(address(&v6), Some("::1".parse().unwrap()));
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
