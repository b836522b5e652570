//! Lines of bounded length, read so that the read can be given up and taken up again.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Reads up to the next newline, which is taken off. What was read of an unfinished line stays in `partial`, which
/// belongs to one reader: a call that is cancelled loses nothing.
///
/// # Errors
/// `UnexpectedEof` at the end of the stream, `InvalidData` if the line is longer than `limit` bytes.
pub(crate) async fn read<R>(
    reader: &mut R,
    partial: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Vec<u8>>
where
    R: AsyncBufRead + Unpin,
{
    let room = limit.saturating_sub(partial.len()) as u64;
    reader.take(room).read_until(b'\n', partial).await?;
    if partial.last() == Some(&b'\n') {
        let mut line = std::mem::take(partial);
        line.pop();
        return Ok(line);
    }
    if partial.len() >= limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line longer than {limit} bytes"),
        ));
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection has ended"))
}
