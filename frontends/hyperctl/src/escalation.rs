//! What becomes of a signal that reaches hyperctl while a process is in its care. Pure: time is passed in.
//!
//! ```text
//! attached    forwarded as it is; a third SIGINT or SIGTERM says that the user means it: SIGKILL
//! hang-up     forwarded, and the process has GRACE to end: nobody can reach it any more
//! detached    SIGTERM to the process, and SIGKILL after GRACE; a hang-up is the shell's, not the pod's
//! ```
//! A process that outlives its SIGKILL by GRACE is given up, and with it the VM.

use std::time::Duration;

use tokio::time::Instant;

use crate::signals::{SIGHUP, SIGINT, SIGKILL, SIGTERM};

/// From SIGTERM to SIGKILL, and from SIGKILL to the end of the VM: docker's default for `stop`.
pub const GRACE: Duration = Duration::from_secs(10);
/// Docker's number of interrupts.
const INSISTENCE: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Send(u32),
    Ignore,
    GiveUp,
}

#[derive(Debug)]
pub struct Escalation {
    attached: bool,
    interrupts: u32,
    killed: bool,
    deadline: Option<Instant>,
}

impl Escalation {
    pub fn new(attached: bool) -> Escalation {
        Escalation { attached, interrupts: 0, killed: false, deadline: None }
    }

    /// When [`Escalation::overdue`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub fn signal(&mut self, signal: u32, now: Instant) -> Step {
        if signal == SIGHUP && !self.attached {
            return Step::Ignore;
        }
        self.interrupts += u32::from(signal == SIGINT || signal == SIGTERM);
        if self.interrupts >= INSISTENCE {
            return self.kill(now);
        }
        if !self.attached || signal == SIGHUP {
            self.deadline.get_or_insert(now + GRACE);
        }
        Step::Send(if self.attached { signal } else { SIGTERM })
    }

    /// The deadline has passed and the process lives.
    pub fn overdue(&mut self, now: Instant) -> Step {
        self.kill(now)
    }

    fn kill(&mut self, now: Instant) -> Step {
        if self.killed {
            return Step::GiveUp;
        }
        self.killed = true;
        self.deadline = Some(now + GRACE);
        Step::Send(SIGKILL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attached_process_gets_signals_as_they_are_until_the_user_insists() {
        let now = Instant::now();
        let mut escalation = Escalation::new(true);
        assert_eq!(escalation.signal(10, now), Step::Send(10));
        assert_eq!(escalation.signal(SIGINT, now), Step::Send(SIGINT));
        assert_eq!(escalation.signal(SIGINT, now), Step::Send(SIGINT));
        assert_eq!(escalation.deadline(), None);
        assert_eq!(escalation.signal(SIGTERM, now), Step::Send(SIGKILL));
        assert_eq!(escalation.signal(SIGINT, now), Step::GiveUp);
    }

    #[test]
    fn a_detached_process_is_stopped_and_then_killed() {
        let now = Instant::now();
        let mut escalation = Escalation::new(false);
        assert_eq!(escalation.signal(SIGHUP, now), Step::Ignore);
        assert_eq!(escalation.signal(SIGINT, now), Step::Send(SIGTERM));
        assert_eq!(escalation.deadline(), Some(now + GRACE));
        assert_eq!(escalation.overdue(now + GRACE), Step::Send(SIGKILL));
        assert_eq!(escalation.deadline(), Some(now + GRACE + GRACE));
        assert_eq!(escalation.overdue(now + GRACE + GRACE), Step::GiveUp);
    }

    #[test]
    fn a_hang_up_starts_the_clock() {
        let now = Instant::now();
        let mut escalation = Escalation::new(true);
        assert_eq!(escalation.signal(SIGHUP, now), Step::Send(SIGHUP));
        assert_eq!(escalation.deadline(), Some(now + GRACE));
    }
}
