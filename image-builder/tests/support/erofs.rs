//! Reads an EROFS image as a kernel would, and panics at whatever a kernel would refuse. Only the plain and inline
//! layouts; written from Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux 6.12.

use std::collections::{BTreeMap, BTreeSet};

/// Everything in an image by its path; the root is "".
pub type Files = BTreeMap<String, File>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub nid: u64,
    /// `st_mode`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub mtime: (u64, u32),
    /// Of a device: as stored.
    pub device: u32,
    /// 0 plain, 2 inline.
    pub layout: u16,
    pub is_compact: bool,
    /// A file's bytes, a link's target; empty for a directory.
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl File {
    pub fn kind(&self) -> u16 {
        self.mode & 0o170_000
    }
}

const BLOCK: usize = 4096;

struct Image<'a>(&'a [u8]);

impl Image<'_> {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0[offset..offset + N].try_into().unwrap()
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.at(offset))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.at(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.at(offset))
    }
}

pub fn read(bytes: &[u8]) -> Files {
    let image = Image(bytes);
    assert_eq!(bytes.len() % (2 << 20), 0, "a pmem device is a multiple of 2 MiB");
    assert_eq!(image.u32(1024), 0xe0f5_e1e2, "magic");
    assert_eq!(bytes[1036], 12, "block bits");
    assert_eq!(image.u32(1024 + 80), 0, "no incompatible feature");
    check_sum(&image);
    let root = u64::from(image.u16(1024 + 14));
    let mut files = Files::new();
    let mut nids = BTreeSet::new();
    walk(&image, "", root, root, &mut files, &mut nids);
    assert_eq!(image.u64(1024 + 16), nids.len() as u64, "inode count");
    let blocks = usize::try_from(image.u32(1024 + 36)).unwrap();
    assert!(blocks * BLOCK <= bytes.len(), "blocks lie in the file");
    check_links(&files);
    files
}

fn check_sum(image: &Image<'_>) {
    let mut block = image.0[1024..BLOCK].to_vec();
    block[4..8].fill(0);
    let mut crc = u32::MAX;
    for byte in block {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    assert_eq!(image.u32(1028), crc, "superblock checksum");
}

/// Every inode has as many names as it says; a directory two, and one for each in it.
fn check_links(files: &Files) {
    let mut names: BTreeMap<u64, u32> = BTreeMap::new();
    for (path, file) in files {
        *names.entry(file.nid).or_default() += 1;
        if file.kind() == 0o040_000 {
            *names.entry(file.nid).or_default() += 1;
            if let Some(parent) =
                (!path.is_empty()).then(|| path.rsplit_once('/').map_or("", |(parent, _)| parent))
            {
                *names.entry(files[parent].nid).or_default() += 1;
            }
        }
    }
    for (path, file) in files {
        assert_eq!(file.links, names[&file.nid], "links of {path:?}");
    }
}

fn walk(
    image: &Image<'_>,
    path: &str,
    nid: u64,
    parent: u64,
    files: &mut Files,
    nids: &mut BTreeSet<u64>,
) {
    let mut file = inode(image, nid);
    nids.insert(nid);
    if file.kind() == 0o040_000 {
        let mut last: Option<Vec<u8>> = None;
        for (name, child, file_type) in entries(&file.data) {
            assert!(last.as_ref().is_none_or(|last| *last < name), "{path:?}: names are sorted");
            let text = String::from_utf8_lossy(&name).into_owned();
            match text.as_str() {
                "." => assert_eq!(child, nid),
                ".." => assert_eq!(child, parent),
                _ => {
                    let below = if path.is_empty() { text } else { format!("{path}/{text}") };
                    walk(image, &below, child, nid, files, nids);
                    let types = [0, 0o10, 0o4, 0o2, 0o6, 0o1, 0o14, 0o12];
                    assert_eq!(
                        types[usize::from(file_type)],
                        files[&below].mode >> 12,
                        "{below:?}: type"
                    );
                }
            }
            last = Some(name);
        }
        file.data.clear();
    }
    files.insert(path.into(), file);
}

fn entries(data: &[u8]) -> Vec<(Vec<u8>, u64, u8)> {
    let mut all = Vec::new();
    for block in data.chunks(BLOCK) {
        let image = Image(block);
        let count = usize::from(image.u16(8)) / 12;
        assert!(count > 0 && usize::from(image.u16(8)) == count * 12);
        for index in 0..count {
            let start = usize::from(image.u16(index * 12 + 8));
            let end = match index + 1 < count {
                true => usize::from(image.u16(index * 12 + 20)),
                false => block[start..]
                    .iter()
                    .position(|byte| *byte == 0)
                    .map_or(block.len(), |at| start + at),
            };
            all.push((block[start..end].to_vec(), image.u64(index * 12), block[index * 12 + 10]));
        }
    }
    all
}

fn inode(image: &Image<'_>, nid: u64) -> File {
    let metadata = usize::try_from(image.u32(1024 + 40)).unwrap() * BLOCK;
    let at = metadata + usize::try_from(nid * 32).unwrap();
    let format = image.u16(at);
    let is_compact = format & 1 == 0;
    let layout = format >> 1 & 7;
    assert!(format >> 4 == 0 && (layout == 0 || layout == 2), "format {format:#x}");
    let mode = image.u16(at + 4);
    let (size, union, uid, gid, mtime, links) = match is_compact {
        true => {
            let time = (image.u64(1024 + 24), image.u32(1024 + 32));
            let (uid, gid) = (u32::from(image.u16(at + 24)), u32::from(image.u16(at + 26)));
            let links = u32::from(image.u16(at + 6));
            (u64::from(image.u32(at + 8)), image.u32(at + 16), uid, gid, time, links)
        }
        false => {
            let time = (image.u64(at + 32), image.u32(at + 40));
            let (uid, gid) = (image.u32(at + 24), image.u32(at + 28));
            (image.u64(at + 8), image.u32(at + 16), uid, gid, time, image.u32(at + 44))
        }
    };
    let head = at + if is_compact { 32 } else { 64 };
    let units = usize::from(image.u16(at + 2));
    assert_ne!(units, 1, "a header of attributes without any is not supported by Linux");
    let body = if units == 0 { 0 } else { 12 + (units - 1) * 4 };
    let is_device = matches!(mode >> 12, 0o2 | 0o6);
    let size = usize::try_from(size).unwrap();
    let data = if is_device { Vec::new() } else { data(image, layout, size, union, head + body) };
    if mode >> 12 == 0o10 {
        assert_eq!(layout, 0, "a file that is not plain cannot be mapped");
    }
    let xattrs = xattrs(image, head, body);
    let device = if is_device { union } else { 0 };
    File { nid, mode, uid, gid, links, mtime, device, layout, is_compact, data, xattrs }
}

fn data(image: &Image<'_>, layout: u16, size: usize, block: u32, tail_at: usize) -> Vec<u8> {
    let start = usize::try_from(block).unwrap() * BLOCK;
    if layout == 0 {
        return if size == 0 { Vec::new() } else { image.0[start..start + size].to_vec() };
    }
    let tail = size % BLOCK;
    assert!(tail_at % BLOCK + tail <= BLOCK, "an inline tail crosses a block");
    let mut data =
        if size > tail { image.0[start..start + size - tail].to_vec() } else { Vec::new() };
    data.extend_from_slice(&image.0[tail_at..tail_at + tail]);
    data
}

fn xattrs(image: &Image<'_>, start: usize, size: usize) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut at = start + 12;
    while at < start + size {
        let (name, value) = (usize::from(image.0[at]), usize::from(image.u16(at + 2)));
        let prefix = match image.0[at + 1] {
            1 => "user.",
            2 => "system.posix_acl_access",
            3 => "system.posix_acl_default",
            4 => "trusted.",
            6 => "security.",
            other => panic!("name space {other}"),
        };
        let rest = String::from_utf8_lossy(&image.0[at + 4..at + 4 + name]);
        let bytes = image.0[at + 4 + name..at + 4 + name + value].to_vec();
        assert!(found.insert(format!("{prefix}{rest}"), bytes).is_none());
        at += (4 + name + value).next_multiple_of(4);
    }
    found
}
