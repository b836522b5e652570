//! The vsock transports: who gives the guest its vsock, and where it says READY.
//!
//! - `/dev/vhost-vsock`: QEMU asks the host's kernel for a context id, which must be free on the whole host. We draw
//!   one at random from 2^31 and draw again when QEMU reports that the kernel refused it: the kernel is the one
//!   arbiter, so two launchers cannot take the same one. READY comes to an AF_VSOCK port of our own, from that
//!   context id alone.
//! - `vhost-device-vsock`, a daemon for each VM (it must be restarted with it): vsock is a unix socket on which a
//!   client says `CONNECT <port>`; a guest that connects to port N of the host reaches the unix socket `<path>_N`.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hyperstart_protocol::{READY_LINE, READY_PORT};
use tokio::io::{AsyncBufRead, AsyncRead, BufReader};
use tokio::net::UnixListener;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::error::{Error, Result};
use crate::helper::Helper;
use crate::line;
use crate::program::{find_program, loose, search_path, tied};

/// The context id behind a daemon: nobody else sees it.
pub const DAEMON_CID: u32 = 3;
/// VMADDR_PORT_ANY of vsock(7): the kernel chooses.
const ANY_PORT: u32 = u32::MAX;
/// The daemon's program.
const DAEMON: &str = "vhost-device-vsock";
/// In its directory.
/// What the daemon takes of a connection ahead of its client. By default it is 64 KiB: two of our writes, then the guest
/// waits for the next word of the daemon.
const DAEMON_BUFFER: u32 = 256 << 10;
const DAEMON_LOG: &str = "vhost-device-vsock.log";
const VHOST: &str = "vhost.sock";
const UDS: &str = "vsock.sock";
/// The longest path of a unix socket (sun_path, less its end).
const MAX_SOCKET_PATH: usize = 107;

/// Where the guest says READY.
pub struct ReadyPort {
    listener: Listener,
    /// The guest's connection: kept over a wait that was given up, with what was read of the line.
    guest: Option<BufReader<Box<dyn AsyncRead + Send + Sync + Unpin>>>,
    line: Vec<u8>,
}

#[derive(Debug)]
enum Listener {
    /// The host's vsock; only the guest of this context id is heard.
    Vsock { listener: VsockListener, cid: u32 },
    /// Behind the daemon.
    Unix(UnixListener),
}

impl ReadyPort {
    /// Listens on a free port of the host's vsock, and says on which.
    ///
    /// # Errors
    /// [`Error::Io`] if the host has no AF_VSOCK.
    pub fn on_vsock(cid: u32) -> Result<(Self, u32)> {
        let made = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, ANY_PORT));
        let listener = made.map_err(Error::io("listen on vsock for the guest"))?;
        let address = listener.local_addr().map_err(Error::io("read our vsock port"))?;
        Ok((Self::on(Listener::Vsock { listener, cid }), address.port()))
    }

    /// Listens where the daemon at `uds` will connect for the guest.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket cannot be made.
    pub fn behind_daemon(uds: &Path) -> Result<Self> {
        let mut path = uds.as_os_str().to_owned();
        path.push(format!("_{READY_PORT}"));
        Ok(Self::on(Listener::Unix(bind(Path::new(&path))?)))
    }

    fn on(listener: Listener) -> Self {
        Self { listener, guest: None, line: Vec::new() }
    }

    /// Waits for the READY line, without a deadline; may be given up and called again.
    ///
    /// # Errors
    /// [`Error::NotOurGuest`] if the guest says anything else, [`Error::Io`] if nobody can be accepted.
    pub async fn ready(&mut self) -> Result<()> {
        let guest = match &mut self.guest {
            Some(guest) => guest,
            None => {
                let accepted = self.listener.accept().await;
                let stream = accepted.map_err(Error::io("accept the guest's connection"))?;
                self.guest.insert(BufReader::new(stream))
            }
        };
        expect_ready(guest, &mut self.line).await
    }
}

impl fmt::Debug for ReadyPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyPort").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Listener {
    async fn accept(&mut self) -> io::Result<Box<dyn AsyncRead + Send + Sync + Unpin>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Vsock { listener, cid } => loop {
                let (stream, peer) = listener.accept().await?;
                if peer.cid() == *cid {
                    return Ok(Box::new(stream));
                }
                log::warn!("vsock: context id {} connected to the port of guest {cid}", peer.cid());
            },
        }
    }
}

/// Reads a line that must be READY.
pub(crate) async fn expect_ready<R>(reader: &mut R, partial: &mut Vec<u8>) -> Result<()>
where
    R: AsyncBufRead + Unpin,
{
    const LIMIT: usize = 64;
    let line = match line::read(reader, partial, LIMIT).await {
        Ok(line) => line,
        Err(err) if err.kind() == io::ErrorKind::InvalidData => std::mem::take(partial),
        Err(err) => return Err(Error::io("read the guest's READY line")(err)),
    };
    if line == READY_LINE.trim_end().as_bytes() {
        return Ok(());
    }
    Err(Error::NotOurGuest { said: String::from_utf8_lossy(&line).into_owned() })
}

/// A unix socket of mode 0600 that listens at `path`, with an error that knows of its length limit.
pub(crate) fn bind(path: &Path) -> Result<UnixListener> {
    check_socket_path(path)?;
    let operation = format!("listen at {path:?}");
    let listener = UnixListener::bind(path).map_err(Error::io(&operation))?;
    make_private(path)?;
    Ok(listener)
}

/// Mode 0600.
fn make_private(socket: &Path) -> Result<()> {
    fs::set_permissions(socket, Permissions::from_mode(0o600))
        .map_err(Error::io(format!("make {socket:?} private")))
}

/// Refuses a path that is too long for a unix socket.
pub(crate) fn check_socket_path(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let detail = format!(
        "{bytes} bytes, a unix socket's path has at most {MAX_SOCKET_PATH}: use a shorter directory"
    );
    Err(Error::io(format!("listen at {path:?}"))(io::Error::other(detail)))
}

/// A context id that is probably free: from the upper half, which nobody hands out by counting.
///
/// # Errors
/// [`Error::Io`] without random bytes.
pub fn random_cid() -> Result<u32> {
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|err| Error::io("read random bytes")(err.into()))?;
    Ok((u32::from_ne_bytes(random) | 1 << 31) & !1) // even: so not u32::MAX, which means any
}

/// Whether QEMU's words say that the context id is taken.
pub fn cid_was_taken(stderr: &str) -> bool {
    stderr.contains("unable to set guest cid") && stderr.contains("Address already in use")
}

/// Whether the host's kernel gives vsocks to guests, and to us.
///
/// # Errors
/// Why not.
pub fn vhost_usable() -> io::Result<()> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock").map(drop)
}

/// Where the daemon's program is: where `make setup` puts it, which has patched it, or in `PATH`.
pub fn find_daemon() -> Option<PathBuf> {
    let patched = cache_directory().map(|cache| cache.join("tools/bin"));
    let directories = patched.into_iter().chain(search_path());
    find_program(Path::new(DAEMON), directories)
}

/// `HYPERSTART_CACHE`, or hyperstart's directory in the user's cache.
pub(crate) fn cache_directory() -> Option<PathBuf> {
    let from =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("HYPERSTART_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("hyperstart")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/hyperstart")))
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    helper: Helper,
    /// Where QEMU connects.
    pub vhost: PathBuf,
    /// Where clients connect, and say which port.
    pub uds: PathBuf,
}

impl Daemon {
    /// Starts `program` with its sockets in `dir` and waits until it listens.
    ///
    /// # Errors
    /// [`Error::Daemon`] if it ends or does not listen within 20 s, [`Error::Io`] if it cannot be started.
    pub async fn start(program: &Path, dir: &Path, outlives_owner: bool) -> Result<Self> {
        let vhost = dir.join(VHOST);
        let uds = dir.join(UDS);
        check_socket_path(&uds)?;
        let mut command = if outlives_owner { loose(program, dir) } else { tied(program) };
        command.arg("--guest-cid").arg(DAEMON_CID.to_string());
        command.arg("--tx-buffer-size").arg(DAEMON_BUFFER.to_string());
        command.arg("--socket").arg(&vhost).arg("--uds-path").arg(&uds);
        command.env("RUST_LOG", "error");
        let helper = Helper::start(DAEMON, command, dir.join(DAEMON_LOG), &vhost).await?;
        make_private(&uds)?; // it made it by the caller's umask
        Ok(Self { helper, vhost, uds })
    }

    /// Takes over one that another owner has started with its sockets in `dir`.
    ///
    /// # Errors
    /// [`Error::Daemon`] if it has ended.
    pub fn adopt(pid: u32, dir: &Path) -> Result<Self> {
        let helper = Helper::adopt(DAEMON, pid, dir, dir.join(DAEMON_LOG))?;
        Ok(Self { helper, vhost: dir.join(VHOST), uds: dir.join(UDS) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Waits until it has ended, or serves nobody any more, which it must not, and says so.
    pub async fn ended(&self) -> Error {
        self.helper.ended().await
    }
}

#[cfg(test)]
mod tests;
