//! `hyperctl logs`: what a pod's container has printed, standard output and error kept apart.
//!
//! Read by the guest's offsets, and without holding anything there: from the record that the pod's host writes, and from
//! the guest's rings what the record does not have yet (`pod/log_reader.rs`).

use crate::error::{Context as _, Result};
use crate::lines::Lines;
use crate::moment;
use crate::output;
use crate::pod::log_reader::{LogReader, Piece};
use crate::pod::output_log::{Record, Stream};
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
    args.show(&store, &pod).await.context(operation)?;
    Ok(0)
}

/// Whether its host lives, or another one is about to take its place.
fn may_grow(store: &Store, pod: &Pod) -> Result<bool> {
    if pod.is_hosted()? {
        return Ok(true);
    }
    let found = store.list()?.into_iter().find(|other| other.state.id == pod.state.id);
    Ok(found.is_some_and(|pod| !matches!(pod.state.status, Status::Exited { .. })))
}

impl Args {
    async fn show(&self, store: &Store, pod: &Pod) -> Result<()> {
        let mut log = LogReader::open(pod)?;
        let skip = self.lines_to_skip(&mut log).await?;
        let mut lines = Lines::new(self.since, self.until);
        let mut show = |piece: Piece| {
            if let Some(gap) = gap(&piece) {
                output::warn(gap);
            }
            print(&piece.record, &mut lines, skip, self.timestamps)
        };
        log.read(&mut show).await?;
        while self.follow && !self.is_over() && may_grow(store, pod)? {
            log.read_more(&mut show).await?;
        }
        // Its host may have written more before it ended.
        log.recorded(show)
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| time::unix_millis() > until)
    }

    /// The lines that come before the last ones that are asked for.
    async fn lines_to_skip(&self, log: &mut LogReader) -> Result<u64> {
        let Tail::Last(last) = self.tail else { return Ok(0) };
        let mut lines = Lines::new(self.since, self.until);
        log.read(|piece| {
            lines.of(&piece.record);
            Ok(())
        })
        .await?;
        log.rewind()?;
        Ok(lines.count().saturating_sub(last))
    }
}

/// What is to be said before a piece: the log went on without us by more than it keeps.
fn gap(piece: &Piece) -> Option<String> {
    let name = match piece.record.stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    };
    let missing = Some(piece.missing).filter(|missing| *missing > 0)?;
    Some(format!(
        "{missing} bytes of {name} are missing here: more than the log keeps came meanwhile"
    ))
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
    fn what_is_missing_is_said() {
        let piece = |missing| Piece {
            record: Record { stream: Stream::Stdout, unix_millis: 0, offset: 9, bytes: vec![b'x'] },
            missing,
        };
        assert_eq!(gap(&piece(0)), None);
        let gap = gap(&piece(5)).unwrap();
        assert!(gap.starts_with("5 bytes of standard output are missing"), "{gap}");
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
