//! stdin as a stream: DATA goes into the pipe as it comes; TAKEN says what the pipe has taken.

use hyperstart_protocol::guest::StreamOpen;
use hyperstart_protocol::stream::Kind;

use super::wire::{Incoming, Stop, Wire, bad};
use super::{Subject, opened};
use crate::error::{Code, Error};
use crate::stdio::Input;

pub async fn receive(
    wire: &Wire,
    incoming: &mut Incoming<'_>,
    subject: &Subject<'_>,
    open: &StreamOpen,
) -> Result<(), Stop> {
    if !open.reader.is_empty() || open.or_oldest {
        return Err(bad("OPEN: reader or or_oldest of an input".to_owned()));
    }
    let input = &subject.process.stdio.input;
    let mut offset = input.offset();
    if open.offset > offset {
        let message = format!("stdin offset {}: it has taken {offset} bytes", open.offset);
        return Err(Stop::Failed(Error::new(Code::OutOfRange, message)));
    }
    opened(wire, offset).await?;
    incoming.enlarge();
    loop {
        let (kind, length) = incoming.header().await?;
        wire.set_owes(false); // it is there
        let is_end = kind == Kind::End as u8 && length == 0;
        if is_end {
            input.write_at(offset, &[], true).await?;
        } else if kind == Kind::Data as u8 {
            write(wire, incoming, input, &mut offset, length).await?;
        } else {
            return Err(bad(format!("a frame of kind {kind} in an input's stream")));
        }
        wire.send(Kind::Taken, &offset.to_be_bytes()).await?;
        if is_end {
            incoming.header().await?; // until the host hangs up
            return Err(bad("a frame after END".to_owned()));
        }
    }
}

/// Writes a payload, piece by piece, for as long as somebody is there who wants it written.
async fn write(
    wire: &Wire,
    incoming: &mut Incoming<'_>,
    input: &Input,
    offset: &mut u64,
    length: usize,
) -> Result<(), Stop> {
    let mut rest = length;
    while rest > 0 {
        let piece = incoming.piece(rest).await?;
        tokio::select! {
            biased;
            result = input.write_at(*offset, piece, false) => result?,
            () = wire.hung_up() => return Err(Stop::Gone),
        }
        *offset += piece.len() as u64;
        rest -= piece.len();
    }
    Ok(())
}
