//! `hyperctl logs`: what a pod's container has printed, standard output and error kept apart.

use crate::commands::POLL;
use crate::error::{Context as _, Result};
use crate::output;
use crate::pod::output_log::{Reader, Record, Stream};
use crate::pod::store::Store;
use crate::time;

/// Print what a pod's container has printed (the last 4 to 8 MiB are kept)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as more comes, until the pod ends
    #[arg(short, long)]
    follow: bool,
    /// The time of arrival before each piece of output
    #[arg(short, long)]
    timestamps: bool,
    /// A further container of the pod, by its name [default: the first one]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Name, id, or beginning of an id
    pod: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let pod = Store::open()?.find_container(&args.pod, args.container.as_deref())?;
    let operation = || format!("read output of pod {:?}", pod.state.name);
    let mut log = Reader::open(&pod.dir).context(operation)?;
    loop {
        // Asked before reading: what a living host writes after our last read is met in the next turn.
        let may_grow = args.follow && pod.is_hosted()?;
        while let Some(record) = log.next().context(operation)? {
            print(&record, args.timestamps)?;
        }
        if !may_grow {
            return Ok(0);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn print(record: &Record, timestamps: bool) -> Result<()> {
    let stamp = if timestamps { time::rfc3339(record.unix_millis) + " " } else { String::new() };
    let bytes = [stamp.as_bytes(), &record.bytes].concat();
    match record.stream {
        Stream::Stdout => output::print(bytes),
        Stream::Stderr => output::print_error(bytes),
    }
}
