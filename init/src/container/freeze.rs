//! Pause and resume: the cgroup's freezer (cgroup-v2, "cgroup.freeze").
//!
//! ```text
//! Running ──pause: 1, wait for frozen 1──► Paused ──resume: 0, wait for frozen 0──► Running
//! ```
//! A frozen process still dies of SIGKILL, so a paused container can be killed and removed as it is. Nothing is started
//! in it, since that would freeze before it is set up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Container, State};
use crate::error::{Code, Context, Error, Result};
use crate::textfile;

/// For every process to leave the kernel, where alone it can be frozen.
const DEADLINE: Duration = Duration::from_secs(10);

impl Container {
    /// Stops all its processes where they are. If one of them does not, all go on, and that is the error.
    pub async fn pause(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        if self.state() != State::Running {
            return Err(self.wrong_state());
        }
        self.paused.set(true); // at once: an exec that came while this waits would be frozen half made
        let frozen = freeze(self.cgroup.path(), true).await;
        if frozen.is_err() {
            self.paused.set(false);
            write(self.cgroup.path(), false)?;
        }
        frozen
    }

    /// Lets them go on.
    pub async fn resume(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        match self.state() {
            State::Paused => {}
            State::Running => return Err(Error::new(Code::FailedPrecondition, "it is not paused")),
            State::Created | State::Stopped(_) => return Err(self.wrong_state()),
        }
        freeze(self.cgroup.path(), false).await?;
        self.paused.set(false);
        Ok(())
    }
}

async fn freeze(cgroup: &Path, frozen: bool) -> Result<()> {
    write(cgroup, frozen)?;
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(1);
    let events = cgroup.join("cgroup.events");
    while textfile::number(&textfile::read(&events)?, "frozen") != u64::from(frozen) {
        if Instant::now() > deadline {
            let seconds = DEADLINE.as_secs();
            let message = format!("freeze {cgroup:?}: a process has not stopped after {seconds} s");
            return Err(Error::new(Code::DeadlineExceeded, message));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

fn write(cgroup: &Path, frozen: bool) -> Result<()> {
    let value = if frozen { "1" } else { "0" };
    fs::write(cgroup.join("cgroup.freeze"), value).context(|| format!("freeze {cgroup:?}"))
}
