//! From a tree to a stream. Others may change the tree meanwhile: what is there when it is looked at is what is packed, and
//! nothing that is put in the place of a name leads elsewhere.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, major, minor, openat, openat2,
    readlinkat,
};
use rustix::io::Errno;

use crate::header::encode;
use crate::read::{Entry, Kind};
use crate::{BLOCK, Error, Result, cause};

const CHUNK: usize = 64 << 10;

/// Directories in directories: a descriptor each.
const DEPTH_MAX: usize = 400;

/// What the kernel shows and nobody stored (linux/magic.h): proc, sysfs, cgroup2.
const SHOWN: [u64; 3] = [0x9fa0, 0x6265_6572, 0x6367_7270];

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What to pack: a name in a directory.
pub struct Source {
    directory: OwnedFd,
    name: Vec<u8>,
    follow: bool,
    place: OwnedFd,
}

impl Source {
    /// Finds `name`, `.` for the directory itself; with `follow` what a symbolic link of that name leads to.
    pub fn open(directory: OwnedFd, name: &[u8], follow: bool) -> rustix::io::Result<Self> {
        let flags = if follow { PLACE } else { PLACE | OFlags::NOFOLLOW };
        let no_magic = ResolveFlags::NO_MAGICLINKS;
        let place = openat2(&directory, name, flags, Mode::empty(), no_magic)?;
        Ok(Self { directory, name: name.to_owned(), follow, place })
    }

    fn data(&self) -> rustix::io::Result<OwnedFd> {
        let flags = if self.follow { DATA } else { DATA | OFlags::NOFOLLOW };
        let no_magic = ResolveFlags::NO_MAGICLINKS;
        openat2(&self.directory, self.name.as_slice(), flags, Mode::empty(), no_magic)
    }
}

/// Not waiting, should a pipe have taken a file's place.
const DATA: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Writes the source as `name`, with all that is below it, and the archive's end. `note` hears of what was left out.
pub fn pack(
    source: &Source,
    name: &[u8],
    out: &mut dyn Write,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut packer =
        Packer { out, note, names: BTreeMap::new(), chunk: vec![0; CHUNK], depth: DEPTH_MAX };
    packer.place(name, source.place.as_fd(), &mut || source.data())?;
    packer.write(&[0; 2 * BLOCK])?;
    packer.out.flush().map_err(|err| Error::new(format!("write the archive: {err}")))
}

struct Packer<'a> {
    out: &'a mut dyn Write,
    note: &'a mut dyn FnMut(&str),
    /// What files with several links were called first.
    names: BTreeMap<(u64, u64), Vec<u8>>,
    chunk: Vec<u8>,
    depth: usize,
}

type Open<'a> = &'a mut dyn FnMut() -> rustix::io::Result<OwnedFd>;

impl Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|err| Error::new(format!("write the archive: {err}")))
    }

    fn place(&mut self, name: &[u8], place: BorrowedFd<'_>, open: Open<'_>) -> Result<()> {
        let failed = |errno| Error::of("pack", name, cause(errno));
        let stat = fstat(place).map_err(failed)?;
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(name, &stat, open),
            FileType::Directory => return self.directory(name, &stat, place),
            FileType::Symlink => {
                Kind::Link(readlinkat(place, "", Vec::new()).map_err(failed)?.into_bytes())
            }
            FileType::CharacterDevice => Kind::Character(device.0, device.1),
            FileType::BlockDevice => Kind::Block(device.0, device.1),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket | FileType::Unknown => {
                (self.note)(&format!("{:?} is a socket: left out", String::from_utf8_lossy(name)));
                return Ok(());
            }
        };
        self.write(&encode(&entry(name, kind, &stat, 0))?)
    }

    fn file(&mut self, name: &[u8], seen: &Stat, open: Open<'_>) -> Result<()> {
        let inode = (seen.st_dev, seen.st_ino);
        if seen.st_nlink > 1 {
            if let Some(first) = self.names.get(&inode) {
                let link = entry(name, Kind::HardLink(first.clone()), seen, 0);
                return self.write(&encode(&link)?);
            }
            self.names.insert(inode, name.to_owned());
        }
        let failed = |errno| Error::of("pack", name, cause(errno));
        let file = open().map_err(failed)?;
        let stat = fstat(&file).map_err(failed)?;
        if (stat.st_dev, stat.st_ino) != inode {
            return Err(Error::of("pack", name, "it was replaced meanwhile"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.write(&encode(&entry(name, Kind::File, &stat, size))?)?;
        self.data(name, &mut File::from(file), size)
    }

    /// Exactly as much as was said: what a file has lost meanwhile is zeros.
    fn data(&mut self, name: &[u8], file: &mut File, size: u64) -> Result<()> {
        let mut left = size.next_multiple_of(u64::try_from(BLOCK).unwrap_or(1));
        let padding = left - size;
        while left > 0 {
            let most = usize::try_from(left - padding.min(left)).unwrap_or(usize::MAX).min(CHUNK);
            let read = match file.read(self.chunk.get_mut(..most).unwrap_or_default()) {
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(|err| Error::of("pack", name, err))?,
            };
            if read == 0 {
                if left > padding {
                    (self.note)(&format!("{:?} became shorter", String::from_utf8_lossy(name)));
                }
                return self.zeros(left);
            }
            let bytes = self.chunk.get(..read).unwrap_or_default();
            self.out
                .write_all(bytes)
                .map_err(|err| Error::new(format!("write the archive: {err}")))?;
            left -= u64::try_from(read).unwrap_or_default();
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(BLOCK).min(BLOCK);
            self.write([0; BLOCK].get(..length).unwrap_or_default())?;
            count -= u64::try_from(length).unwrap_or(count);
        }
        Ok(())
    }

    fn directory(&mut self, name: &[u8], stat: &Stat, place: BorrowedFd<'_>) -> Result<()> {
        let failed = |errno| Error::of("pack", name, cause(errno));
        let path = [name.strip_suffix(b"/").unwrap_or(name), b"/"].concat();
        self.write(&encode(&entry(&path, Kind::Directory, stat, 0))?)?;
        let is_below = self.depth < DEPTH_MAX;
        let filesystem = fstatfs(place).map_err(failed)?;
        if is_below && SHOWN.iter().any(|magic| u64::try_from(filesystem.f_type) == Ok(*magic)) {
            (self.note)(&format!("{:?} is the kernel's: left out", String::from_utf8_lossy(name)));
            return Ok(());
        }
        let Some(deeper) = self.depth.checked_sub(1) else {
            return Err(Error::of("pack", name, "too many directories in directories"));
        };
        self.depth = deeper;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(place, c".", flags, Mode::empty()).map_err(failed)?;
        let mut entries = Dir::new(opened).map_err(failed)?;
        while let Some(found) = entries.read() {
            let found = found.map_err(failed)?;
            if !matches!(found.file_name().to_bytes(), b"." | b"..") {
                self.below(&path, entries.fd().map_err(failed)?, found.file_name())?;
            }
        }
        self.depth += 1;
        Ok(())
    }

    fn below(&mut self, path: &[u8], directory: BorrowedFd<'_>, found: &CStr) -> Result<()> {
        let name = [path, found.to_bytes()].concat();
        match openat(directory, found, PLACE | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => Ok(()), // gone since it was listed
            Err(errno) => Err(Error::of("pack", &name, cause(errno))),
            Ok(place) => self.place(&name, place.as_fd(), &mut || {
                openat(directory, found, DATA | OFlags::NOFOLLOW, Mode::empty())
            }),
        }
    }
}

fn entry(name: &[u8], kind: Kind, stat: &Stat, size: u64) -> Entry {
    let (mode, mtime) = (stat.st_mode & 0o7777, stat.st_mtime);
    Entry { path: name.to_owned(), kind, mode, uid: stat.st_uid, gid: stat.st_gid, mtime, size }
}
