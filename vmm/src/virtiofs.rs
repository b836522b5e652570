//! Directories that virtiofsd serves to the guest: one daemon a directory, which sees nothing else of the host.
//!
//! The daemon makes the directory its root (a mount namespace of its own and pivot_root, with no network and no other
//! process in sight; chroot where the host gives no namespaces) before it talks to QEMU, under a seccomp filter of its own.
//! It keeps the capabilities to act for the guest's users, not those to make devices or to open files by handle, which
//! would lead out of the directory. That takes root: for others QEMU serves the directory by 9p.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::helper::Helper;
use crate::machine::Share;
use crate::program::{find_program, loose_with, search_path, tied_with};
use crate::qemu::share_socket;
use crate::vsock::cache_directory;

const DAEMON: &str = "virtiofsd";
/// Where Debian has it, beside those directories that everybody searches.
const LIBEXEC: [&str; 2] = ["/usr/libexec", "/usr/lib/virtiofsd"];
/// To confine itself, it takes more than it keeps: it drops the rest before it serves.
const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+setfcap,+setuid,+setgid,+setpcap,+sys_admin,+sys_chroot";
const OPTIONS: [&str; 3] = ["--modcaps=-mknod", "--inode-file-handles=never", "--log-level=error"];
/// How it is confined, the best first.
const SANDBOXES: [&str; 2] = ["namespace", "chroot"];

/// The daemon's program, or why this host cannot use virtio-fs.
///
/// # Errors
/// A sentence for people.
pub fn usable() -> std::result::Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("virtiofsd confines itself as root only".to_owned());
    }
    let built = cache_directory().map(|cache| cache.join("tools/bin"));
    let directories = built.into_iter().chain(search_path()).chain(LIBEXEC.map(PathBuf::from));
    find_program(Path::new(DAEMON), directories)
        .ok_or_else(|| "virtiofsd is not installed: run `make setup`".to_owned())
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    helper: Helper,
}

impl Daemon {
    /// Starts the one for the share of this index, with its socket in `dir`, and waits until it listens.
    pub async fn start(
        program: &Path,
        dir: &Path,
        index: usize,
        share: &Share,
        outlives_owner: bool,
    ) -> Result<Self> {
        let mut refused = None;
        for sandbox in SANDBOXES {
            let mut command = if outlives_owner {
                loose_with(program, dir, CAPABILITIES)
            } else {
                tied_with(program, CAPABILITIES)
            };
            let socket = share_socket(dir, index);
            command.arg("--socket-path").arg(&socket).arg("--shared-dir").arg(&share.path);
            command.arg(format!("--sandbox={sandbox}")).args(OPTIONS);
            if share.read_only {
                command.arg("--readonly");
            }
            match Helper::start(DAEMON, command, log_file(dir, index), &socket).await {
                Ok(helper) => {
                    log::debug!("share {:?}: virtio-fs by {program:?} in a {sandbox}", share.path);
                    return Ok(Self { helper });
                }
                Err(err) => {
                    log::info!("share {:?}: no {sandbox} for virtiofsd: {err}", share.path);
                    refused.get_or_insert(err);
                }
            }
        }
        Err(refused
            .unwrap_or_else(|| Error::io("start virtiofsd")(std::io::ErrorKind::Other.into())))
    }

    /// Takes over one that another owner has started in `dir`.
    pub fn adopt(pid: u32, dir: &Path, index: usize) -> Result<Self> {
        Ok(Self { helper: Helper::adopt(DAEMON, pid, dir, log_file(dir, index))? })
    }

    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Waits until it has ended, which it must not before the VM, and says so.
    pub async fn ended(&self) -> Error {
        self.helper.ended().await
    }
}

fn log_file(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("virtiofsd{index}.log"))
}
