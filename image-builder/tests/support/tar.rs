//! Tar archives, byte by byte: a test can put anything into one.

/// An archive under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// One entry's header.
#[derive(Clone)]
pub struct Head<'a> {
    pub path: &'a [u8],
    pub kind: u8,
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub size: u64,
    pub device: (u32, u32),
}

impl Default for Head<'_> {
    fn default() -> Self {
        Head {
            path: b"",
            kind: b'0',
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn file(self, path: &str, data: &[u8]) -> Tar {
        self.entry(
            &Head { path: path.as_bytes(), size: data.len() as u64, ..Head::default() },
            data,
        )
    }

    pub fn dir(self, path: &str) -> Tar {
        self.entry(&Head { path: path.as_bytes(), kind: b'5', mode: 0o755, ..Head::default() }, b"")
    }

    pub fn symlink(self, path: &str, link: &str) -> Tar {
        let head = Head {
            path: path.as_bytes(),
            kind: b'2',
            link: link.as_bytes(),
            mode: 0o777,
            ..Head::default()
        };
        self.entry(&head, b"")
    }

    pub fn hard(self, path: &str, link: &str) -> Tar {
        self.entry(
            &Head { path: path.as_bytes(), kind: b'1', link: link.as_bytes(), ..Head::default() },
            b"",
        )
    }

    pub fn char_device(self, path: &str, device: (u32, u32)) -> Tar {
        self.entry(&Head { path: path.as_bytes(), kind: b'3', device, ..Head::default() }, b"")
    }

    /// Records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry(
            &Head { path: b"pax", kind: b'x', size: body.len() as u64, ..Head::default() },
            &body,
        )
    }

    /// A header, then data padded to a block, whatever the header says of it.
    pub fn entry(self, head: &Head<'_>, data: &[u8]) -> Tar {
        self.raw(&header(head))
            .raw(data)
            .raw(&vec![0; data.len().next_multiple_of(512) - data.len()])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    /// With the two blocks of zeros at the end.
    pub fn finish(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

/// One PAX record.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
    [(rest.len() + length).to_string().as_bytes(), &rest].concat()
}

pub fn header(head: &Head<'_>) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, head.path);
    put(100, format!("{:07o}\0", head.mode).as_bytes());
    put(108, format!("{:07o}\0", head.uid).as_bytes());
    put(116, format!("{:07o}\0", head.gid).as_bytes());
    match head.size < 1 << 33 {
        true => put(124, format!("{:011o}\0", head.size).as_bytes()),
        false => put(124, &[&[0x80, 0, 0, 0][..], &head.size.to_be_bytes()].concat()),
    }
    put(136, format!("{:011o}\0", head.mtime).as_bytes());
    put(156, &[head.kind]);
    put(157, head.link);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", head.device.0).as_bytes());
    put(337, format!("{:07o}\0", head.device.1).as_bytes());
    seal(&mut block);
    block
}

/// Sets the checksum.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
