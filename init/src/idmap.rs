//! Id mappings, and the user namespaces that are made of them (user_namespaces(7)).
//!
//! A namespace is born with a process: a child that does nothing holds it until its mappings are written and somebody
//! has a descriptor of it. Only a child of PID 1's may make one, since it waits for its own child; the guest's /proc
//! must be in sight.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setresuid};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

use crate::error::{Code, Context, Error, Result};
use crate::reaper::reap;
use crate::sys::process::{Child, CloneArgs, clone_child, close_all_but, exit_now};

/// UID_GID_MAP_MAX_EXTENTS of the kernel.
const MAPPINGS_MAX: usize = 340;
/// The kernel takes less than a page, in one write.
const TEXT_MAX: usize = 4095;

/// `count` ids: from `inside` on in the namespace, from `outside` on in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// The mappings of one user namespace, checked: they are what the kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    uids: Vec<IdMapping>,
    gids: Vec<IdMapping>,
}

impl IdMaps {
    /// An error names which of the two is wrong: `uidMappings: …`.
    pub fn new(uids: Vec<IdMapping>, gids: Vec<IdMapping>) -> Result<Self> {
        check(&uids).context(|| "uidMappings".to_owned())?;
        check(&gids).context(|| "gidMappings".to_owned())?;
        Ok(Self { uids, gids })
    }

    /// The mappings of the user namespace that the process of a pidfd is in, as the guest's ids.
    pub fn of_process(pidfd: BorrowedFd<'_>) -> Result<Self> {
        let pid = pid_in_proc(pidfd)?;
        let read = |name: &str| -> Result<Vec<IdMapping>> {
            let path = format!("/proc/{pid}/{name}");
            let text = fs::read_to_string(&path).context(|| format!("read {path:?}"))?;
            Ok(text.lines().filter_map(parse).collect())
        };
        Ok(Self { uids: read("uid_map")?, gids: read("gid_map")? })
    }

    /// The guest's number of an id of the namespace; none: it has no such id.
    pub fn uid(&self, inside: u32) -> Option<u32> {
        outside(&self.uids, inside)
    }

    pub fn gid(&self, inside: u32) -> Option<u32> {
        outside(&self.gids, inside)
    }
}

/// Never more or less than was asked for is mapped (CVE-2021-43784).
fn check(mappings: &[IdMapping]) -> Result<()> {
    let invalid = |why: String| Err(Error::new(Code::InvalidArgument, why));
    if mappings.is_empty() {
        return invalid("empty".to_owned());
    }
    if mappings.len() > MAPPINGS_MAX || text(mappings).len() > TEXT_MAX {
        let most = format!("{MAPPINGS_MAX} and {TEXT_MAX} bytes of text");
        return invalid(format!("{} entries are more than {most}", mappings.len()));
    }
    for (at, mapping) in mappings.iter().enumerate() {
        let IdMapping { inside, outside, count } = *mapping;
        let fits = |first: u32| first.checked_add(count).is_some(); // -1 is nobody's id
        if count == 0 || !fits(inside) || !fits(outside) {
            return invalid(format!("[{at}]: {inside} {outside} {count} is no range of ids"));
        }
        for other in mappings.iter().take(at) {
            let overlaps = |one: u32, two: u32| one < two + other.count && two < one + count;
            if overlaps(inside, other.inside) || overlaps(outside, other.outside) {
                return invalid(format!("[{at}]: {inside} {outside} {count} overlaps another"));
            }
        }
    }
    Ok(())
}

fn outside(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.inside).filter(|offset| *offset < mapping.count)?;
        Some(mapping.outside + offset)
    })
}

/// As /proc/PID/uid_map has it.
fn text(mappings: &[IdMapping]) -> String {
    let line =
        |IdMapping { inside, outside, count }: &IdMapping| format!("{inside} {outside} {count}\n");
    mappings.iter().map(line).collect()
}

fn parse(line: &str) -> Option<IdMapping> {
    let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
    let mut next = || numbers.next().flatten();
    Some(IdMapping { inside: next()?, outside: next()?, count: next()? })
}

/// What the caller makes from here on belongs to that user of the guest's; it may still do what root may.
pub fn act_as(uid: u32, gid: u32) -> Result<()> {
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    regain_capabilities()
}

/// Does something as that user of the guest's, which may still do what root may, and is root again after it.
pub fn with_euid<T>(uid: u32, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let become_user = |uid: u32| {
        let root = Uid::from_raw(0);
        setresuid(root, Uid::from_raw(uid), root).context(|| format!("set effective uid {uid}"))
    };
    become_user(uid)?;
    let done = regain_capabilities().and_then(|()| act());
    become_user(0)?;
    done
}

/// Another id has taken away what root may do (capabilities(7), "Effect of user ID changes on capabilities").
fn regain_capabilities() -> Result<()> {
    let sets = capabilities(None).context(|| "capabilities".to_owned())?;
    let effective = sets.permitted;
    set_capabilities(None, CapabilitySets { effective, ..sets })
        .context(|| "set capabilities".to_owned())
}

/// A user namespace that nobody is in: for MOUNT_ATTR_IDMAP.
pub fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    Holder::new(maps, CloneFlags::empty(), None)?.user_namespace()
}

/// A child that keeps new namespaces in being for as long as this lives.
pub struct Holder {
    child: Child,
    pid: u32, // as the guest's /proc has it
    /// The child ends with it, whatever becomes of us.
    _leash: PipeWriter,
}

impl Holder {
    /// Makes a user namespace, and of `others` namespaces that it owns.
    pub fn new(maps: &IdMaps, others: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Self> {
        let make = || -> Result<Self> {
            let (end, leash) = pipe()?;
            let namespaces = CloneFlags::CLONE_NEWUSER | others;
            let child = clone_child(CloneArgs { namespaces, cgroup }, hold, end)?;
            let pid = pid_in_proc(child.pidfd.as_fd())?;
            let holder = Self { child, pid, _leash: leash };
            holder.write_map("uid_map", &maps.uids)?;
            holder.write_map("gid_map", &maps.gids)?;
            Ok(holder)
        };
        make().context(|| "make a user namespace".to_owned())
    }

    /// As `new`, within a user namespace that there is already.
    pub fn inside(
        user: OwnedFd,
        others: CloneFlags,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Self> {
        let make = || -> Result<Self> {
            let (end, leash) = pipe()?;
            let (mut said, say) = pipe()?;
            let args = CloneArgs { namespaces: CloneFlags::empty(), cgroup };
            let child = clone_child(args, hold_inside, (user, others, say, end))?;
            let holder = Self { pid: pid_in_proc(child.pidfd.as_fd())?, child, _leash: leash };
            let mut failure = [0; 4];
            said.read_exact(&mut failure)?;
            match i32::from_ne_bytes(failure) {
                0 => Ok(holder),
                errno => Err(Errno::from_raw(errno).into()),
            }
        };
        make().context(|| "join a user namespace".to_owned())
    }

    fn write_map(&self, name: &str, mappings: &[IdMapping]) -> Result<()> {
        fs::write(format!("/proc/{}/{name}", self.pid), text(mappings)).context(|| name.to_owned())
    }

    pub fn user_namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid);
        openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {path:?}"))
    }
}

/// A pidfd: setns(2) takes the namespaces from it.
impl AsFd for Holder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Not by the leash: another child of ours may have a copy of it.
        let ended = crate::sys::process::pidfd_send_signal(self.as_fd(), nix::libc::SIGKILL);
        if let Err(err) = ended.map_err(Error::from).and_then(|()| reap(self.as_fd())) {
            log::debug!("end holder {}: {err}", self.pid); // then it ends with us
        }
    }
}

/// Does nothing until nobody holds the other end.
fn hold(mut end: PipeReader) -> ! {
    let status = match close_all_but(&[end.as_fd()]) {
        Ok(()) => i32::from(end.read(&mut [0]).is_err()),
        Err(_) => 1,
    };
    exit_now(status)
}

/// What goes wrong is said by its number, and none is 0.
fn hold_inside((user, others, mut say, end): (OwnedFd, CloneFlags, PipeWriter, PipeReader)) -> ! {
    let joined = setns(&user, CloneFlags::CLONE_NEWUSER).and_then(|()| unshare(others));
    let failure = joined.err().map_or(0, |errno| errno as i32);
    // Who does not hear it sees that we are gone.
    say.write_all(&failure.to_ne_bytes()).unwrap_or_default();
    hold(end)
}

/// A child's pid as the guest's /proc has it, which is not the pid that a caller in a pid namespace of its own sees.
fn pid_in_proc(pidfd: BorrowedFd<'_>) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = fs::read_to_string(&path).context(|| format!("read {path:?}"))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| Error::new(Code::Internal, format!("read {path:?}: no pid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(inside: u32, outside: u32, count: u32) -> IdMapping {
        IdMapping { inside, outside, count }
    }

    #[test]
    fn an_id_is_found_in_its_range_or_not_at_all() {
        let maps = IdMaps::new(
            vec![mapping(0, 100_000, 10), mapping(1000, 5, 1)],
            vec![mapping(0, 0, u32::MAX)],
        )
        .unwrap();
        assert_eq!(maps.uid(0), Some(100_000));
        assert_eq!(maps.uid(9), Some(100_009));
        assert_eq!(maps.uid(10), None);
        assert_eq!((maps.uid(999), maps.uid(1000), maps.uid(1001)), (None, Some(5), None));
        assert_eq!((maps.gid(77), maps.gid(u32::MAX)), (Some(77), None));
    }

    #[test]
    fn mappings_that_the_kernel_does_not_take_are_refused() {
        let good = || vec![mapping(0, 100_000, 65536)];
        let many: Vec<IdMapping> = (0..10_000).map(|id| mapping(id, id, 1)).collect();
        for bad in [
            vec![],
            vec![mapping(0, 1, 0)],
            vec![mapping(u32::MAX, 1, 1)],
            vec![mapping(0, u32::MAX - 1, 2)],
            vec![mapping(0, 0, 10), mapping(9, 100, 1)],
            vec![mapping(0, 0, 10), mapping(100, 9, 1)],
            many,
        ] {
            let err = IdMaps::new(bad.clone(), good()).unwrap_err();
            assert!(err.message().starts_with("uidMappings: "), "{err}");
            let err = IdMaps::new(good(), bad).unwrap_err();
            assert!(err.message().starts_with("gidMappings: "), "{err}");
        }
        let most: Vec<IdMapping> = (0..340).map(|id| mapping(id, id, 1)).collect();
        IdMaps::new(most, good()).unwrap();
    }

    #[test]
    fn a_map_is_written_as_the_kernel_reads_it() {
        assert_eq!(
            text(&[mapping(0, 100_000, 65536), mapping(65536, 5, 1)]),
            "0 100000 65536\n65536 5 1\n"
        );
    }
}
