//! Files between host and guest, and the guest's packet filter: what is done by children, with a deadline.

use std::ffi::CStr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Sandbox;
use crate::container::{ContainerId, TerminationLog};
use crate::error::{Code, Context, Error, Result};
use crate::offload::{self, shell, tool};
use crate::reaper::Exit;
use crate::storage::{copy_file, share};
use crate::sys::process::Child;

/// A host's filesystem, or a program.
const DEADLINE: Duration = Duration::from_secs(30);

/// Kubernetes' own limit of a termination message.
const MESSAGE_MAX: u64 = 4096;

/// Of the packet filter: IPv4's tables, or IPv6's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Sandbox {
    /// Starts the image's own shell on a stream: for a debug console.
    pub fn debug_shell(&self, stream: UnixStream) -> Result<(Child, Exit)> {
        let child = shell::start(stream)?;
        let exit = self.reaper.watch(child.pid);
        Ok((child, exit))
    }

    pub async fn copy_file(&self, piece: copy_file::Piece) -> Result<()> {
        offload::run(&self.reaper, DEADLINE, move || copy_file::copy(&piece)).await
    }

    pub async fn look_at_shared_mounts(&self) -> Result<()> {
        offload::run(&self.reaper, DEADLINE, share::look_at_mounts)
            .await
            .context(|| "look at the shared mounts".to_owned())
    }

    /// The end of what the container's program has left as its last words.
    pub async fn termination_message(&self, id: &ContainerId) -> Result<String> {
        let log = self.container(id)?.termination_log().clone();
        let read = move || match log {
            TerminationLog::Mounted(path) => share::read_end(&path, MESSAGE_MAX),
            TerminationLog::InRoot { root, path } => share::read_end_in(&root, &path, MESSAGE_MAX),
        };
        let end = offload::collect(&self.reaper, DEADLINE, MESSAGE_MAX, read)
            .await
            .context(|| format!("termination log of container {id:?}"))?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    }

    /// All rules, as iptables-save(8) writes them.
    pub async fn packet_filter(&self, family: Family) -> Result<Vec<u8>> {
        let name = match family {
            Family::V4 => c"iptables-save",
            Family::V6 => c"ip6tables-save",
        };
        tool::run(&self.reaper, DEADLINE, &[name], &[])
            .await
            .context(|| "read the packet filter".to_owned())
    }

    /// Replaces the rules of each table that is named, as iptables-restore(8) does.
    pub async fn set_packet_filter(&self, family: Family, rules: &[u8]) -> Result<Vec<u8>> {
        let words: [&CStr; 3] = match family {
            Family::V4 => [c"iptables-restore", c"--wait", c"5"],
            Family::V6 => [c"ip6tables-restore", c"--wait", c"5"],
        };
        let set = async {
            if u64::try_from(rules.len()).unwrap_or(u64::MAX) > tool::MOST {
                let message = format!("data: more than {} bytes", tool::MOST);
                return Err(Error::new(Code::InvalidArgument, message));
            }
            tool::run(&self.reaper, DEADLINE, &words, rules).await
        };
        set.await.context(|| "set the packet filter".to_owned())
    }
}
