//! `hyperctl logs`: what a pod's container has printed, standard output and error kept apart.
//!
//! Read from the record that the pod's host writes, at the guest's offsets, as the container prints: a reader of ours in
//! the guest would hold a container up whose log somebody follows with a pager.

use crate::commands::POLL;
use crate::error::{Context as _, Result};
use crate::lines::Lines;
use crate::moment;
use crate::output;
use crate::pod::output_log::{Reader, Record, Stream};
use crate::pod::state::Status;
use crate::pod::store::{Pod, Store};
use crate::time;

/// Print what a pod's container has printed (the last 4 to 8 MiB are kept)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as more comes, until the pod ends
    #[arg(short, long)]
    follow: bool,
    /// The time of arrival before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Lines since a time (2026-11-21T10:41:08Z), or so long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    since: Option<u64>,
    /// Lines until a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    until: Option<u64>,
    /// Only the last lines of these, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// A further container of the pod, by its name [default: the first one]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Name, id, or beginning of an id
    pod: String,
}

/// How many of the lines that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    All,
    Last(u64),
}

fn tail(text: &str) -> std::result::Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        _ => text.parse().map(Tail::Last).map_err(|_| "a number of lines, or all".to_string()),
    }
}

pub async fn run(args: Args) -> Result<u8> {
    let store = Store::open()?;
    let pod = store.find_container(&args.pod, args.container.as_deref())?;
    let operation = || format!("read output of pod {:?}", pod.state.name);
    let skip = args.lines_to_skip(&pod).context(operation)?;
    let mut lines = Lines::new(args.since, args.until);
    let mut log = Reader::open(&pod.dir).context(operation)?;
    let mut seen = Seen::default();
    loop {
        // Asked before reading: what a living host writes after our last read is met in the next turn.
        let over = args.until.is_some_and(|until| time::unix_millis() > until);
        let may_grow = args.follow && !over && may_grow(&store, &pod)?;
        while let Some(record) = log.next().context(operation)? {
            if let Some(gap) = seen.gap_before(&record) {
                output::warn(gap);
            }
            print(&record, &mut lines, skip, args.timestamps)?;
        }
        if !may_grow {
            return Ok(0);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether its host lives, or another one is about to take its place.
fn may_grow(store: &Store, pod: &Pod) -> Result<bool> {
    if pod.is_hosted()? {
        return Ok(true);
    }
    let found = store.list()?.into_iter().find(|other| other.state.id == pod.state.id);
    Ok(found.is_some_and(|pod| !matches!(pod.state.status, Status::Exited { .. })))
}

/// The offset after the last byte that was read, of each stream that had one.
#[derive(Default)]
struct Seen {
    stdout: Option<u64>,
    stderr: Option<u64>,
}

impl Seen {
    /// What is to be said before this record: the log went on without us by more than it keeps.
    fn gap_before(&mut self, record: &Record) -> Option<String> {
        let (name, seen) = match record.stream {
            Stream::Stdout => ("standard output", &mut self.stdout),
            Stream::Stderr => ("standard error", &mut self.stderr),
        };
        let end = record.offset + record.bytes.len() as u64;
        let expected = seen.replace(end)?;
        let missing = record.offset.checked_sub(expected).filter(|missing| *missing > 0)?;
        Some(format!(
            "{missing} bytes of {name} are missing here: more than the log keeps came meanwhile"
        ))
    }
}

impl Args {
    /// The lines that come before the last ones that are asked for.
    fn lines_to_skip(&self, pod: &Pod) -> Result<u64> {
        let Tail::Last(last) = self.tail else { return Ok(0) };
        let mut lines = Lines::new(self.since, self.until);
        let mut log = Reader::open(&pod.dir)?;
        while let Some(record) = log.next()? {
            lines.of(&record);
        }
        Ok(lines.count().saturating_sub(last))
    }
}

fn print(record: &Record, lines: &mut Lines, skip: u64, timestamps: bool) -> Result<()> {
    let stamp = if timestamps { time::rfc3339(record.unix_millis) + " " } else { String::new() };
    let mut bytes = Vec::with_capacity(record.bytes.len());
    for piece in lines.of(record).iter().filter(|piece| piece.line >= skip) {
        if piece.begins {
            bytes.extend(stamp.as_bytes());
        }
        bytes.extend(piece.bytes);
    }
    match record.stream {
        Stream::Stdout => output::print(bytes),
        Stream::Stderr => output::print_error(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted() {
        let record = |stream, offset, length| Record {
            stream,
            unix_millis: 0,
            offset,
            bytes: vec![b'x'; length],
        };
        let mut seen = Seen::default();
        assert_eq!(seen.gap_before(&record(Stream::Stdout, 100, 10)), None, "the oldest there is");
        assert_eq!(seen.gap_before(&record(Stream::Stderr, 7, 1)), None);
        assert_eq!(seen.gap_before(&record(Stream::Stdout, 110, 5)), None);
        let gap = seen.gap_before(&record(Stream::Stdout, 120, 1)).unwrap();
        assert!(gap.starts_with("5 bytes of standard output are missing"), "{gap}");
        assert_eq!(seen.gap_before(&record(Stream::Stdout, 121, 1)), None);
        assert_eq!(seen.gap_before(&record(Stream::Stderr, 8, 1)), None);
    }

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!(
            (tail("all"), tail("10"), tail("0")),
            (Ok(Tail::All), Ok(Tail::Last(10)), Ok(Tail::Last(0)))
        );
        assert!(tail("-1").is_err() && tail("some").is_err());
    }
}
