//! What is said over a pod's `control.sock`: a line of JSON each.
//!
//! ```text
//! a hyperctl in front                               the pod's host, or its heir
//!   {"attach": {container, reader}} ─────────────>  holds the output for this reader while the connection lasts
//!   "delivered" ─────────────────────────────────>  … and does not wait for it any more
//!                                       <─────────  {"ended": how}, when the pod is over
//!
//!   {"run": a further container} ────────────────>  creates, starts and keeps it
//!                                       <─────────  {"started": id} or {"ended": why not}
//! ```
//! The last two are also how a host that is being started tells it (see `detach`).
//! A host that is killed breaks the connection: who is attached comes again, to its heir.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::commands::POLL;
use crate::error::{Context as _, Error, Result};
use crate::output;
use crate::pod::further;
use crate::pod::hosted;

/// The longest line that either side takes: an order has a whole OCI spec, seccomp included.
const MAX_LINE: u64 = 4 << 20;

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Attach { container: String, reader: String },
    Delivered,
    Run(Box<further::Order>),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Started { id: String },
    Ended(Ended),
}

/// How a pod, or a further container, came to its end.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Ended {
    pub code: u8,
    /// Why, if it was not by its process's exit.
    pub error: Option<String>,
    pub hint: Option<String>,
    /// What the host had to say to whoever is in front, line by line.
    pub said: String,
}

impl Ended {
    pub fn of(outcome: &Result<u8>, said: String) -> Ended {
        match outcome {
            Ok(code) => Ended { code: *code, said, ..Ended::default() },
            Err(err) => Ended {
                code: err.code(),
                error: Some(err.message().to_string()),
                hint: err.hint_text().map(str::to_string),
                said,
            },
        }
    }

    pub fn outcome(self) -> Result<u8> {
        let Some(error) = self.error else { return Ok(self.code) };
        let err = Error::new(error).with_code(self.code);
        Err(match self.hint {
            Some(hint) => err.hint(hint),
            None => err,
        })
    }

    /// Why it was not begun.
    pub fn refusal(self) -> Error {
        let err = self.outcome().err();
        err.unwrap_or_else(|| Error::new("the pod's host has not said why"))
    }

    /// Shows what the host had to say.
    pub fn say(&self) {
        if !self.said.is_empty() {
            output::say(self.said.trim_end());
        }
    }
}

pub fn socket(pod: &Path) -> PathBuf {
    pod.join("control.sock")
}

/// One end of a connection.
pub struct Line(BufReader<UnixStream>, Vec<u8>);

impl Line {
    pub fn new(stream: UnixStream) -> Line {
        Line(BufReader::new(stream), Vec::new())
    }

    /// To the host of the pod in `dir`.
    pub async fn connect(dir: &Path) -> Result<Line> {
        let stream = UnixStream::connect(socket(dir)).await;
        Ok(Line::new(stream.context(|| "ask the pod's host".to_string())?))
    }

    pub async fn say(&mut self, message: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.0.write_all(&line).await?)
    }

    /// Says why what was asked for is not done.
    pub async fn refuse(&mut self, why: Error) {
        let ended = Ended::of(&Err(why), String::new());
        if let Err(err) = self.say(&Answer::Ended(ended)).await {
            log::debug!("refuse: {}", err.message()); // whoever asked is gone
        }
    }

    /// The next message; `None` at the end. May be given up and called again.
    pub async fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<T>> {
        let room = MAX_LINE.saturating_sub(self.1.len() as u64);
        (&mut self.0).take(room).read_until(b'\n', &mut self.1).await?;
        if self.1.last() != Some(&b'\n') {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.1);
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// A hold on a process's output, kept over the deaths of hosts, for as long as this lives.
pub struct Attachment {
    task: JoinHandle<()>,
    delivered: watch::Sender<bool>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Attachment {
    /// `dir` is the pod's, or the further container's.
    pub fn hold(dir: &Path, container: &str, reader: &str) -> Attachment {
        let request =
            Request::Attach { container: container.to_string(), reader: reader.to_string() };
        let (tell, ended) = watch::channel(None);
        let (delivered, is_delivered) = watch::channel(false);
        let task = tokio::spawn(hold(dir.to_path_buf(), request, is_delivered, tell));
        Attachment { task, delivered, ended }
    }

    /// All is where it was to go.
    pub fn delivered(&self) {
        self.delivered.send_replace(true);
    }

    /// Waits for the end, and what the host says of it; it may not have come to say it.
    pub async fn ended(&mut self) -> Option<Ended> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hold(
    dir: PathBuf,
    request: Request,
    mut delivered: watch::Receiver<bool>,
    tell: watch::Sender<Option<Ended>>,
) {
    loop {
        match attach(hosted::pod_dir(&dir), &request, &mut delivered).await {
            Ok(Some(ended)) => {
                tell.send_replace(Some(ended));
                return;
            }
            Ok(None) => log::debug!("attach: the host is gone"),
            Err(err) => log::debug!("attach: {}", err.message()),
        }
        if !hosted::is_hosted(&dir).unwrap_or(true) {
            return;
        }
        sleep(POLL).await;
    }
}

async fn attach(
    pod: &Path,
    request: &Request,
    delivered: &mut watch::Receiver<bool>,
) -> Result<Option<Ended>> {
    let mut line = Line::connect(pod).await?;
    line.say(request).await?;
    let mut has_said = false;
    loop {
        let answer: Option<Answer> = tokio::select! {
            answer = line.hear() => answer?,
            done = is_done(delivered), if !has_said => {
                has_said = true;
                if done {
                    line.say(&Request::Delivered).await?;
                }
                continue;
            }
        };
        match answer {
            Some(Answer::Ended(ended)) => return Ok(Some(ended)),
            Some(Answer::Started { .. }) => {}
            None => return Ok(None),
        }
    }
}

/// All was delivered; or nobody will say so any more.
async fn is_done(delivered: &mut watch::Receiver<bool>) -> bool {
    delivered.wait_for(|done| *done).await.is_ok()
}
