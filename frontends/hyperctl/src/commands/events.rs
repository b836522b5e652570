//! `hyperctl events`: what happens in guests, in docker's words, as it happens.
//!
//! A guest numbers its events and keeps the last of them, so a follower that was away goes on after the number that it
//! knows (`--since 17`). Numbers are a pod's own.

use std::time::Duration;

use hyperstart::{Code, ContainerId, Event, Events, NextEvent, Sandbox};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;

use crate::commands::POLL;
use crate::commands::stats::Format;
use crate::error::{Context as _, Error, Result};
use crate::happening::{Names, json, line};
use crate::moment;
use crate::output;
use crate::pod::client;
use crate::pod::state::Status;
use crate::pod::store::{Pod, Store};

/// How often a follower of all pods looks for new ones. The events of a pod are its guest's: one that has come and gone
/// between two looks is not told of.
const LOOK: Duration = Duration::from_millis(100);

const NOTES: &str = "\
--since NUMBER goes on after the event of that number (seq) of the pod that is named; --since TIME begins at a time
(2026-11-21T10:41:08Z), or so long ago (10m). Without it only what happens from here on is shown, or, with --no-follow,
all that the guest keeps.";

/// Show what happens in pods: starts, exits, pauses, out-of-memory kills, devices
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Go on as more happens (the default)
    #[arg(short, long, conflicts_with = "no_follow")]
    follow: bool,
    /// End when all that has happened was shown
    #[arg(long)]
    no_follow: bool,
    /// Begin after this event, or at this time
    #[arg(long, value_name = "NUMBER|TIME", value_parser = since)]
    since: Option<Since>,
    /// table or json (an object a line)
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    format: Format,
    /// A further container of the pod, by its name [default: all that is in the pod]
    #[arg(short, long, value_name = "NAME", requires = "pod")]
    container: Option<String>,
    /// Name, id, or beginning of an id [default: all pods]
    pod: Option<String>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Sequence(u64),
    UnixMillis(u64),
}

/// A plain number is an event's; with a fraction it would be a time, as in docker.
fn since(text: &str) -> std::result::Result<Since, String> {
    match text.parse() {
        Ok(sequence) => Ok(Since::Sequence(sequence)),
        Err(_) => moment::parse(text)
            .map(Since::UnixMillis)
            .map_err(|err| format!("the number of an event, or {err}")),
    }
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    if args.pod.is_none() && matches!(args.since, Some(Since::Sequence(_))) {
        return Err(Error::new("show events: each pod has numbers of its own")
            .hint("name the pod, or say a time: --since 10m"));
    }
    let (sender, receiver) = channel(64);
    let mut sources = Vec::new();
    for pod in chosen(&args, &store)? {
        let operation = format!("show events of pod {:?}", pod.state.name);
        sources.push(Source::open(pod, &args).await.context(|| operation)?);
    }
    let mut seen: Vec<String> = sources.iter().map(|source| source.pod.state.id.clone()).collect();
    for source in sources {
        tokio::spawn(source.tell(sender.clone()));
    }
    let look = async {
        if args.pod.is_some() || args.no_follow {
            drop(sender); // what is told ends with those that tell it
            return std::future::pending::<Result<u8>>().await;
        }
        loop {
            sleep(LOOK).await;
            begin_new(&store, &mut seen, &sender)?;
        }
    };
    tokio::select! {
        biased; // the sender is dropped before its end is waited for
        failed = look => failed,
        shown = show(receiver, &store, &args) => shown,
    }
}

/// The pods to begin with. All of them: those that run.
fn chosen(args: &Args, store: &Store) -> Result<Vec<Pod>> {
    if let Some(name) = &args.pod {
        return Ok(vec![store.find_container(name, args.container.as_deref())?]);
    }
    let mut pods = store.list()?;
    pods.retain(is_guest);
    Ok(pods)
}

/// A further container has its pod's guest, whose events are told once.
fn is_guest(pod: &Pod) -> bool {
    pod.state.pod.is_none() && matches!(pod.state.status, Status::Running { .. })
}

/// Pods that have begun since: all that happened in them is new.
fn begin_new(store: &Store, seen: &mut Vec<String>, sender: &Sender<Told>) -> Result<()> {
    for pod in store.list()? {
        if is_guest(&pod) && !seen.contains(&pod.state.id) {
            seen.push(pod.state.id.clone());
            let sender = sender.clone();
            tokio::spawn(async move {
                match Source::all(pod).await {
                    Ok(source) => source.tell(sender).await,
                    Err(err) => output::warn(err.message()), // it may have ended in this moment
                }
            });
        }
    }
    Ok(())
}

/// What one guest tells.
#[derive(Debug)]
pub enum Told {
    Event { pod: String, event: Event },
    Lost { pod: String, count: u64 },
    Failed(Error),
}

/// The events of one guest, or of one container in it.
struct Source {
    pod: Pod,
    events: Events,
    /// Only events of this container.
    only: Option<ContainerId>,
    not_before: Option<u64>,
    /// The event to end with.
    until: Option<u64>,
}

impl Source {
    async fn open(pod: Pod, args: &Args) -> Result<Source> {
        let (sandbox, container) = client::connect(&pod).await?;
        let last = last_event(&sandbox).await?;
        let (after, not_before) = match args.since {
            Some(Since::Sequence(sequence)) if sequence > last => {
                return Err(Error::new(format!("there is no event {sequence} yet"))
                    .hint(format!("the last one has number {last}")));
            }
            Some(Since::Sequence(sequence)) => (sequence, None),
            Some(Since::UnixMillis(millis)) => (0, Some(millis)),
            None if args.no_follow => (0, None),
            None => (last, None),
        };
        let only = pod.state.pod.is_some().then(|| container.id().clone());
        let until = args.no_follow.then_some(last);
        Ok(Source { events: sandbox.events(after), pod, only, not_before, until })
    }

    /// All that has happened in a guest, and will.
    async fn all(pod: Pod) -> Result<Source> {
        let (sandbox, _) = client::connect(&pod).await?;
        let events = sandbox.events(0);
        Ok(Source { events, pod, only: None, not_before: None, until: None })
    }

    /// Tells them until the pod ends, or nobody listens.
    async fn tell(mut self, sender: Sender<Told>) {
        while self.until.is_none_or(|until| self.events.last() < until) {
            let (pod, before) = (self.pod.state.name.clone(), self.events.last());
            let told = match self.events.next().await {
                Ok(NextEvent::Event(event)) if !self.wants(&event) => continue,
                Ok(NextEvent::Event(event)) => Told::Event { pod, event },
                Ok(NextEvent::Lost(_)) if before == 0 => continue, // all that is kept was asked for
                Ok(NextEvent::Lost(count)) => Told::Lost { pod, count },
                Err(err) if err.code() == Code::Unavailable => match self.pod.is_hosted() {
                    Ok(true) => {
                        sleep(POLL).await;
                        continue;
                    }
                    Ok(false) => return,
                    Err(err) => Told::Failed(err),
                },
                Err(err) => Told::Failed(client::guest_error(&err)),
            };
            let failed = matches!(told, Told::Failed(_));
            if sender.send(told).await.is_err() || failed {
                return;
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let of = crate::happening::container(&event.what);
        self.only.as_ref().is_none_or(|only| of == Some(only))
            && self.not_before.is_none_or(|millis| crate::happening::millis(event) >= millis)
    }
}

async fn last_event(sandbox: &Sandbox) -> Result<u64> {
    let list = sandbox.list().await.map_err(|err| client::guest_error(&err))?;
    Ok(list.last_event)
}

/// Prints what is told. What has happened in several pods is put in order of time before it is shown, if it ends.
async fn show(mut told: Receiver<Told>, store: &Store, args: &Args) -> Result<u8> {
    let mut names = Names::new(store);
    let mut history = Vec::new();
    while let Some(told) = told.recv().await {
        match told {
            Told::Event { pod, event } if args.no_follow => history.push((pod, event)),
            Told::Event { pod, event } => print(&pod, &event, &mut names, args.format)?,
            Told::Lost { pod, count } => output::warn(format_args!(
                "show events of pod {pod:?}: {count} are no longer kept; `hyperctl ps -a` shows what they came to"
            )),
            Told::Failed(err) => return Err(err).context(|| "show events".into()),
        }
    }
    history.sort_by_key(|(_, event)| event.time);
    for (pod, event) in history {
        print(&pod, &event, &mut names, args.format)?;
    }
    Ok(0)
}

fn print(pod: &str, event: &Event, names: &mut Names<'_>, format: Format) -> Result<()> {
    output::print(match format {
        Format::Table => line(pod, event, names)?,
        Format::Json => json(pod, event, names)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_an_events() {
        assert_eq!(since("17"), Ok(Since::Sequence(17)));
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Since::UnixMillis(1000)));
        assert!(since("yesterday").unwrap_err().starts_with("the number of an event, or a time"));
    }
}
