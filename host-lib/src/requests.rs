//! An output by requests: `ReadOutput`, one at a time. Where there is no way to a stream of its own.

use std::task::{Context, Poll, ready};

use hyperstart_protocol::guest::ReadOutputRequest;

use crate::connection::{CALL, UNBOUNDED};
use crate::error::{Cause, Error, Result};
use crate::output::{Chunk, Look, OutputAt};
use crate::process::Process;
use crate::stdio::Pending;

const OPERATION: &str = "read output of process";

/// The most that an answer has.
const MOST: usize = 64 << 10;

/// How the guest calls the reader that Kata's `ReadStdout` and `ReadStderr` are.
const KATA: &str = "kata";

pub(crate) struct Requests {
    at: OutputAt,
    /// Up to where the guest was told that all was taken.
    told: u64,
    /// Of the next byte.
    offset: u64,
    pending: Option<Pending<Look>>,
    /// Read with the attaching.
    first: Option<Look>,
    ended: bool,
}

impl Requests {
    pub(crate) async fn open(at: &OutputAt) -> Result<(Self, u64)> {
        let mut at = at.clone();
        if at.holds && at.reader.is_empty() {
            KATA.clone_into(&mut at.reader);
        }
        let request = ReadOutputRequest {
            reader: if at.holds { at.reader.clone() } else { String::new() },
            no_wait: true,
            ..at.request(at.offset)
        };
        let first = read(at.process.clone(), request, at.or_oldest).await?;
        let offset = first.offset;
        Ok((
            Self { told: offset, offset, first: Some(first), at, pending: None, ended: false },
            offset,
        ))
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        acknowledge: Option<u64>,
    ) -> Poll<Result<Option<Chunk>>> {
        loop {
            if let Some(look) = self.first.take() {
                self.ended = look.ended;
                self.offset = look.offset + look.data.len() as u64;
                if !look.data.is_empty() {
                    return Poll::Ready(Ok(Some(Chunk { offset: look.offset, data: look.data })));
                }
            }
            let all_told = acknowledge.is_none_or(|offset| offset <= self.told);
            if self.ended && (all_told || !self.at.holds) {
                return Poll::Ready(Ok(None));
            }
            if self.pending.is_none() {
                self.pending = Some(self.ask(acknowledge));
            }
            let Some(pending) = &mut self.pending else { continue };
            let answer = ready!(pending.as_mut().poll(cx));
            self.pending = None;
            self.first = Some(answer?);
        }
    }

    /// The next bytes. As the reader, which says that it has all before, if it has said so or does so by itself; else as
    /// one who only looks.
    fn ask(&mut self, acknowledge: Option<u64>) -> Pending<Look> {
        let mut request = self.at.request(self.offset);
        let all_taken = acknowledge == Some(self.offset) || self.told == self.offset;
        if self.at.holds && all_taken {
            request.reader.clone_from(&self.at.reader);
            request.or_oldest = false;
            self.told = self.offset;
        }
        request.no_wait = self.ended;
        let or_oldest = request.or_oldest;
        Box::pin(read(self.at.process.clone(), request, or_oldest))
    }

    pub(crate) async fn taken(&mut self, offset: u64) -> Result<()> {
        if offset <= self.told || !self.at.holds {
            return Ok(());
        }
        let request = ReadOutputRequest {
            reader: self.at.reader.clone(),
            no_wait: true,
            length: 1,
            or_oldest: false,
            ..self.at.request(offset)
        };
        read(self.at.process.clone(), request, false).await?;
        self.told = offset;
        Ok(())
    }
}

/// One request, and what is checked of its answer.
pub(crate) async fn read(
    process: Process,
    request: ReadOutputRequest,
    or_oldest: bool,
) -> Result<Look> {
    let (asked, deadline) = (request.offset, if request.no_wait { CALL } else { UNBOUNDED });
    let call = process.connection().guest_within(deadline, |guest, context| async move {
        guest.read_output(context, &request).await
    });
    let answer = call.await.map_err(Cause::of(OPERATION, &process))?;
    let in_place = answer.offset == asked || or_oldest && answer.offset > asked;
    let end = answer.offset.checked_add(answer.data.len() as u64);
    if !in_place || end.is_none() || answer.data.len() > MOST {
        let (count, offset) = (answer.data.len(), answer.offset);
        let answer = format!("{count} bytes at {offset}, where {asked} was asked for");
        return Err(Error::nonsense(OPERATION, &process, answer));
    }
    Ok(Look { offset: answer.offset, data: answer.data, ended: answer.end })
}
