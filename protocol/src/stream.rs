//! The frames of a process's stream (`guest.proto`, "Streams"): eight bytes that say what follows, then a payload.

/// The most payload of a frame in bytes.
pub const MAX_STREAM_PAYLOAD: usize = 64 << 10;

/// The length of a frame's header in bytes.
pub const STREAM_HEADER: usize = 8;

/// What a frame is: its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The host says which stream it wants: a `StreamOpen`.
    Open = 1,
    /// It has it: a `StreamOpened`.
    Opened = 2,
    /// Bytes of the stream.
    Data = 3,
    /// The offset up to which they were taken.
    Taken = 4,
    /// None come after.
    End = 5,
    /// Why there is no more: a `StreamFailure`.
    Failed = 6,
}

impl Kind {
    /// The kind of that number.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Open, Self::Opened, Self::Data, Self::Taken, Self::End, Self::Failed]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The header of a frame with so much payload.
pub fn header(kind: Kind, length: usize) -> [u8; STREAM_HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes(); // callers bound it
    [kind as u8, 0, 0, 0, a, b, c, d]
}

/// The number of the kind, and the length of the payload, which may be one that no frame has.
pub fn parse(header: [u8; STREAM_HEADER]) -> (u8, usize) {
    let [kind, _, _, _, length @ ..] = header;
    (kind, usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_as_guest_proto_has_it() {
        assert_eq!(header(Kind::Taken, 8), [4, 0, 0, 0, 0, 0, 0, 8]);
        assert_eq!(header(Kind::Data, MAX_STREAM_PAYLOAD), [3, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(parse([5, 9, 9, 9, 1, 2, 3, 4]), (5, 0x0102_0304));
    }

    #[test]
    fn every_kind_has_its_number_and_no_other_number_has_one() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|number| Kind::of(*number).is_some()).collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 6]);
        assert!(known.iter().all(|number| Kind::of(*number).unwrap() as u8 == *number));
    }
}
