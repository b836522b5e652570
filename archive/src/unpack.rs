//! From a stream to a tree, below one directory and nowhere else.
//!
//! A file is made new, never written into what is there: a link, a pipe or another's file that the archive, or somebody
//! beside it, has put in the place of its name is unlinked. Directories get their modes and times last, since a mode may
//! forbid to fill them and filling changes the time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod,
    fchown, fstat, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use crate::below::{Below, Links, split};
use crate::read::{Entry, Kind, Reader};
use crate::{Error, Result, cause};

const CHUNK: usize = 64 << 10;

/// Directories whose modes and times wait: beyond so many they get them at once.
const LATE_MAX: usize = 1 << 16;

const SET_ID: u32 = 0o6000;

/// Whose files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The caller's.
    Caller,
    /// Those that the archive says.
    Archive,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub owner: Owner,
    pub links: Links,
    /// Whether devices may be made, as far as the kernel lets the caller.
    pub devices: bool,
    /// Whether set-user-id and set-group-id bits stay.
    pub set_id: bool,
    /// What the top of the archive is to be called instead; all of it must be below one top.
    pub rename: Option<Vec<u8>>,
}

/// Unpacks below `directory`. What was unpacked before an error stays.
pub fn unpack(input: &mut dyn Read, directory: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let below = Below { directory, links: options.links };
    let mut unpacker =
        Unpacker { below, options, late: Vec::new(), top: None, chunk: vec![0; CHUNK] };
    let mut reader = Reader::new(input);
    let unpacked = unpacker.all(&mut reader);
    let settled = unpacker.settle();
    unpacked?;
    settled?;
    reader.finish()
}

struct Unpacker<'a> {
    below: Below<'a>,
    options: &'a Options,
    late: Vec<Late>,
    top: Option<Vec<u8>>,
    chunk: Vec<u8>,
}

/// A directory that is not what it shall be yet.
struct Late {
    path: Vec<u8>,
    mode: u32,
    mtime: i64,
}

/// Where a name is to be: an opened directory, and the name in it.
struct Place<'a> {
    parent: OwnedFd,
    name: &'a [u8],
}

impl Unpacker<'_> {
    fn all(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while let Some(mut entry) = reader.next_entry()? {
            let path = self.named(&entry.path)?;
            if let Kind::HardLink(target) = &entry.kind {
                entry.kind = Kind::HardLink(self.named(target)?);
            }
            self.one(&path, &entry, reader).map_err(|err| match err {
                Failure::Errno(errno) => Error::of("unpack", &path, cause(errno)),
                Failure::Why(why) => Error::of("unpack", &path, why),
                Failure::Archive(err) => err,
            })?;
        }
        Ok(())
    }

    /// A path of the archive's as one below the directory: nothing leads up, nothing is absolute.
    fn named(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let mut parts: Vec<&[u8]> = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .collect();
        if parts.contains(&&b".."[..]) || path.contains(&0) {
            return Err(Error::of("unpack", path, "leads out of the directory"));
        }
        let Some(rename) = &self.options.rename else { return Ok(parts.join(&b'/')) };
        // `.` is a top too, that of `./a`.
        let dotted = path.first() == Some(&b'.') && matches!(path.get(1), None | Some(b'/'));
        let top: &[u8] = if dotted || parts.is_empty() { b"." } else { parts.remove(0) };
        if self.top.get_or_insert_with(|| top.to_owned()) != top {
            return Err(Error::of("unpack", path, "the archive has more than one top"));
        }
        parts.insert(0, rename);
        Ok(parts.join(&b'/'))
    }

    fn one(&mut self, path: &[u8], entry: &Entry, reader: &mut Reader<'_>) -> Done {
        let Some((above, name)) = split(path) else {
            // The directory itself, which stays what it is.
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(Failure::Why("it is the directory itself")),
            };
        };
        let place = Place { parent: self.below.make(above)?, name };
        let Place { parent, name } = &place;
        match &entry.kind {
            Kind::Directory => return self.make_directory(path, &place, entry),
            Kind::File => return self.make_file(&place, entry, reader),
            Kind::HardLink(target) => return self.link(target, &place),
            Kind::Link(target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(Failure::Why("it is a symbolic link to nothing"));
                }
                clear(&place)?;
                symlinkat(target.as_slice(), parent, *name)?;
            }
            Kind::Fifo => {
                clear(&place)?;
                mknodat(parent, *name, FileType::Fifo, self.mode(entry), 0)?;
            }
            Kind::Character(major, minor) => {
                let device = makedev(*major, *minor);
                self.make_device(&place, FileType::CharacterDevice, device, entry)?;
            }
            Kind::Block(major, minor) => {
                let device = makedev(*major, *minor);
                self.make_device(&place, FileType::BlockDevice, device, entry)?;
            }
        }
        self.finish(&place, entry)
    }

    /// Owner and time of what is not opened; its mode it was made with, less the caller's umask. Somebody beside the archive
    /// may have put another's file in its place, by a hard link: that one keeps its owner.
    fn finish(&self, Place { parent, name }: &Place<'_>, entry: &Entry) -> Done {
        if self.options.owner == Owner::Archive {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(parent, *name, flags, Mode::empty())?;
            let stat = fstat(&made)?;
            if stat.st_nlink != 1 || FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            {
                return Err(Failure::Why("it was replaced meanwhile"));
            }
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        Ok(utimensat(parent, *name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let kept = if self.options.set_id { 0o7777 } else { 0o7777 & !SET_ID };
        Mode::from_raw_mode(entry.mode & kept)
    }

    fn make_device(&self, place: &Place<'_>, kind: FileType, device: u64, entry: &Entry) -> Done {
        if !self.options.devices {
            return Err(Failure::Why("it is a device, and none may be made here"));
        }
        clear(place)?;
        match mknodat(&place.parent, place.name, kind, self.mode(entry), device) {
            Err(Errno::PERM) => Err(Failure::Why("it is a device, which may not be made here")),
            made => Ok(made?),
        }
    }

    fn make_file(&mut self, place: &Place<'_>, entry: &Entry, reader: &mut Reader<'_>) -> Done {
        clear(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = openat(&place.parent, place.name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(made);
        loop {
            let length = reader.read(&mut self.chunk).map_err(Failure::Archive)?;
            if length == 0 {
                break;
            }
            let written = file.write_all(self.chunk.get(..length).unwrap_or_default());
            written
                .map_err(|err| Failure::Errno(Errno::from_io_error(&err).unwrap_or(Errno::IO)))?;
        }
        self.attributes(file.as_fd(), entry)?;
        Ok(fchmod(&file, self.mode(entry)).and_then(|()| futimens(&file, &times(entry.mtime)))?)
    }

    /// Owner before mode: a change of the owner clears the set-id bits (chown(2)).
    fn attributes(&self, fd: BorrowedFd<'_>, entry: &Entry) -> rustix::io::Result<()> {
        match self.options.owner {
            Owner::Caller => Ok(()),
            Owner::Archive => {
                fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            }
        }
    }

    /// One that is there is taken, its files stay.
    fn make_directory(&mut self, path: &[u8], place: &Place<'_>, entry: &Entry) -> Done {
        match mkdirat(&place.parent, place.name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(&place.parent, place.name, flags, Mode::empty()) {
            // A link to a directory is one where links are followed: only that it is there counts.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return match self.options.links {
                    Links::Below => self.below.make(path).map(drop).map_err(no_directory),
                    Links::Refused => Err(Failure::Why("what is there is no directory")),
                };
            }
            opened => opened?,
        };
        self.attributes(directory.as_fd(), entry)?;
        let mode = self.mode(entry).as_raw_mode();
        self.late.push(Late { path: path.to_owned(), mode, mtime: entry.mtime });
        if self.late.len() > LATE_MAX {
            self.settle().map_err(Failure::Archive)?;
        }
        Ok(())
    }

    /// The last made first: a directory's time is that of before what is in it got its own.
    fn settle(&mut self) -> Result<()> {
        let mut settled = Ok(());
        for Late { path, mode, mtime } in std::mem::take(&mut self.late).into_iter().rev() {
            let set = || -> rustix::io::Result<()> {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let directory = self.below.open(&path, flags)?;
                fchmod(&directory, Mode::from_raw_mode(mode))?;
                futimens(&directory, &times(mtime))
            };
            match set() {
                // The archive, or somebody else, has put something else there.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(errno) if settled.is_ok() => {
                    settled = Err(Error::of("unpack", &path, cause(errno)));
                }
                Err(_) => {} // the first is told
            }
        }
        settled
    }

    /// Both names are below the directory; a link of the archive's is linked itself, not followed.
    fn link(&self, target: &[u8], place: &Place<'_>) -> Done {
        let (above, name) = split(target).ok_or(Failure::Why("it is a link to nothing"))?;
        let from = self.below.open(above, OFlags::PATH | OFlags::DIRECTORY)?;
        clear(place)?;
        Ok(linkat(from, name, &place.parent, place.name, AtFlags::empty())?)
    }
}

type Done = Result<(), Failure>;

/// Why an entry could not be made.
enum Failure {
    Errno(Errno),
    Why(&'static str),
    /// It is the archive's fault, which says so itself.
    Archive(Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

fn no_directory(errno: Errno) -> Failure {
    match errno {
        Errno::NOTDIR | Errno::EXIST => Failure::Why("what is there is no directory"),
        errno => Failure::Errno(errno),
    }
}

/// Removes what is in the place of a name. A directory stays, and is an error.
fn clear(Place { parent, name }: &Place<'_>) -> Done {
    match unlinkat(parent, *name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Failure::Why("a directory is there")),
        Err(errno) => Err(errno.into()),
    }
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}
