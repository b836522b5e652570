//! Directories that go away with their owner, and the guardian that sees to it.
//!
//! `Drop` removes a [`RunDir`]; but an owner that is killed by SIGKILL drops nothing. So each directory has a
//! guardian: a shell in a process group of its own that makes the directory, works in it, and reads a pipe whose
//! other end only the owner holds. End of file means that the owner is gone. The guardian then empties its *working*
//! directory and removes the name if nothing is in what it names: a successor of the same name is not touched. The
//! guardian makes the directory itself because an owner may die at any moment, also between making it and having it
//! guarded. An owner that ends in order removes the directory and then kills the guardian.
//!
//! A directory may have an heir instead: a program that takes over what the owner had, and the directory with it. Its
//! guardian starts it when the owner is gone, again when it is killed, and goes when it has ended in order. The heir is
//! run by a descriptor, since its path may hold another build by then. A guardian with an heir holds a lock on the file
//! `guard`: who finds that free finds a directory without a guardian, and can start one.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::process::Process;

/// Signals of a closing terminal or session must not end a guardian before its work. A file that appears while the
/// tree is being removed (of a daemon that is dying too) is removed by the next pass.
const GUARD: &str = r#"
trap '' HUP INT TERM QUIT PIPE
mkdir -m 700 -- "$1" 2>&1 || exit 1
cd -- "$1" || exit 1
echo made
exec > /dev/null
read -r line
for pass in 1 2 3; do
    find . -mindepth 1 -delete && break
    sleep 0.2
done
cd / && rmdir -- "$1"
"#;

/// The heir comes as descriptor 2, and its words after the directory. A heir that fails is tried again a few times, one
/// that is killed for ever. The lock is the guardian's alone: whoever it starts does not inherit it.
const GUARD_WITH_HEIR: &str = r#"
trap '' HUP INT TERM QUIT PIPE
exec 3<&2 2> /dev/null
directory=$1 begin=$2
shift 2
if [ "$begin" = made ]; then mkdir -m 700 -- "$directory" 2>&1 || exit 1; fi
(umask 077 && : > "$directory/guard")
exec 4> "$directory/guard" && flock -w 5 4 || exit 1
echo made
exec > /dev/null
cd /
if [ "$begin" = made ]; then read -r line; fi
exec < /dev/null
failures=0
while [ "$failures" -lt 5 ]; do
    /proc/self/fd/3 "$@" 4<&-
    code=$?
    [ "$code" -ne 0 ] || exit 0
    [ "$code" -gt 128 ] || failures=$((failures + 1))
    sleep 0.1 4<&-
done
"#;
/// Of a directory with an heir: locked by its guardian.
const GUARD_LOCK: &str = "guard";

/// A program that takes over a directory, and all that is known by it, from an owner that was killed.
#[derive(Debug)]
pub struct Heir {
    /// The program itself, open for reading.
    pub program: File,
    /// Its words.
    pub words: Vec<OsString>,
}

/// A directory of mode 0700 that is removed, with all in it, when its owner drops it or dies.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Its stdin is the pipe: closed by the kernel when the owner dies. An heir has its guardian above it.
    guardian: Option<Process>,
}

impl RunDir {
    /// Makes `path`, and its parents where they are missing. Needs a tokio runtime, as all of this crate does.
    ///
    /// # Errors
    /// [`Error::Io`] if `path` exists, or cannot be made or guarded.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = absolute(path.into())?;
        let mut command = shell(GUARD, &path);
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let guardian = Some(start_guardian(command, &path)?);
        Ok(Self { path, guardian })
    }

    /// The same, with an heir: the directory stays when the owner is killed, and the heir has it.
    ///
    /// # Errors
    /// As [`RunDir::create`].
    pub fn create_with_heir(path: impl Into<PathBuf>, heir: Heir) -> Result<Self> {
        let path = absolute(path.into())?;
        let mut command = shell(GUARD_WITH_HEIR, &path);
        command.arg("made").args(heir.words).stdin(Stdio::piped()).stderr(heir.program);
        let guardian = Some(start_guardian(command, &path)?);
        Ok(Self { path, guardian })
    }

    /// A directory that is there, and has a guardian or needs none.
    pub fn inherit(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), guardian: None }
    }

    /// Makes `path`, which nobody removes when its owner is killed: an heir does, or whoever guards what it lies in.
    ///
    /// # Errors
    /// [`Error::Io`] if `path` exists or cannot be made.
    pub fn unguarded(path: impl Into<PathBuf>) -> Result<Self> {
        let path = absolute(path.into())?;
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(Error::io(format!("make directory {path:?}")))?;
        Ok(Self { path, guardian: None })
    }

    /// Leaves the directory where it is.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }

    /// Makes a directory of a fresh name below the system's temporary directory.
    ///
    /// # Errors
    /// As [`RunDir::create`].
    pub fn temporary(prefix: &str) -> Result<Self> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|err| Error::io("read random bytes")(err.into()))?;
        let name = format!("{prefix}{:016x}", u64::from_ne_bytes(random));
        Self::create(std::env::temp_dir().join(name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.path != Path::new("") {
            remove(&self.path);
        }
        if let Some(guardian) = &self.guardian {
            guardian.kill(); // and reaped when the field is dropped
        }
    }
}

/// Gives a directory whose owner and guardian are both gone a new guardian, which starts the heir. False: it has one.
///
/// # Errors
/// [`Error::Io`] if that cannot be found out, or no guardian be started.
pub fn appoint(path: &Path, heir: Heir) -> Result<bool> {
    if is_guarded(path)? {
        return Ok(false);
    }
    let mut command = shell(GUARD_WITH_HEIR, path);
    command.arg("orphaned").args(heir.words).stdin(Stdio::null()).stderr(heir.program);
    command.stdout(Stdio::null()).process_group(0);
    // It outlives us: whoever adopts it reaps it.
    command.spawn().map(drop).map_err(Error::io(format!("start the guardian of {path:?}")))?;
    Ok(true)
}

/// Whether a directory has a guardian with an heir.
///
/// # Errors
/// [`Error::Io`] if that cannot be found out.
pub fn is_guarded(path: &Path) -> Result<bool> {
    let operation = || format!("look for the guardian of {path:?}");
    let lock = match File::open(path.join(GUARD_LOCK)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        lock => lock.map_err(Error::io(operation()))?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(err) => Err(Error::io(operation())(err.into())),
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    let operation = format!("make directory {path:?}");
    let path = std::path::absolute(path).map_err(Error::io(operation))?;
    if let Some(parent) = path.parent() {
        make_private_directories(parent)?;
    }
    Ok(path)
}

/// Makes `path` and its missing parents, each of mode 0700.
///
/// # Errors
/// [`Error::Io`] if one cannot be made.
pub fn make_private_directories(path: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(Error::io(format!("make directory {path:?}")))
}

/// Makes sure that only the owner may look into `path`, whoever made it.
///
/// # Errors
/// [`Error::Io`] if its mode cannot be changed: it is missing, or somebody else's.
pub fn make_private(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(Error::io(format!("make {path:?} private")))
}

fn shell(script: &str, path: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg("hyperstart-guardian").arg(path).env("LC_ALL", "C");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); // the owner's own may lack mkdir and find
    command
}

/// Starts it, and waits until it has made the directory.
fn start_guardian(mut command: Command, path: &Path) -> Result<Process> {
    let operation = format!("make directory {path:?}");
    let guardian = Process::spawn("guardian", {
        command.stdout(Stdio::piped());
        command
    })?;
    let mut said = String::new();
    if let Some(stdout) = guardian.take_stdout() {
        BufReader::new(stdout).read_line(&mut said).map_err(Error::io(&operation))?;
    }
    if said.trim() == "made" {
        return Ok(guardian);
    }
    // mkdir: cannot create directory 'x': File exists
    let cause = said.trim().rsplit(": ").next().unwrap_or_default().to_owned();
    Err(Error::io(operation)(io::Error::other(cause)))
}

/// Removes a tree in which something may still be dying. What is left after that is said, once.
fn remove(path: &Path) {
    for pass in 0..3_u64 {
        std::thread::sleep(Duration::from_millis(pass * 20));
        match fs::remove_dir_all(path) {
            Ok(()) => return,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return,
            Err(err) if pass == 2 => log::error!("remove directory {path:?}: {err}"),
            Err(err) => log::debug!("remove directory {path:?}: {err}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_private_and_goes_away_with_its_owner() {
        let dir = RunDir::temporary("hyperstart-test-").unwrap();
        let path = dir.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "x").unwrap();
        let guardian = PathBuf::from(format!("/proc/{}", guardian(&dir).pid()));
        drop(dir);
        assert!(!path.exists());
        assert!(!guardian.exists());
    }

    #[tokio::test]
    async fn an_existing_directory_is_not_taken_over() {
        let dir = RunDir::temporary("hyperstart-test-").unwrap();
        let err = RunDir::create(dir.path()).unwrap_err();
        assert!(err.to_string().contains("File exists"), "{err}");
        assert!(dir.path().exists());
    }

    fn guardian(dir: &RunDir) -> &Process {
        dir.guardian.as_ref().unwrap()
    }

    /// A shell as an heir, which notes each of its lives: it is killed in the first, fails in the second.
    fn heir(path: &Path) -> Heir {
        let life = "echo >> $0/lives; case $(wc -l < $0/lives) in 1) kill -9 $$;; 2) exit 3;; esac";
        let words = ["-c", life, path.to_str().unwrap()].map(OsString::from).into();
        Heir { program: File::open("/bin/sh").unwrap(), words }
    }

    #[tokio::test]
    async fn an_heir_is_started_until_it_has_ended_in_order() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        let dir = RunDir::create_with_heir(&path, heir(&path)).unwrap();
        assert!(is_guarded(&path).unwrap() && !appoint(&path, heir(&path)).unwrap());
        assert!(!path.join("lives").exists(), "not before the owner is gone");
        drop(guardian(&dir).take_stdin());
        tokio::time::timeout(Duration::from_secs(30), guardian(&dir).wait()).await.unwrap();
        assert_eq!(fs::read(path.join("lives")).unwrap().len(), 3);
        assert!(!is_guarded(&path).unwrap());
        dir.leave();
        assert!(path.exists(), "it is the heir's");
        fs::remove_file(path.join("lives")).unwrap();
        assert!(appoint(&path, heir(&path)).unwrap(), "its guardian is gone");
        let lives = || fs::read(path.join("lives")).map_or(0, |lives| lives.len());
        for _ in 0..3000 {
            if lives() == 3 && !is_guarded(&path).unwrap() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} lives", lives());
    }

    /// What happens when the owner is killed: the pipe closes, and nothing else.
    #[tokio::test]
    async fn the_guardian_cleans_up_when_the_pipe_closes() {
        let dir = RunDir::temporary("hyperstart-test-").unwrap();
        fs::write(dir.path().join(".hidden"), "x").unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        drop(guardian(&dir).take_stdin());
        tokio::time::timeout(Duration::from_secs(10), guardian(&dir).wait()).await.unwrap();
        assert!(!dir.path().exists());
    }

    #[tokio::test]
    async fn the_guardian_leaves_a_successor_alone() {
        let dir = RunDir::temporary("hyperstart-test-").unwrap();
        let moved = dir.path().with_extension("moved");
        fs::rename(dir.path(), &moved).unwrap();
        fs::create_dir(dir.path()).unwrap();
        fs::write(dir.path().join("state"), "of another").unwrap();
        drop(guardian(&dir).take_stdin());
        tokio::time::timeout(Duration::from_secs(10), guardian(&dir).wait()).await.unwrap();
        assert!(dir.path().join("state").exists());
        fs::remove_dir(&moved).unwrap();
    }
}
