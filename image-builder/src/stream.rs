//! The bytes of a blob: a stretch of an open file, as it is or decompressed while it is read.
//!
//! What compresses a blob is seen from its first bytes, as other engines do it; media types lie too often. Several
//! members or frames in a row are one stream (pigz, eStargz, zstd:chunked make such).

use crate::error::{Error, Result};
use crate::limits::content_error;
use crate::tar::Source;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

const BUFFER: usize = 128 << 10;
/// What a frame may make us hold in memory: the limit that the zstd program has, too.
const ZSTD_WINDOW_MAX: u64 = 128 << 20;

/// A stretch of an open file.
#[derive(Clone, Debug)]
pub struct Blob {
    pub file: Rc<File>,
    pub offset: u64,
    pub length: u64,
}

impl Blob {
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0 }
    }

    /// All of it; larger than `limit` is refused before it is read.
    pub fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        if self.length > limit {
            return Err(Error::too_large(format!("{} bytes, over {limit}", self.length)));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What its first bytes say about it.
    pub fn compression(&self) -> Result<Compression> {
        let mut magic = Vec::new();
        self.reader().take(6).read_to_end(&mut magic)?;
        match magic.as_slice() {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Ok(Compression::Zstd)
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                Err(Error::unsupported("compressed with xz; gzip and zstd are read"))
            }
            [b'B', b'Z', b'h', ..] => {
                Err(Error::unsupported("compressed with bzip2; gzip and zstd are read"))
            }
            _ => Ok(Compression::None),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// A reader of what was compressed.
    pub fn open<'a>(self, input: impl Read + 'a) -> Box<dyn Read + 'a> {
        let input = BufReader::with_capacity(BUFFER, input);
        match self {
            Compression::None => Box::new(input),
            Compression::Gzip => {
                Box::new(Blamed { inner: MultiGzDecoder::new(input), what: "gzip stream" })
            }
            Compression::Zstd => {
                Box::new(Blamed { inner: ZstdReader::new(input), what: "zstd stream" })
            }
        }
    }
}

/// Reads a blob from its start.
pub struct BlobReader {
    blob: Blob,
    position: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.length - self.position;
        let size = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = buffer.get_mut(..size).unwrap_or_default();
        let size = self.blob.file.read_at(part, self.blob.offset + self.position)?;
        self.position += size as u64;
        Ok(size)
    }
}

impl Source for BlobReader {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match bytes <= self.blob.length - self.position {
            true => self.position += bytes,
            false => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

/// A stream that cannot be sought, and that may have at most so many bytes.
pub struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Bounded<R> {
    /// `left` bytes are allowed; `limit` is what the message says.
    pub fn new(inner: R, left: u64, limit: u64) -> Bounded<R> {
        Bounded { inner, left, limit }
    }

    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(size as u64).ok_or_else(|| content_error(self.limit))?;
        Ok(size)
    }
}

impl<R: Read> Source for Bounded<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match io::copy(&mut self.by_ref().take(bytes), &mut io::sink())? == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Names the compression in an error about the compressed bytes.
struct Blamed<R> {
    inner: R,
    what: &'static str,
}

impl<R: Read> Read for Blamed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::refused(format!("{}: it is cut off", self.what)).into()
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Error::refused(format!("{}: {err}", self.what)).into()
            }
            _ => err,
        })
    }
}

/// Frames of zstd in a row; frames that hold no data are skipped.
struct ZstdReader<R> {
    input: R,
    decoder: FrameDecoder,
    is_within_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(input: R) -> ZstdReader<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        ZstdReader { input, decoder, is_within_frame: false }
    }

    /// Starts the next frame; false at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.input) {
                Ok(()) => {
                    self.is_within_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => skip(&mut self.input, u64::from(length))?,
                Err(err) => return Err(invalid(err)),
            }
        }
        Ok(false)
    }

    /// Leaves a frame whose data is all handed out, if its checksum is right.
    fn end_frame(&mut self) -> io::Result<()> {
        self.is_within_frame = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(asked), Some(found)) if asked != found => {
                Err(invalid("a frame's checksum is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.is_within_frame || self.next_frame()? {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.input, one).map_err(invalid)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.end_frame()?,
                size => return Ok(size),
            }
        }
        Ok(0)
    }
}

fn invalid(err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

/// Reads over bytes, which must be there.
fn skip(input: &mut impl Read, bytes: u64) -> io::Result<()> {
    match io::copy(&mut input.take(bytes), &mut io::sink())? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn blob(bytes: &[u8]) -> Blob {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(bytes).unwrap();
        file.write_all(b"behind").unwrap();
        Blob { file: Rc::new(file), offset: 6, length: bytes.len() as u64 }
    }

    fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
        let blob = blob(bytes);
        let mut out = Vec::new();
        blob.compression()?.open(blob.reader()).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn several_members_or_frames_are_one_stream() {
        let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
        assert_eq!(unpack(b"plain").unwrap(), b"plain");
        assert_eq!(unpack(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let frames = [skipped.to_vec(), zstd(b"one "), zstd(b"two"), skipped.to_vec()].concat();
        assert_eq!(unpack(&frames).unwrap(), b"one two");
    }

    #[test]
    fn what_is_cut_off_or_broken_is_refused_by_name() {
        for (name, whole) in [("gzip", gzip(&[7; 5000])), ("zstd", zstd(&[7; 5000]))] {
            for cut in [7, whole.len() / 2, whole.len() - 1] {
                let err = unpack(&whole[..cut]).unwrap_err();
                assert_eq!(err.kind(), crate::ErrorKind::Refused, "{name} at {cut}: {err}");
                assert!(err.to_string().starts_with(name), "{err}");
            }
        }
        assert!(unpack(b"BZh91AY").unwrap_err().to_string().contains("bzip2"));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let blob = blob(&bomb);
        let stream = blob.compression().unwrap().open(blob.reader());
        let mut bounded = Bounded::new(stream, 1000, 1000);
        let err = Error::from(io::copy(&mut bounded, &mut io::sink()).unwrap_err());
        assert_eq!(err.kind(), crate::ErrorKind::TooLarge);
    }
}
