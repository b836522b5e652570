//! A daemon of a VM: started, waited for until it listens, watched, and quoted when it fails.
//!
//! Its socket may exist before it listens; QEMU would be refused. `/proc/net/unix` says which it is.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::boot;
use crate::console::create_private;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::rundir::make_private;
use crate::vsock::check_socket_path;

/// How long a daemon may take until it listens.
const DEADLINE: Duration = Duration::from_secs(20);
/// What Rust's runtime says of a panic, and how often the daemon's words are read for it.
const PANICKED: &str = "panicked at";
const LOOK: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Helper {
    name: &'static str,
    process: Process,
    stderr: PathBuf,
}

impl Helper {
    /// Starts it, with its words in the file `stderr`, and waits until it listens at `socket`, which is made private.
    pub async fn start(
        name: &'static str,
        mut command: Command,
        stderr: PathBuf,
        socket: &Path,
    ) -> Result<Self> {
        check_socket_path(socket)?;
        let log = create_private(&stderr).map_err(Error::io(format!("make log {stderr:?}")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let helper = Self { name, process: Process::spawn(name, command)?, stderr };
        helper.listens(socket).await?;
        make_private(socket)?; // it made it by the caller's umask
        Ok(helper)
    }

    /// Takes over one that another owner has started in `dir`.
    pub fn adopt(name: &'static str, pid: u32, dir: &Path, stderr: PathBuf) -> Result<Self> {
        match Process::adopt(name, pid, dir)? {
            Some(process) => Ok(Self { name, process, stderr }),
            None => Err(failed(name, "it has ended".to_owned(), &stderr)),
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it has ended, or serves nobody any more, which it must not, and says so.
    pub async fn ended(&self) -> Error {
        tokio::select! {
            exit = self.process.wait() => self.failed(format!("it {exit}")),
            () = self.panicked() => self.failed("its worker has panicked".to_owned()),
        }
    }

    /// A panic ends the thread that serves, and not the daemon: only its words tell of it.
    async fn panicked(&self) {
        let has_panicked = || {
            let said = fs::read(&self.stderr).unwrap_or_default(); // removed: it is ending
            String::from_utf8_lossy(&said).contains(PANICKED)
        };
        while !has_panicked() {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn listens(&self, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !is_listening(socket)? {
            if let Some(exit) = self.process.exit() {
                return Err(self.failed(format!("it {exit} before it listened")));
            }
            if Instant::now() >= deadline {
                let seconds = DEADLINE.as_secs();
                return Err(self.failed(format!("it does not listen after {seconds} s")));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn failed(&self, detail: String) -> Error {
        failed(self.name, detail, &self.stderr)
    }
}

fn failed(name: &'static str, detail: String, stderr: &Path) -> Error {
    let stderr = fs::read(stderr).unwrap_or_default(); // no words then; the failure is said anyway
    Error::Daemon { name, detail, stderr: boot::quote(&String::from_utf8_lossy(&stderr)) }
}

/// Whether somebody has called listen(2) on the unix socket at `path`.
fn is_listening(path: &Path) -> Result<bool> {
    let table = fs::read("/proc/net/unix").map_err(Error::io("read /proc/net/unix"))?;
    Ok(table.split(|&byte| byte == b'\n').any(|line| listens_at(line, path.as_os_str().as_bytes())))
}

/// One line of /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`, flag `__SO_ACCEPTCON` when it listens.
fn listens_at(line: &[u8], path: &[u8]) -> bool {
    let accepts = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).nth(3)
        == Some(b"00010000".as_slice());
    accepts && line.strip_suffix(path).is_some_and(|before| before.last() == Some(&b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_only_bound_does_not_listen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let (bound, address) = (
            rustix::net::socket(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                None,
            )
            .unwrap(),
            rustix::net::SocketAddrUnix::new(&path).unwrap(),
        );
        rustix::net::bind(&bound, &address).unwrap();
        assert!(!is_listening(&path).unwrap());
        rustix::net::listen(&bound, 1).unwrap();
        assert!(is_listening(&path).unwrap());
        assert!(!is_listening(&dir.path().join("ock")).unwrap());
    }

    #[test]
    fn a_line_of_the_kernels_table() {
        let line = b"ffff8880: 00000002 00000000 00010000 0001 01 12345 /run/a b.sock";
        assert!(listens_at(line, b"/run/a b.sock"));
        assert!(!listens_at(line, b"b.sock_1"));
        assert!(!listens_at(b"ffff8880: 00000003 00000000 00000000 0001 03 1 /run/x", b"/run/x"));
    }
}
