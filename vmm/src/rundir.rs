//! Directories that go away with their owner, and the guardian that sees to it.
//!
//! `Drop` removes a [`RunDir`]; but an owner that is killed by SIGKILL drops nothing. So each directory has a
//! guardian: a shell in a process group of its own that makes the directory, works in it, and reads a pipe whose
//! other end only the owner holds. End of file means that the owner is gone. The guardian then empties its *working*
//! directory and removes the name if nothing is in what it names: a successor of the same name is not touched. The
//! guardian makes the directory itself because an owner may die at any moment, also between making it and having it
//! guarded. An owner that ends in order removes the directory and then kills the guardian.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// A directory of mode 0700 that is removed, with all in it, when its owner drops it or dies.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Its stdin is the pipe: closed by the kernel when the owner dies.
    guardian: Process,
}

impl RunDir {
    /// Makes `path`, and its parents where they are missing. Needs a tokio runtime, as all of this crate does.
    ///
    /// # Errors
    /// [`Error::Io`] if `path` exists, or cannot be made or guarded.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let operation = format!("make directory {path:?}");
        let path = std::path::absolute(path).map_err(Error::io(&operation))?;
        if let Some(parent) = path.parent() {
            make_private_directories(parent)?;
        }
        let guardian = start_guardian(&path)?;
        let mut said = String::new();
        if let Some(stdout) = guardian.take_stdout() {
            BufReader::new(stdout).read_line(&mut said).map_err(Error::io(&operation))?;
        }
        if said.trim() == "made" {
            return Ok(Self { path, guardian });
        }
        // mkdir: cannot create directory 'x': File exists
        let cause = said.trim().rsplit(": ").next().unwrap_or_default().to_owned();
        Err(Error::io(operation)(io::Error::other(cause)))
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
        remove(&self.path);
        self.guardian.kill(); // and reaped when the field is dropped
    }
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

fn start_guardian(path: &Path) -> Result<Process> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(GUARD).arg("hyperstart-guardian").arg(path).env("LC_ALL", "C");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); // the owner's own may lack mkdir and find
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Process::spawn("guardian", command)
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
        let guardian = PathBuf::from(format!("/proc/{}", dir.guardian.pid()));
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

    /// What happens when the owner is killed: the pipe closes, and nothing else.
    #[tokio::test]
    async fn the_guardian_cleans_up_when_the_pipe_closes() {
        let dir = RunDir::temporary("hyperstart-test-").unwrap();
        fs::write(dir.path().join(".hidden"), "x").unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        drop(dir.guardian.take_stdin());
        tokio::time::timeout(Duration::from_secs(10), dir.guardian.wait()).await.unwrap();
        assert!(!dir.path().exists());
    }

    #[tokio::test]
    async fn the_guardian_leaves_a_successor_alone() {
        let dir = RunDir::temporary("hyperstart-test-").unwrap();
        let moved = dir.path().with_extension("moved");
        fs::rename(dir.path(), &moved).unwrap();
        fs::create_dir(dir.path()).unwrap();
        fs::write(dir.path().join("state"), "of another").unwrap();
        drop(dir.guardian.take_stdin());
        tokio::time::timeout(Duration::from_secs(10), dir.guardian.wait()).await.unwrap();
        assert!(dir.path().join("state").exists());
        fs::remove_dir(&moved).unwrap();
    }
}
