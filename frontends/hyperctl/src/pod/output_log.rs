//! What a pod's container printed, kept for `hyperctl logs`: both streams, in the order of their arrival.
//!
//! A record is 24 bytes of header (stream, three zero bytes, length, milliseconds since 1970 and the offset in the stream,
//! big endian) and the bytes as they came, so that binary output survives. The offsets say where a host goes on whose
//! predecessor was killed: what that one had begun to write is cut off, and asked for again. The state directory is usually in memory, so the log is
//! bounded: when the file reaches [`SEGMENT`] it becomes `output.log.old` (the one before it is dropped) and a new one
//! begins. What can be read is the last 4 to 8 MiB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes after which a log file is put aside.
pub const SEGMENT: u64 = 4 << 20;
const HEADER: usize = 24;
/// No record that we write is longer; a longer one means a damaged file.
const MAX_RECORD: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl From<Stream> for hyperstart::Stream {
    fn from(stream: Stream) -> hyperstart::Stream {
        match stream {
            Stream::Stdout => hyperstart::Stream::Stdout,
            Stream::Stderr => hyperstart::Stream::Stderr,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    pub stream: Stream,
    pub unix_millis: u64,
    /// Of the first byte, in its stream.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// The offset after the last byte that is in the log, of each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub stdout: u64,
    pub stderr: u64,
}

pub struct Writer {
    dir: PathBuf,
    file: File,
    length: u64,
    segment: u64,
}

impl Writer {
    pub fn create(dir: &Path) -> io::Result<Writer> {
        Writer::with_segment(dir, SEGMENT)
    }

    fn with_segment(dir: &Path, segment: u64) -> io::Result<Writer> {
        let file = create(&current(dir))?;
        Ok(Writer { dir: dir.to_path_buf(), file, length: 0, segment })
    }

    /// Goes on with the log of a host that was killed.
    pub fn resume(dir: &Path) -> io::Result<(Writer, Ends)> {
        let mut ends = Ends::default();
        if let Some(mut older) = open(&old(dir))? {
            scan(&mut older, &mut ends)?;
        }
        let mut options = OpenOptions::new();
        let path = current(dir);
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let length = scan(&mut file, &mut ends)?;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok((Writer { dir: dir.to_path_buf(), file, length, segment: SEGMENT }, ends))
    }

    /// One write a record: a reader sees all of it, or its beginning and waits for the rest.
    pub fn append(&mut self, stream: Stream, mut offset: u64, bytes: &[u8]) -> io::Result<()> {
        for bytes in bytes.chunks(MAX_RECORD) {
            if self.length >= self.segment {
                fs::rename(current(&self.dir), old(&self.dir))?;
                self.file = create(&current(&self.dir))?;
                self.length = 0;
            }
            let record = encode(stream, crate::time::unix_millis(), offset, bytes);
            self.file.write_all(&record)?;
            self.length += record.len() as u64;
            offset += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Notes how far each stream is in a file, and gives the length of its whole records.
fn scan(file: &mut File, ends: &mut Ends) -> io::Result<u64> {
    let (mut length, mut pending) = (0, Vec::new());
    loop {
        while let Some(record) = decode(&mut pending)? {
            length += (HEADER + record.bytes.len()) as u64;
            let end = record.offset + record.bytes.len() as u64;
            match record.stream {
                Stream::Stdout => ends.stdout = end,
                Stream::Stderr => ends.stderr = end,
            }
        }
        if file.take(64 << 10).read_to_end(&mut pending)? == 0 {
            return Ok(length);
        }
    }
}

/// Reads records in order, and goes on where it stopped when more have come.
pub struct Reader {
    dir: PathBuf,
    /// The files to read, the one in hand first.
    files: Vec<File>,
    pending: Vec<u8>,
}

impl Reader {
    /// From the oldest record that is kept. A pod that has printed nothing yet has an empty log.
    pub fn open(dir: &Path) -> io::Result<Reader> {
        // The newer file first: what is renamed in between is then met by its inode, and not missed.
        let newer = open(&current(dir))?;
        let older = open(&old(dir))?;
        let mut files: Vec<File> = older.into_iter().chain(newer).collect();
        if let [first, second] = files.as_slice()
            && inode(first)? == inode(second)?
        {
            files.truncate(1);
        }
        Ok(Reader { dir: dir.to_path_buf(), files, pending: Vec::new() })
    }

    /// The next record; `None` at the end of what has been written so far.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if let Some(record) = decode(&mut self.pending)? {
                return Ok(Some(record));
            }
            if !self.read_more()? {
                self.step_back()?;
                return Ok(None);
            }
        }
    }

    /// To the beginning of a record that is not whole: an heir of who was killed writing it puts another in its place.
    fn step_back(&mut self) -> io::Result<()> {
        let Some(file) = self.files.first_mut() else { return Ok(()) };
        let read = i64::try_from(self.pending.len()).map_err(io::Error::other)?;
        self.pending.clear();
        file.seek(SeekFrom::Current(-read)).map(drop)
    }

    /// Takes bytes from the file in hand, or the next file when that one is finished.
    fn read_more(&mut self) -> io::Result<bool> {
        let Some(file) = self.files.first_mut() else {
            self.files.extend(open(&current(&self.dir))?);
            return Ok(!self.files.is_empty());
        };
        if file.take(64 << 10).read_to_end(&mut self.pending)? > 0 {
            return Ok(true);
        }
        if self.files.len() == 1 {
            let Some(newer) = open(&current(&self.dir))? else { return Ok(false) };
            let finished = self.files.first().map(inode).transpose()?;
            if finished == Some(inode(&newer)?) {
                return Ok(false);
            }
            // Ours was put aside after we met its end: the next turn reads what came before that, then drops it. If
            // another was put aside since, it comes in between.
            if let Some(aside) = open(&old(&self.dir))?
                && ![finished, Some(inode(&newer)?)].contains(&Some(inode(&aside)?))
            {
                self.files.push(aside);
            }
            self.files.push(newer);
            return Ok(true);
        }
        self.files.remove(0);
        Ok(true)
    }
}

/// A text file that grows, such as the console's: everything so far, and more at each call.
pub struct Tail {
    file: File,
}

impl Tail {
    pub fn open(path: &Path) -> io::Result<Tail> {
        Ok(Tail { file: File::open(path)? })
    }

    pub fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.file.metadata()?.len() < self.file.stream_position()? {
            self.file.seek(SeekFrom::Start(0))?; // it was begun anew
        }
        (&mut self.file).take(256 << 10).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn encode(stream: Stream, unix_millis: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + bytes.len());
    let stream: u8 = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX); // `append` cuts at MAX_RECORD
    record.extend([stream, 0, 0, 0]);
    record.extend(length.to_be_bytes());
    record.extend(unix_millis.to_be_bytes());
    record.extend(offset.to_be_bytes());
    record.extend(bytes);
    record
}

/// Takes the first whole record off `pending`.
fn decode(pending: &mut Vec<u8>) -> io::Result<Option<Record>> {
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some((header, rest)) = pending.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [kind, _, _, _, l0, l1, l2, l3, m0, m1, m2, m3, m4, m5, m6, m7, offset @ ..] = *header;
    let millis = [m0, m1, m2, m3, m4, m5, m6, m7];
    let stream = match kind {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        other => return Err(damaged(format!("output log: no stream has number {other}"))),
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_RECORD {
        return Err(damaged(format!("output log: a record of {length} bytes")));
    }
    let Some(bytes) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
    pending.drain(..HEADER + length);
    let (unix_millis, offset) = (u64::from_be_bytes(millis), u64::from_be_bytes(offset));
    Ok(Some(Record { stream, unix_millis, offset, bytes }))
}

fn current(dir: &Path) -> PathBuf {
    dir.join("output.log")
}

fn old(dir: &Path) -> PathBuf {
    dir.join("output.log.old")
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut Reader) -> Vec<(Stream, Vec<u8>)> {
        std::iter::from_fn(|| reader.next().unwrap()).map(|r| (r.stream, r.bytes)).collect()
    }

    #[test]
    fn both_streams_come_back_in_order_and_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        let mut writer = Writer::create(dir.path()).unwrap();
        writer.append(Stream::Stdout, 0, b"one\0\xff").unwrap();
        writer.append(Stream::Stderr, 0, b"two").unwrap();
        assert_eq!(
            all(&mut reader),
            [(Stream::Stdout, b"one\0\xff".to_vec()), (Stream::Stderr, b"two".to_vec())]
        );
        writer.append(Stream::Stdout, 5, b"three").unwrap();
        assert_eq!(all(&mut reader), [(Stream::Stdout, b"three".to_vec())]);
    }

    #[test]
    fn a_reader_that_keeps_up_misses_nothing_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::with_segment(dir.path(), 50).unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        let mut seen = Vec::new();
        for n in 0..100u8 {
            writer.append(Stream::Stdout, n.into(), &[n]).unwrap();
            seen.extend(all(&mut reader).into_iter().flat_map(|(_, bytes)| bytes));
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn a_reader_that_falls_behind_skips_what_is_dropped_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::with_segment(dir.path(), 50).unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        writer.append(Stream::Stdout, 0, &[0]).unwrap();
        assert_eq!(all(&mut reader).len(), 1);
        for n in 1..8u8 {
            writer.append(Stream::Stdout, n.into(), &[n]).unwrap(); // two a file
        }
        let seen: Vec<u8> = all(&mut reader).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(seen, [1, 4, 5, 6, 7], "the file in hand, and the two that are kept");
    }

    #[test]
    fn a_log_is_gone_on_with_where_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        writer.append(Stream::Stdout, 0, b"one").unwrap();
        writer.append(Stream::Stderr, 0, b"err").unwrap();
        let whole = fs::read(current(dir.path())).unwrap();
        let next = encode(Stream::Stdout, 1, 3, b"two");
        for cut in 0..next.len() {
            fs::write(current(dir.path()), [&whole, &next[..cut]].concat()).unwrap();
            let (mut writer, ends) = Writer::resume(dir.path()).unwrap();
            assert_eq!(ends, Ends { stdout: 3, stderr: 3 });
            writer.append(Stream::Stdout, 3, b"two").unwrap();
            let said = all(&mut Reader::open(dir.path()).unwrap());
            let stdout = said.iter().filter(|(stream, _)| *stream == Stream::Stdout);
            assert_eq!(stdout.flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), b"onetwo");
        }
        fs::rename(current(dir.path()), old(dir.path())).unwrap();
        let (_, ends) = Writer::resume(dir.path()).unwrap();
        assert_eq!(ends, Ends { stdout: 6, stderr: 3 }, "what was put aside counts");
    }

    #[test]
    fn a_reader_sees_nothing_of_what_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        writer.append(Stream::Stdout, 0, b"one").unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        let whole = fs::read(current(dir.path())).unwrap();
        let next = encode(Stream::Stdout, 1, 3, b"of a host that was killed");
        fs::write(current(dir.path()), [&whole, &next[..HEADER + 9]].concat()).unwrap();
        assert_eq!(all(&mut reader), [(Stream::Stdout, b"one".to_vec())]);
        let (mut writer, _) = Writer::resume(dir.path()).unwrap();
        writer.append(Stream::Stderr, 0, b"err").unwrap();
        writer.append(Stream::Stdout, 3, b"of its heir").unwrap();
        let heirs = [(Stream::Stderr, b"err".to_vec()), (Stream::Stdout, b"of its heir".to_vec())];
        assert_eq!(all(&mut reader), heirs);
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::with_segment(dir.path(), 1_000).unwrap();
        for n in 0..10_000u32 {
            writer.append(Stream::Stdout, (4 * n).into(), &n.to_be_bytes()).unwrap();
        }
        let size: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 2_100, "{size}");
        let last = all(&mut Reader::open(dir.path()).unwrap()).pop().unwrap();
        assert_eq!(last.1, 9_999u32.to_be_bytes());
    }

    #[test]
    fn half_a_record_waits_and_a_damaged_one_is_an_error() {
        let whole = encode(Stream::Stdout, 1, 7, b"abc");
        let mut pending = whole[..HEADER + 1].to_vec();
        assert_eq!(decode(&mut pending).unwrap(), None);
        pending = whole;
        let record = decode(&mut pending).unwrap().unwrap();
        assert_eq!((record.offset, record.bytes.as_slice()), (7, b"abc".as_slice()));
        assert!(pending.is_empty());
        pending = vec![9; HEADER];
        assert!(decode(&mut pending).is_err());
    }
}
