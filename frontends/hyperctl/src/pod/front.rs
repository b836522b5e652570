//! In front of a container: what `run` does once its host has started it, and `attach` at any time.
//!
//! ```text
//! attach ─ session (streams, signals) ─ all delivered ─ the host ends the pod ─ what it has to say ─ exit code
//!              └── a host is killed: its heir has the same; the VM is gone: the host says why
//! ```
//! Killed itself, it leaves the pod as it is: its output goes into the log, and waits for nobody in front any more.

use crate::detach_keys::Keys;
use crate::error::{Error, Result};
use crate::output;
use crate::pod::client;
use crate::pod::control::{Attachment, Ended};
use crate::pod::link::Link;
use crate::pod::state::{State, Status};
use crate::pod::store::Pod;
use crate::session::{Offsets, Session};
use crate::signals::Signals;

/// Who is in front, and how.
pub struct Front<'a> {
    /// The name by which the output is held for us.
    pub reader: &'a str,
    pub interactive: bool,
    /// From where; what the guest no longer keeps is passed over.
    pub from: Offsets,
    /// It was ours from the start: when it has ended we wait until nothing of it is left, and say what its host says.
    pub to_the_end: bool,
    pub detach_keys: Keys,
}

impl Front<'_> {
    /// Stays in front of the pod's, or further container's, own process until it has ended: its exit code.
    pub async fn attach(&self, pod: &Pod, signals: &mut Signals) -> Result<u8> {
        let mut attachment = Attachment::hold(&pod.dir, &pod.state.id, self.reader);
        let link = Link::to(pod)?;
        let tty = pod.state.process.as_ref().and_then(|process| process.terminal());
        let session = Session {
            link: &link,
            reader: self.reader,
            tty: tty.unwrap_or(false),
            interactive: self.interactive,
            from: self.from,
            ours: self.to_the_end,
            detach_keys: self.detach_keys.clone(),
        };
        let outcome = session.run(signals).await;
        attachment.delivered();
        match &outcome {
            Err(err) if err.is_detached() => {
                output::say("detached: `hyperctl attach` comes back");
                return Ok(0);
            }
            Err(err) if !err.is_lost() && !self.to_the_end => return outcome, // the pod goes on
            Err(err) if !err.is_lost() && !err.is_silent() => client::hurry(pod)?,
            Ok(_) | Err(_) => {}
        }
        if !self.to_the_end && outcome.is_ok() {
            return outcome;
        }
        let last_word = tokio::select! {
            ended = over(pod, &mut attachment) => ended?,
            _ = signals.next_ending() => {
                client::hurry(pod)?; // the user has seen the end already and will not wait
                None
            }
        };
        settle(pod, outcome, last_word)
    }
}

/// Waits until nothing is left but the record.
async fn over(pod: &Pod, attachment: &mut Attachment) -> Result<Option<Ended>> {
    let ended = attachment.ended().await;
    client::gone(&pod.dir).await?;
    Ok(ended)
}

/// What we saw ourselves, what the host has said, or what it has written down.
fn settle(pod: &Pod, outcome: Result<u8>, last_word: Option<Ended>) -> Result<u8> {
    if let Some(ended) = &last_word {
        ended.say();
    }
    match outcome {
        Err(err) if err.is_lost() => match (last_word, State::load(&pod.dir)) {
            (Some(ended), _) => ended.outcome(),
            (None, Ok(State { status: Status::Exited { exit_code, error, .. }, .. })) => {
                Ended { code: exit_code, error, ..Ended::default() }.outcome()
            }
            (None, _) => Err(Error::new("the pod ended before its container")),
        },
        outcome => outcome,
    }
}
