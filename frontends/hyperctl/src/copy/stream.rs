//! Bytes between the event loop and a thread that works with files: a channel, a few chunks deep.

use std::io::{self, Read, Write};

use tokio::sync::mpsc::{self, Receiver, Sender};

/// Chunks under way: each at most 64 KiB.
const DEPTH: usize = 4;
const CHUNK: usize = 64 << 10;

pub fn channel() -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    mpsc::channel(DEPTH)
}

/// The thread's end, to write to.
pub struct Writer(pub Sender<Vec<u8>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = bytes.get(..CHUNK).unwrap_or(bytes);
        match self.0.blocking_send(chunk.to_owned()) {
            Ok(()) => Ok(chunk.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's end, to read from; `rest` is what came first.
pub struct Reader {
    pub from: Receiver<Vec<u8>>,
    pub rest: Vec<u8>,
    pub taken: usize,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.rest.len() {
            match self.from.blocking_recv() {
                Some(chunk) => (self.rest, self.taken) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let mut rest = self.rest.get(self.taken..).unwrap_or_default();
        let length = rest.read(buffer)?;
        self.taken += length;
        Ok(length)
    }
}
