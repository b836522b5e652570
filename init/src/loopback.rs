//! The loopback interface, which every network namespace has and none has up: one rtnetlink(7) request, no tools.

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::error::{Code, Context, Error, Result};

/// Protocol 0 of the netlink family.
const NETLINK_ROUTE: Option<Protocol> = None;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
/// The loopback interface is the first of every network namespace.
const LOOPBACK_INDEX: i32 = 1;

/// Sets lo up; the kernel adds 127.0.0.1 and ::1 by itself. Works on the caller's network namespace.
pub fn bring_up() -> Result<()> {
    set_link_up(LOOPBACK_INDEX).context(|| "set link lo up".to_owned())
}

fn set_link_up(index: i32) -> Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, NETLINK_ROUTE)?;
    send(&socket, &link_up_request(index), SendFlags::empty())?;
    let mut answer = [0_u8; 256];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    acknowledgement(answer.get(..length).unwrap_or_default())
}

/// struct nlmsghdr, then struct ifinfomsg: all in the machine's byte order.
fn link_up_request(index: i32) -> Vec<u8> {
    const LENGTH: u32 = 32;
    let mut message = Vec::with_capacity(32);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one request, one answer
    message.extend([0; 4]); // family, padding, device type
    message.extend(index.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which of them to change
    message
}

/// An acknowledgement is an error message whose errno is 0.
fn acknowledgement(answer: &[u8]) -> Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let errno = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, errno) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(errno)) => Err(nix::errno::Errno::from_raw(-errno).into()),
        _ => Err(Error::new(Code::Internal, "the kernel's answer is not an acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_long_as_it_says() {
        let request = link_up_request(1);
        assert_eq!(request.len(), 32);
        assert_eq!(request[..4], 32_u32.to_ne_bytes());
    }

    #[test]
    fn a_refusal_is_an_error_and_a_short_answer_too() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(acknowledgement(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(acknowledgement(&answer).unwrap_err().code(), Code::PermissionDenied);
        assert!(acknowledgement(&answer[..8]).is_err());
    }
}
