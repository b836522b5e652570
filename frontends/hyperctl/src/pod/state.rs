//! What is known of a pod on disk: `state.json`, the one file that its host writes and every other hyperctl reads.
//!
//! ```text
//! booting ──(container started)──> running ──(container ended, VM gone)──> exited
//!     └──(boot failed, host killed)──> the directory is removed               └──(`rm`, --rm)──> removed
//! ```
//! The file is replaced as a whole (written beside, then renamed), so a reader sees the old or the new state, never
//! half of one. It may hold secrets (the process's environment): directory 0700, file 0600.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Result};
use crate::hooks::Due;
use crate::pod::disks::Attached;
use crate::receipt::{GuestReceipt, HostStep};

/// Counted up when an older hyperctl could no longer read the file rightly.
const FORMAT: u32 = 3;
const FILE: &str = "state.json";

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    pub format: u32,
    pub id: String,
    /// Of a container in a pod: `POD/NAME`.
    pub name: String,
    /// The pod that it is a further container of; `None`: it is a pod, and that pod's first container.
    #[serde(default)]
    pub pod: Option<String>,
    /// What was run: an image's name or path, or a bundle's directory.
    pub image: String,
    pub status: Status,
    /// Milliseconds since 1970.
    pub created: u64,
    pub host_pid: i32,
    pub vm: Vm,
    /// Where the guest answers, once it does.
    pub address: Option<Address>,
    /// The container's own process; an exec takes its environment, directory and user from it.
    pub process: Option<Process>,
    /// What asks it to stop, by name or number; empty is SIGTERM.
    #[serde(default)]
    pub stop_signal: String,
    /// Of a pod: its containers share a pid namespace.
    #[serde(default)]
    pub share_pid: bool,
    /// Where the guest's console is logged.
    #[serde(default)]
    pub console: Option<PathBuf>,
    /// What the host did to get here, for the boot receipt.
    #[serde(default)]
    pub steps: Vec<HostStep>,
    /// What the guest noted of its boot; asked for when the container has ended.
    #[serde(default)]
    pub receipt: Option<GuestReceipt>,
    /// No record stays when it has ended.
    #[serde(default)]
    pub remove: bool,
    /// How its process ended, as soon as that is known: what is left to do may be another host's.
    #[serde(default)]
    pub exit: Option<u8>,
    /// Readers of its output that are somebody's in front: see `fronts`.
    #[serde(default)]
    pub readers: BTreeSet<String>,
    /// The host's hooks that are still to be run.
    #[serde(default)]
    pub hooks: Option<Due>,
    /// Digests of the images in the store that it is made of: they stay for as long as it runs.
    #[serde(default)]
    pub images: Vec<String>,
    /// Where the layers of its image are, from the lowest up.
    #[serde(default)]
    pub attached: Vec<Attached>,
    /// What of the host its container mounts, by `-v` and `--mount`.
    #[serde(default)]
    pub mounts: Vec<Mounted>,
    /// Of a further container: the disks that it was given beside its image.
    #[serde(default)]
    pub disks: Vec<Attached>,
}

/// Something of the host's in a container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Mounted {
    pub source: Option<PathBuf>,
    pub target: PathBuf,
    /// `virtio-fs`, `9p`, `copy`, `block` or `tmpfs`.
    pub driver: String,
    /// The share's, if it is one.
    pub tag: Option<String>,
    /// The volume's name, if it has one.
    pub volume: Option<String>,
    pub read_only: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Status {
    Booting,
    Running {
        since: u64,
    },
    Exited {
        at: u64,
        exit_code: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// The VM as it was asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Vm {
    pub machine: String,
    pub boot: String,
    pub transport: Option<String>,
    pub cpus: u32,
    pub memory_mib: u32,
    /// Places for layers that come later.
    #[serde(default)]
    pub slots: u32,
}

/// How another process reaches the guest.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "transport")]
pub enum Address {
    Vsock { cid: u32, port: u32 },
    Hybrid { path: PathBuf, port: u32 },
    Unix { path: PathBuf },
}

impl State {
    pub fn new(id: String, name: String, image: String, vm: Vm) -> State {
        State {
            format: FORMAT,
            id,
            name,
            pod: None,
            image,
            status: Status::Booting,
            created: crate::time::unix_millis(),
            host_pid: rustix::process::getpid().as_raw_nonzero().get(),
            vm,
            address: None,
            process: None,
            stop_signal: String::new(),
            share_pid: false,
            console: None,
            steps: Vec::new(),
            receipt: None,
            remove: false,
            exit: None,
            readers: BTreeSet::new(),
            hooks: None,
            images: Vec::new(),
            attached: Vec::new(),
            mounts: Vec::new(),
            disks: Vec::new(),
        }
    }

    pub fn load(dir: &Path) -> Result<State> {
        let path = dir.join(FILE);
        let bytes = fs::read(&path).context(|| format!("read {path:?}"))?;
        parse(&bytes).context(|| format!("read {path:?}"))
    }

    /// Whether one was ever saved there.
    pub fn is_there(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).context(|| format!("write {path:?}"))?;
        write_whole(&path, &text).context(|| format!("write {path:?}"))
    }

    /// It has ended, in this way.
    pub fn exited(&mut self, outcome: &Result<u8>) {
        let (exit_code, error) = match outcome {
            Ok(code) => (*code, None),
            Err(err) => (err.code(), Some(err.message().to_string())),
        };
        self.status = Status::Exited { at: crate::time::unix_millis(), exit_code, error };
        self.address = None;
    }

    /// The command line of the container's own process, as `ps` shows it.
    pub fn command(&self) -> String {
        let args = self.process.as_ref().and_then(|process| process.args().as_ref());
        args.map(|args| args.join(" ")).unwrap_or_default()
    }
}

/// Replaces a file as a whole.
pub fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&beside)?.write_all(text)?;
    fs::rename(&beside, path)
}

fn parse(bytes: &[u8]) -> Result<State> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(Error::new(format!("format {format} is not {FORMAT}"))
            .hint("the pod was started by another version of hyperctl: use that one"));
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new("0123456789ab".into(), "web".into(), "busybox".into(), Vm::default())
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = state();
        state.status = Status::Exited { at: 5, exit_code: 7, error: None };
        state.address = Some(Address::Vsock { cid: 3, port: 1024 });
        state.save(dir.path()).unwrap();
        let loaded = State::load(dir.path()).unwrap();
        assert_eq!(loaded.status, state.status);
        assert_eq!(loaded.address, state.address);
        assert!(!dir.path().join("state.json.new").exists());
    }

    #[test]
    fn a_state_of_another_version_is_refused_by_number() {
        let err = parse(br#"{"format": 99, "anything": true}"#).unwrap_err();
        assert!(err.to_string().contains("format 99"), "{err}");
    }

    #[test]
    fn a_truncated_state_is_an_error() {
        assert!(parse(br#"{"format": 3, "id": "01"#).is_err());
        assert!(parse(b"").is_err());
    }
}
